package history

import (
	"cmp"
	"slices"
	"time"
)

// outcome of the search for an order.
type outcome int

const (
	ordered outcome = iota
	disordered
	undecided
)

// search looks for an order of operations in which each takes effect while it is
// under way, as Wing and Gong do: choose one that may be next, go on, and come
// back if that leads nowhere. Which operations are done and what state that led
// to decides all that follows, so no such pair is tried twice.
type search struct {
	register register
	next     []int // a list of what is left, by index + 1; 0 is its head
	prev     []int
	ops      []*operation
	left     int // operations that must still find their place
	tried    map[tried]bool
	done     [2]uint64 // a hash of the operations that have their place
	until    time.Time
	steps    int
	late     bool
}

type tried struct {
	done  [2]uint64
	state any
}

// linearize searches for at most a time. ops must be in order of their calls.
func linearize(r register, ops []*operation, limit time.Duration) outcome {
	n := len(ops)
	s := &search{register: r, ops: ops, next: make([]int, n+2), prev: make([]int, n+2), tried: map[tried]bool{}, until: time.Now().Add(limit)}
	for i := range n + 1 {
		s.next[i], s.prev[i+1] = i+1, i
	}
	for _, o := range ops {
		if o.done < forever {
			s.left++
		}
	}
	switch {
	case s.run(r.initial):
		return ordered
	case s.late:
		return undecided
	}
	return disordered
}

func (s *search) run(state any) bool {
	if s.steps++; s.steps%1024 == 0 && time.Now().After(s.until) {
		s.late = true
	}
	if s.late {
		return false
	}
	// A read that fits is best done at once: it changes nothing.
	var reads []int
	defer func() {
		for _, i := range slices.Backward(reads) {
			s.restore(i)
		}
	}()
	for {
		i := s.fitting(state)
		if i < 0 {
			break
		}
		s.remove(i)
		reads = append(reads, i)
	}
	if s.left == 0 {
		return true
	}
	key := tried{s.done, state}
	if s.tried[key] {
		return false
	}
	s.tried[key] = true
	for _, i := range s.candidates() {
		o := s.ops[i]
		next := s.register.step(state, o.input)
		s.remove(i)
		for _, to := range next {
			if (to != state || o.done < forever) && s.run(to) {
				return true
			}
		}
		if o.maybe && o.done < forever && s.run(state) {
			return true
		}
		s.restore(i)
	}
	return false
}

// fitting is a read that may be next and fits the state; -1 if there is none.
func (s *search) fitting(state any) int {
	bound := forever
	for i := s.next[0]; i <= len(s.ops); i = s.next[i] {
		o := s.ops[i-1]
		if o.call > bound {
			break
		}
		bound = min(bound, o.done)
		if o.read && len(s.register.step(state, o.input)) > 0 {
			return i - 1
		}
	}
	return -1
}

// candidates are the writes that may be next: no other one was done before their
// call. Those that must be done soonest come first.
func (s *search) candidates() (all []int) {
	bound := forever
	for i := s.next[0]; i <= len(s.ops); i = s.next[i] {
		o := s.ops[i-1]
		if o.call > bound {
			break
		}
		bound = min(bound, o.done)
		if !o.read {
			all = append(all, i-1)
		}
	}
	slices.SortStableFunc(all, func(a, b int) int { return cmp.Compare(s.ops[a].done, s.ops[b].done) })
	return all
}

func (s *search) remove(i int) {
	s.next[s.prev[i+1]], s.prev[s.next[i+1]] = s.next[i+1], s.prev[i+1]
	s.toggle(i, -1)
}

func (s *search) restore(i int) {
	s.next[s.prev[i+1]], s.prev[s.next[i+1]] = i+1, i+1
	s.toggle(i, 1)
}

func (s *search) toggle(i, n int) {
	if s.ops[i].done < forever {
		s.left += n
	}
	s.done[0] ^= mix(uint64(2*i + 1))
	s.done[1] ^= mix(uint64(2*i + 2))
}

// mix spreads a number over 64 bits, so that the xor of many is a hash of their
// set.
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
