package auth

import (
	"hash/maphash"
	"iter"
	"slices"
	"strings"
)

// shardCount balances what a change copies, the pointers to all shards and the
// entries of one: some 10 KiB at 100,000 entries.
const shardCount = 1024

// shards is an immutable map from names. The zero value is empty.
type shards[V any] struct {
	seed   maphash.Seed
	shards []*shard[V] // nil or shardCount
	n      int
}

type shard[V any] struct{ entries []entry[V] } // sorted by name

type entry[V any] struct {
	name  string
	value V
}

func (e entry[V]) compare(name string) int { return strings.Compare(e.name, name) }

// newShards takes all entries at once; of equal names the last one counts.
func newShards[V any](all iter.Seq2[string, V]) shards[V] {
	s := shards[V]{seed: maphash.MakeSeed(), shards: make([]*shard[V], shardCount)}
	for name, v := range all {
		i := s.place(name)
		if s.shards[i] == nil {
			s.shards[i] = &shard[V]{}
		}
		s.shards[i].entries = append(s.shards[i].entries, entry[V]{name, v})
	}
	for _, sh := range s.shards {
		if sh == nil {
			continue
		}
		// The last of equal names comes to be the first of them and stays.
		slices.Reverse(sh.entries)
		slices.SortStableFunc(sh.entries, func(a, b entry[V]) int { return a.compare(b.name) })
		sh.entries = slices.Clip(slices.CompactFunc(sh.entries, func(a, b entry[V]) bool { return a.name == b.name }))
		s.n += len(sh.entries)
	}
	return s
}

func (s shards[V]) place(name string) int {
	return int(maphash.String(s.seed, name) % shardCount)
}

func (s shards[V]) get(name string) (v V, ok bool) {
	if s.n == 0 {
		return v, false
	}
	sh := s.shards[s.place(name)]
	if sh == nil {
		return v, false
	}
	i, ok := slices.BinarySearchFunc(sh.entries, name, entry[V].compare)
	if !ok {
		return v, false
	}
	return sh.entries[i].value, true
}

// with returns a map in which name has the value v.
func (s shards[V]) with(name string, v V) shards[V] {
	next, sh := s.copyFor(name)
	i, found := slices.BinarySearchFunc(sh.entries, name, entry[V].compare)
	if found {
		sh.entries[i].value = v
	} else {
		sh.entries = slices.Insert(sh.entries, i, entry[V]{name, v})
		next.n++
	}
	return next
}

// without returns a map that has no such name.
func (s shards[V]) without(name string) shards[V] {
	if _, ok := s.get(name); !ok {
		return s
	}
	next, sh := s.copyFor(name)
	i, _ := slices.BinarySearchFunc(sh.entries, name, entry[V].compare)
	sh.entries = slices.Delete(sh.entries, i, i+1)
	next.n--
	return next
}

// copyFor copies what a change of name touches.
func (s shards[V]) copyFor(name string) (shards[V], *shard[V]) {
	if s.shards == nil {
		s = newShards(func(func(string, V) bool) {})
	}
	s.shards = slices.Clone(s.shards)
	i, sh := s.place(name), &shard[V]{}
	if old := s.shards[i]; old != nil {
		sh.entries = slices.Clone(old.entries)
	}
	s.shards[i] = sh
	return s, sh
}

// all yields the values by name.
func (s shards[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		entries := make([]entry[V], 0, s.n)
		for _, sh := range s.shards {
			if sh != nil {
				entries = append(entries, sh.entries...)
			}
		}
		slices.SortFunc(entries, func(a, b entry[V]) int { return a.compare(b.name) })
		for _, e := range entries {
			if !yield(e.value) {
				return
			}
		}
	}
}
