package bench

import (
	"slices"
	"sync"
)

// span is a range of message numbers, both ends included.
type span struct{ from, to uint32 }

// flow accounts for one publisher's messages at one receiver. Numbers start at 0.
type flow struct {
	next       uint32 // above every number seen
	unique     uint64
	duplicates uint64
	disorder   uint64 // first arrivals after a higher number
	missing    []span // below next and not seen, ascending
}

// arrive notes a number and tells whether it is new.
func (f *flow) arrive(seq uint32) bool {
	if seq == f.next {
		f.next++
		f.unique++
		return true
	}
	return f.arriveOther(seq)
}

func (f *flow) arriveOther(seq uint32) bool {
	if seq > f.next {
		f.missing = append(f.missing, span{f.next, seq - 1})
		f.next = seq + 1
		f.unique++
		return true
	}
	i, _ := slices.BinarySearchFunc(f.missing, seq, func(s span, seq uint32) int {
		if s.to < seq {
			return -1
		}
		return 1
	})
	if i == len(f.missing) || f.missing[i].from > seq {
		f.duplicates++
		return false
	}
	switch s := &f.missing[i]; {
	case s.from == s.to:
		f.missing = slices.Delete(f.missing, i, i+1)
	case s.from == seq:
		s.from++
	case s.to == seq:
		s.to--
	default:
		rest := span{seq + 1, s.to}
		s.to = seq - 1
		f.missing = slices.Insert(f.missing, i+1, rest)
	}
	f.unique++
	f.disorder++
	return true
}

// lost returns the numbers below sent that did not arrive.
func (f *flow) lost(sent uint32) []span {
	lost := slices.Clone(f.missing)
	if f.next < sent {
		lost = append(lost, span{f.next, sent - 1})
	}
	return lost
}

// group accounts for a shared subscription: each message belongs to one member,
// and each member sees a publisher's in order.
type group struct {
	mu    sync.Mutex
	flows []flow // by publisher
}

// tally is what one receiver counted. It belongs to the receiver's goroutine.
type tally struct {
	first     uint32 // the publishers it hears are first, first+1, …
	flows     []flow
	group     *group // of a shared subscription's member; flows then hold its order only
	misrouted uint64 // messages it has no business with, or that are not ours
	latency   histogram
}

// arrive notes a message and tells whether it is new.
func (t *tally) arrive(h header, now int64) bool {
	i := h.publisher - t.first
	if i >= uint32(len(t.flows)) {
		t.misrouted++
		return false
	}
	t.latency.add(now - h.at)
	if t.group == nil {
		return t.flows[i].arrive(h.seq)
	}
	f := &t.flows[i]
	if h.seq < f.next {
		f.disorder++
	} else {
		f.next = h.seq + 1
	}
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	return t.group.flows[i].arrive(h.seq)
}
