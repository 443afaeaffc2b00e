package fsm

import "container/heap"

// timers is a heap of moments at which a session's will fires or the session
// ends, or the will of a connection that was taken over fires. An item whose session has other plans by then is passed over, so items
// are never searched for.
type timers struct{ h timerHeap }

type timer struct {
	at     int64 // log time, ms
	client string
	epoch  uint64 // of a connection that was taken over, or 0
}

func (t *timers) add(at int64, client string) {
	if at != 0 {
		t.push(timer{at: at, client: client})
	}
}

func (t *timers) push(i timer) { heap.Push(&t.h, i) }

// next is the earliest moment, 0 if there is none.
func (t *timers) next() int64 {
	if len(t.h) == 0 {
		return 0
	}
	return t.h[0].at
}

// nextDue is the earliest moment at which something is to happen by itself, 0 if
// there is none.
func (st *state) nextDue() int64 {
	due := st.timers.next()
	if st.expiry != 0 && (due == 0 || st.expiry < due) {
		due = st.expiry
	}
	if st.banDue != 0 && (due == 0 || st.banDue < due) {
		due = st.banDue
	}
	return due
}

// pop takes the earliest item at or before now.
func (t *timers) pop(now int64) (timer, bool) {
	if len(t.h) == 0 || t.h[0].at > now {
		return timer{}, false
	}
	return heap.Pop(&t.h).(timer), true
}

type timerHeap []timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	if h[i].client != h[j].client {
		return h[i].client < h[j].client
	}
	return h[i].epoch < h[j].epoch
}
func (h timerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)   { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
