package routing

import (
	"hash/maphash"
	"strings"
	"unsafe"
)

// Topics remembers a value of type V for each of the topics that were asked for of
// late: what they matched, say. The zero value is an empty one of DefaultTopics
// places. It is for one goroutine.
//
// A topic costs a place of 16 bytes, a quarter of which are empty at least, and one
// piece of memory that holds all else, so that with more topics than a processor's
// cache has room for, one costs two accesses to memory and not six; one access, where
// they come in the order of the time before.
type Topics[V any] struct {
	// Places bounds how many there are, to three quarters of it: a power of two,
	// 8 at least; 0: DefaultTopics. It is set before the first use.
	Places int

	last *Topic[V]
	// cyclic: the last topic was the one that followed its predecessor the time before.
	cyclic bool
	slots  []topicSlot[V] // nil until there are two topics
	n      int
	round  uint8
}

// DefaultTopics is how many places the zero Topics has at most.
const DefaultTopics = 1 << 11

type topicSlot[V any] struct {
	hash uint64
	t    *Topic[V] // nil: empty
}

// Topic is one topic with what is remembered of it.
type Topic[V any] struct {
	Name string
	// short holds the text of Name, if it fits: up to here it is what a search looks at.
	short [shortTopic]byte
	round uint8     // of Topics when it was last asked for; the one before when it is new
	kept  bool      // when room was made, once at least
	next  *Topic[V] // what was asked for after it
	Value V
}

const (
	shortTopic = 30
	// longTopic is what is not remembered but as the last one: a hostile client could
	// fill the memory with it.
	longTopic = 1 << 10
)

var topicSeed = maphash.MakeSeed()

// GetBytes is Get for a topic that is bytes, which it does not keep.
func (k *Topics[V]) GetBytes(topic []byte) *Topic[V] {
	return k.Get(unsafe.String(unsafe.SliceData(topic), len(topic)))
}

// Get returns what is remembered of topic, whose memory it does not keep; of a topic
// that it does not know, a zero Value. A topic stays known while it is asked for, and
// what Get returned stays valid when it is forgotten.
func (k *Topics[V]) Get(topic string) *Topic[V] {
	if k.last != nil && k.last.Name == topic {
		return k.last
	}
	if k.last == nil { // most clients have one topic and need no table
		k.last = newTopic[V](topic)
		return k.last
	}
	if k.slots == nil {
		k.slots = make([]topicSlot[V], 8)
		k.add(maphash.String(topicSeed, k.last.Name), k.last)
	}
	// Who has many topics often goes through them in turn. Where that is not so, next is
	// compared below and not read.
	if next := k.last.next; k.cyclic && next != nil && next.Name == topic {
		return k.found(next)
	}
	h := maphash.String(topicSeed, topic)
	mask := uint64(len(k.slots) - 1)
	for i := h & mask; k.slots[i].t != nil; i = (i + 1) & mask {
		if s := &k.slots[i]; s.hash == h && s.t.Name == topic {
			return k.found(s.t)
		}
	}
	t := newTopic[V](topic)
	k.add(h, t)
	k.last, k.cyclic = t, false
	return t
}

func (k *Topics[V]) found(t *Topic[V]) *Topic[V] {
	if t.round != k.round {
		t.round = k.round
	}
	if k.cyclic = k.last.next == t; !k.cyclic {
		k.last.next = t
	}
	k.last = t
	return t
}

// Len returns the number of topics that are known.
func (k *Topics[V]) Len() int {
	if k.slots == nil && k.last != nil {
		return 1
	}
	return k.n
}

func newTopic[V any](name string) *Topic[V] {
	t := &Topic[V]{}
	if len(name) > len(t.short) {
		t.Name = strings.Clone(name)
		return t
	}
	n := copy(t.short[:], name)
	t.Name = unsafe.String(&t.short[0], n) // nobody writes to it again
	return t
}

// add puts t, which is not there, into the table.
func (k *Topics[V]) add(h uint64, t *Topic[V]) {
	if len(t.Name) > longTopic {
		return
	}
	if (k.n+1)*4 > len(k.slots)*3 {
		k.makeRoom()
	}
	t.round, t.kept = k.round-1, false
	k.n++
	k.put(topicSlot[V]{h, t})
}

func (k *Topics[V]) put(s topicSlot[V]) {
	mask := uint64(len(k.slots) - 1)
	i := s.hash & mask
	for k.slots[i].t != nil {
		i = (i + 1) & mask
	}
	k.slots[i] = s
}

// makeRoom makes the table larger or, where it may not be, forgets half of the topics
// at least.
func (k *Topics[V]) makeRoom() {
	most := k.Places
	if most == 0 {
		most = DefaultTopics
	}
	old, keep := k.slots, k.n/2
	if 2*len(old) <= most {
		k.slots = make([]topicSlot[V], 2*len(old))
		for _, s := range old {
			if s.t != nil {
				k.put(s)
			}
		}
		return
	}
	for _, s := range old {
		if s.t != nil {
			s.t.next = nil // who holds one that is forgotten holds no others
		}
	}
	k.slots, k.n = make([]topicSlot[V], len(old)), 0
	for rank := range topicRanks {
		for _, s := range old {
			if s.t != nil && k.n < keep && s.t.rank(k.round) == rank {
				k.n++
				k.put(s)
			}
		}
	}
	for _, s := range k.slots {
		if s.t != nil {
			s.t.kept = true
		}
	}
	k.round++
}

// topicRanks is how many ranks of topics may stay, topicPatience how often room is made
// until one that was not asked for may not.
const (
	topicRanks    = 3
	topicPatience = 3
)

// rank tells how much a topic deserves to stay, 0 most: it was asked for since room was
// last made; it stayed then; it is new. Of topics that come in turn, more than there
// is room for, so some are known, where none would be if the oldest had to go.
func (t *Topic[V]) rank(round uint8) int {
	switch age := round - t.round; {
	case age == 0:
		return 0
	case !t.kept:
		return 2
	case age <= topicPatience:
		return 1
	}
	return topicRanks
}
