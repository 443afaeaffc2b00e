package routing

import (
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Trie maps filters to values and finds the values of all filters that match a
// topic. Readers load an immutable Snapshot and never wait; edits copy the path
// they change, a few hundred bytes however many siblings a level has, and
// publish it at once. Edits exclude each other.
//
// The zero Trie is not ready for use; see NewTrie.
type Trie[V any] struct {
	mu    sync.Mutex // held by the writer
	edits uint64     // transactions begun; guarded by mu
	snap  atomic.Pointer[Snapshot[V]]
}

// Snapshot is the content of a Trie at one time. It is immutable and safe for
// concurrent use.
type Snapshot[V any] struct {
	root    *node[V]
	n       int
	version uint64
	hash    hasher
}

// Tx is a set of edits that readers see all at once. It belongs to the goroutine
// that runs Trie.Update and is dead when that returns.
type Tx[V any] struct {
	snap    Snapshot[V] // as edited so far
	edit    uint64      // marks the nodes this transaction made and may mutate
	changed bool
}

// NewTrie returns an empty Trie.
func NewTrie[V any]() *Trie[V] {
	t := &Trie[V]{}
	t.snap.Store(&Snapshot[V]{root: &node[V]{}, hash: hasher{seed: maphash.MakeSeed(), mask: ^uint64(0)}})
	return t
}

// Load returns the newest snapshot.
func (t *Trie[V]) Load() *Snapshot[V] { return t.snap.Load() }

// Set gives filter, a valid inner one, the value v. The Trie keeps no reference
// to the memory of filter.
func (t *Trie[V]) Set(filter string, v V) {
	t.Update(func(tx *Tx[V]) { tx.Set(filter, v) })
}

// Delete removes filter and tells whether it was there.
func (t *Trie[V]) Delete(filter string) (found bool) {
	t.Update(func(tx *Tx[V]) { found = tx.Delete(filter) })
	return found
}

// Update runs f and publishes its edits as one snapshot, with a new version
// unless there were none. If f panics nothing is published. f must not edit the
// Trie but by tx.
func (t *Trie[V]) Update(f func(tx *Tx[V])) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.edits++
	tx := &Tx[V]{snap: *t.snap.Load(), edit: t.edits}
	f(tx)
	if tx.changed {
		next := tx.snap
		next.version = t.edits
		t.snap.Store(&next)
	}
	*tx = Tx[V]{}
}

// Set gives filter, a valid inner one, the value v. The Trie keeps no reference to
// the memory of filter.
func (tx *Tx[V]) Set(filter string, v V) { tx.set(filter, v, false) }

// SetKept is Set for a filter whose memory the caller keeps as long as the Trie does:
// a short one is not copied, and must not be a piece of something large.
func (tx *Tx[V]) SetKept(filter string, v V) { tx.set(filter, v, len(filter) <= keptFilter) }

// keptFilter bounds what a level that has outlived its first filter holds in memory.
const keptFilter = 128

func (tx *Tx[V]) set(filter string, v V, kept bool) {
	tx.alive()
	tx.changed = true
	n := tx.own(tx.snap.root)
	tx.snap.root = n
	for rest, more := filter, true; more; {
		whole := rest
		var level string
		level, rest, more = cutLevel(rest)
		next := n.child(tx.snap.hash, level)
		if next == nil {
			// One node for all the levels that are new.
			if !kept {
				whole = strings.Clone(whole)
			}
			tx.snap.n++
			tx.attach(n, &node[V]{edit: tx.edit, text: whole, end: uint16(len(level)), has: true, value: v})
			return
		}
		if next.edit != tx.edit {
			next = tx.own(next)
			tx.attach(n, next)
		}
		n = next
		if tail, ok := n.tail(); ok {
			if more && tail == rest {
				break // it is the filter
			}
			tx.split(n)
		}
	}
	if !n.has {
		tx.snap.n++
	}
	n.has, n.value = true, v
}

// Delete removes filter and tells whether it was there.
func (tx *Tx[V]) Delete(filter string) bool {
	tx.alive()
	if _, ok := tx.snap.Get(filter); !ok {
		return false
	}
	tx.changed = true
	tx.snap.n--
	tx.snap.root = tx.remove(tx.snap.root, filter, true)
	return true
}

