package routing

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
)

// node is one level of filters, and where a single filter has that level and others
// behind it, all of them: most filters of a park differ in one level in their midst.
// What a published snapshot reaches is immutable; edit says which transaction made a
// node, and only that one may mutate it.
type node[V any] struct {
	edit  uint64
	text  string   // the level and, of a single filter, '/' and the rest of it
	kids  *kids[V] // nil without children, as where text is more than the level
	value V
	end   uint16 // of the level in text
	has   bool
}

func (n *node[V]) level() string { return n.text[:n.end] }

// tail returns what follows the level of a node that stands for a single filter.
func (n *node[V]) tail() (tail string, ok bool) {
	if int(n.end) == len(n.text) {
		return "", false
	}
	return n.text[n.end+1:], true
}

// kids are the children of a node: the two wildcards, and literal levels in a
// small sorted slice or, if there are more of them, in a hash trie. Most nodes
// have none, hence the struct of its own.
type kids[V any] struct {
	edit  uint64
	plus  *node[V]
	multi *node[V] // always has a value, never children
	count int      // of literal children
	few   []*node[V]
	many  *table[V]
}

const (
	maxFew = 8 // literal children in a slice
	minFew = 4 // and when a hash trie becomes a slice again

	tableBits  = 5
	tableDepth = 12 // 60 bits of hash; below are collisions, in a sorted slice
)

// table is a node of the hash trie. Of the values that five bits of the hash can
// have, nodes has those with one node, in the order of the bits set in leaves,
// and tables those with several, likewise. At tableDepth both sets are unused
// and nodes is sorted by level.
type table[V any] struct {
	edit     uint64
	leaves   uint32
	branches uint32
	nodes    []*node[V]
	tables   []*table[V]
}

// hasher is seeded per Trie, so that nobody can choose levels that collide.
type hasher struct {
	seed maphash.Seed
	mask uint64 // all ones, but in tests of collisions
}

func (h hasher) of(level string) uint64 { return maphash.String(h.seed, level) & h.mask }

func (n *node[V]) child(h hasher, level string) *node[V] {
	k := n.kids
	switch {
	case k == nil:
		return nil
	case level == "+":
		return k.plus
	case level == "#":
		return k.multi
	}
	return k.literal(h, level)
}

func (k *kids[V]) literal(h hasher, level string) *node[V] {
	if k.many == nil {
		for _, n := range k.few {
			if n.level() == level {
				return n
			}
		}
		return nil
	}
	return k.many.find(level, h.of(level))
}

// appendTo appends all children, in no order.
func (k *kids[V]) appendTo(dst []*node[V]) []*node[V] {
	if k.multi != nil {
		dst = append(dst, k.multi)
	}
	if k.plus != nil {
		dst = append(dst, k.plus)
	}
	if k.many != nil {
		return k.many.appendTo(dst)
	}
	return append(dst, k.few...)
}

func (t *table[V]) find(level string, hash uint64) *node[V] {
	for depth := range tableDepth {
		bit := slot(hash, depth)
		switch {
		case t.leaves&bit != 0:
			if n := t.nodes[below(t.leaves, bit)]; n.level() == level {
				return n
			}
			return nil
		case t.branches&bit == 0:
			return nil
		}
		t = t.tables[below(t.branches, bit)]
	}
	if i, ok := search(t.nodes, level); ok {
		return t.nodes[i]
	}
	return nil
}

func (t *table[V]) appendTo(dst []*node[V]) []*node[V] {
	dst = append(dst, t.nodes...)
	for _, sub := range t.tables {
		dst = sub.appendTo(dst)
	}
	return dst
}

// slot returns the bit that hash has at depth.
func slot(hash uint64, depth int) uint32 {
	return 1 << (hash >> (depth * tableBits) & (1<<tableBits - 1))
}

// below counts the bits of set that are lower than bit: its place in the slice.
func below(set, bit uint32) int { return bits.OnesCount32(set & (bit - 1)) }

func search[V any](nodes []*node[V], level string) (int, bool) {
	return slices.BinarySearchFunc(nodes, level, func(n *node[V], level string) int {
		return strings.Compare(n.level(), level)
	})
}

func byLevel[V any](a, b *node[V]) int { return strings.Compare(a.level(), b.level()) }
