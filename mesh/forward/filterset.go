package forward

import (
	"hash/maphash"
	"slices"
)

// filterSet is a set of filters. It takes less than half of the memory of a map, which pads
// keys without values and doubles at once: a node may have a million of them.
type filterSet struct {
	seed  maphash.Seed
	all   []string
	slots []uint32 // 1 + place in all, at the text's hash or behind it; 0: free
}

func newFilterSet() filterSet { return filterSet{seed: maphash.MakeSeed()} }

func (s *filterSet) len() int { return len(s.all) }

func (s *filterSet) home(filter string) int {
	return int(maphash.String(s.seed, filter) & uint64(len(s.slots)-1))
}

// find returns the slot of filter, or the free one where it belongs.
func (s *filterSet) find(filter string) (slot int, ok bool) {
	slot = s.home(filter)
	for s.slots[slot] != 0 && s.all[s.slots[slot]-1] != filter {
		slot = (slot + 1) & (len(s.slots) - 1)
	}
	return slot, s.slots[slot] != 0
}

// add adds filter and tells whether it was not there.
func (s *filterSet) add(filter string) bool {
	if len(s.all)+1 > len(s.slots)/4*3 {
		s.grow()
	}
	slot, ok := s.find(filter)
	if ok {
		return false
	}
	s.all = append(s.all, filter)
	s.slots[slot] = uint32(len(s.all))
	return true
}

func (s *filterSet) grow() {
	s.slots = make([]uint32, max(8, 2*len(s.slots)))
	for i, f := range s.all {
		slot, _ := s.find(f)
		s.slots[slot] = uint32(i + 1)
	}
}

// remove removes filter and tells whether it was there.
func (s *filterSet) remove(filter string) bool {
	if len(s.all) == 0 {
		return false
	}
	slot, ok := s.find(filter)
	if !ok {
		return false
	}
	place, last := s.slots[slot]-1, len(s.all)-1
	if int(place) != last {
		moved, _ := s.find(s.all[last])
		s.slots[moved] = place + 1
		s.all[place] = s.all[last]
	}
	s.all[last] = ""
	s.all = s.all[:last]
	// Those behind the slot that is free now move up, unless they are before their home.
	mask := len(s.slots) - 1
	for next := slot; ; {
		next = (next + 1) & mask
		if s.slots[next] == 0 {
			break
		}
		if home := s.home(s.all[s.slots[next]-1]); (next-home)&mask >= (next-slot)&mask {
			s.slots[slot], slot = s.slots[next], next
		}
	}
	s.slots[slot] = 0
	if last == 0 {
		s.all, s.slots = nil, nil
	}
	return true
}

// list returns all, in no order.
func (s *filterSet) list() []string { return slices.Clone(s.all) }
