package routing

import (
	"slices"
	"strings"
)

// The edits of a transaction: whatever it does not own it copies first. A node
// that it owns hangs on a path that it owns.

func (tx *Tx[V]) own(n *node[V]) *node[V] {
	if n.edit == tx.edit {
		return n
	}
	c := *n
	c.edit = tx.edit
	return &c
}

// ownKids returns the children of n, which tx owns, as its own.
func (tx *Tx[V]) ownKids(n *node[V]) *kids[V] {
	switch {
	case n.kids == nil:
		n.kids = &kids[V]{edit: tx.edit}
	case n.kids.edit != tx.edit:
		c := *n.kids
		c.edit = tx.edit
		c.few = slices.Clone(c.few)
		n.kids = &c
	}
	return n.kids
}

func (tx *Tx[V]) ownTable(t *table[V]) *table[V] {
	if t.edit == tx.edit {
		return t
	}
	c := *t
	c.edit = tx.edit
	c.nodes = slices.Clone(t.nodes)
	c.tables = slices.Clone(t.tables)
	return &c
}

// split makes n, which tx owns and which stands for a single filter, one level, with
// the rest of the filter below it.
func (tx *Tx[V]) split(n *node[V]) {
	tail, _ := n.tail()
	level, _, _ := cutLevel(tail)
	c := &node[V]{edit: tx.edit, text: tail, end: uint16(len(level)), has: true, value: n.value}
	var none V
	n.has, n.value = false, none
	if len(n.text) > keptFilter {
		n.text = strings.Clone(n.level()) // it may outlive the filter
	} else {
		n.text = n.level()
	}
	tx.attach(n, c)
}

// attach makes c a child of n, which tx owns, in place of an older one of the
// same level.
func (tx *Tx[V]) attach(n, c *node[V]) {
	k := tx.ownKids(n)
	switch c.level() {
	case "+":
		k.plus = c
		return
	case "#":
		k.multi = c
		return
	}
	if k.many != nil {
		var added bool
		k.many, added = tx.put(k.many, c, tx.snap.hash.of(c.level()), 0)
		if added {
			k.count++
		}
		return
	}
	i, found := search(k.few, c.level())
	if found {
		k.few[i] = c
		return
	}
	k.count++
	if k.count <= maxFew {
		k.few = slices.Insert(k.few, i, c)
		return
	}
	k.many = &table[V]{edit: tx.edit}
	for _, old := range append(k.few, c) {
		k.many, _ = tx.put(k.many, old, tx.snap.hash.of(old.level()), 0)
	}
	k.few = nil
}

// detach takes the child of that level, which there is, from n, which tx owns.
func (tx *Tx[V]) detach(n *node[V], level string) {
	k := tx.ownKids(n)
	switch {
	case level == "+":
		k.plus = nil
	case level == "#":
		k.multi = nil
	case k.many != nil:
		k.many = tx.cut(k.many, level, tx.snap.hash.of(level), 0)
		if k.count--; k.count <= minFew {
			k.few = k.many.appendTo(nil)
			slices.SortFunc(k.few, byLevel)
			k.many = nil
		}
	default:
		i, _ := search(k.few, level)
		k.few = slices.Delete(k.few, i, i+1)
		k.count--
	}
	if k.count == 0 && k.plus == nil && k.multi == nil {
		n.kids = nil
	}
}

// put returns t with n in it, in place of an older node of the same level.
func (tx *Tx[V]) put(t *table[V], n *node[V], hash uint64, depth int) (_ *table[V], added bool) {
	t = tx.ownTable(t)
	if depth == tableDepth {
		i, found := search(t.nodes, n.level())
		if found {
			t.nodes[i] = n
		} else {
			t.nodes = slices.Insert(t.nodes, i, n)
		}
		return t, !found
	}
	bit := slot(hash, depth)
	i, j := below(t.leaves, bit), below(t.branches, bit)
	switch {
	case t.branches&bit != 0:
		t.tables[j], added = tx.put(t.tables[j], n, hash, depth+1)
		return t, added
	case t.leaves&bit == 0:
		t.leaves |= bit
		t.nodes = slices.Insert(t.nodes, i, n)
		return t, true
	case t.nodes[i].level() == n.level():
		t.nodes[i] = n
		return t, false
	}
	// Two of them now: they go one deeper.
	old := t.nodes[i]
	sub := &table[V]{edit: tx.edit}
	sub, _ = tx.put(sub, old, tx.snap.hash.of(old.level()), depth+1)
	sub, _ = tx.put(sub, n, hash, depth+1)
	t.leaves &^= bit
	t.nodes = slices.Delete(t.nodes, i, i+1)
	t.branches |= bit
	t.tables = slices.Insert(t.tables, j, sub)
	return t, true
}

// cut returns t without the node of that level, which is in it. A table that is
// left with one node goes away and its node one up.
func (tx *Tx[V]) cut(t *table[V], level string, hash uint64, depth int) *table[V] {
	t = tx.ownTable(t)
	if depth == tableDepth {
		i, _ := search(t.nodes, level)
		t.nodes = slices.Delete(t.nodes, i, i+1)
		return t
	}
	bit := slot(hash, depth)
	i, j := below(t.leaves, bit), below(t.branches, bit)
	if t.leaves&bit != 0 {
		t.leaves &^= bit
		t.nodes = slices.Delete(t.nodes, i, i+1)
		return t
	}
	sub := tx.cut(t.tables[j], level, hash, depth+1)
	if len(sub.nodes) != 1 || len(sub.tables) != 0 {
		t.tables[j] = sub
		return t
	}
	t.branches &^= bit
	t.tables = slices.Delete(t.tables, j, j+1)
	t.leaves |= bit
	t.nodes = slices.Insert(t.nodes, i, sub.nodes[0])
	return t
}