// remove returns n without the filter below it; the depth of its recursion is
// bounded by MaxLevels. An emptied node comes back with nothing in it, for the
// caller to take out.
func (tx *Tx[V]) remove(n *node[V], rest string, more bool) *node[V] {
	n = tx.own(n)
	if !more {
		var none V
		n.has, n.value = false, none
		return n
	}
	level, rest, more := cutLevel(rest)
	old := n.child(tx.snap.hash, level)
	if _, ok := old.tail(); ok {
		tx.detach(n, level)
		return n
	}
	next := tx.remove(old, rest, more)
	switch {
	case !next.has && next.kids == nil:
		tx.detach(n, level)
	case next != old:
		tx.attach(n, next)
	}
	return n
}

// Get returns the value of filter, edits of this transaction included.
func (tx *Tx[V]) Get(filter string) (V, bool) {
	tx.alive()
	return tx.snap.Get(filter)
}

// Len returns the number of filters, edits of this transaction included.
func (tx *Tx[V]) Len() int { return tx.snap.n }

func (tx *Tx[V]) alive() {
	if tx.snap.root == nil {
		panic("routing: Tx used after the end of Update")
	}
}

// Len returns the number of filters.
func (s *Snapshot[V]) Len() int { return s.n }

// Version changes with each publication of edits; it only grows.
func (s *Snapshot[V]) Version() uint64 { return s.version }

// Get returns the value of filter itself.
func (s *Snapshot[V]) Get(filter string) (v V, ok bool) {
	n := s.root
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = cutLevel(rest)
		if n = n.child(s.hash, level); n == nil {
			return v, false
		}
		if tail, ok := n.tail(); ok {
			if more && tail == rest {
				return n.value, true
			}
			return v, false
		}
	}
	return n.value, n.has
}

// Match appends the values of all filters that match the valid topic. Their
// order depends on the filters and the topic only. It allocates only to grow
// dst.
func (s *Snapshot[V]) Match(dst []V, topic string) []V {
	k := s.root.kids
	if k == nil || topic == "" {
		return dst
	}
	if topic[0] != '$' {
		return k.match(s.hash, dst, topic)
	}
	// Below the first level wildcards are like any other.
	level, rest, more := cutLevel(topic)
	if n := k.literal(s.hash, level); n != nil {
		dst = n.match(s.hash, dst, rest, more)
	}
	return dst
}

// MatchBytes is Match for a topic that is bytes, which it does not keep.
func (s *Snapshot[V]) MatchBytes(dst []V, topic []byte) []V {
	return s.Match(dst, unsafe.String(unsafe.SliceData(topic), len(topic)))
}

// match continues below n with what is left of the topic.
func (n *node[V]) match(h hasher, dst []V, rest string, more bool) []V {
	if tail, ok := n.tail(); ok {
		if more && matchFrom(tail, rest) || !more && tail == "#" { // "a/#" matches "a"
			dst = append(dst, n.value)
		}
		return dst
	}
	if more {
		if n.kids == nil {
			return dst
		}
		return n.kids.match(h, dst, rest)
	}
	if n.has {
		dst = append(dst, n.value)
	}
	if n.kids != nil && n.kids.multi != nil {
		dst = append(dst, n.kids.multi.value) // "a/#" matches "a"
	}
	return dst
}

func (k *kids[V]) match(h hasher, dst []V, topic string) []V {
	if k.multi != nil {
		dst = append(dst, k.multi.value)
	}
	if k.plus == nil && k.count == 0 {
		return dst
	}
	level, rest, more := cutLevel(topic)
	if n := k.literal(h, level); n != nil {
		dst = n.match(h, dst, rest, more)
	}
	if k.plus != nil {
		dst = k.plus.match(h, dst, rest, more)
	}
	return dst
}

// All yields every filter with its value, sorted level by level. It sorts as it
// goes, so it is for listings and not for hot paths.
func (s *Snapshot[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if s.root.kids != nil {
			s.root.kids.all(nil, yield)
		}
	}
}

// all yields what is below; prefix is the path to it, with its last separator.
func (k *kids[V]) all(prefix []byte, yield func(string, V) bool) bool {
	nodes := k.appendTo(nil)
	slices.SortFunc(nodes, byLevel)
	for _, n := range nodes {
		path := append(prefix, n.text...)
		if n.has && !yield(string(path), n.value) {
			return false
		}
		if n.kids != nil && !n.kids.all(append(path, '/'), yield) {
			return false
		}
	}
	return true
}
