package broker

import (
	"slices"

	"github.com/mqcluster/mqcluster/session"
)

// ledger holds the positions that are on their way, in order. Settled ones stay
// until all before them are, so that they are not taken for new.
type ledger struct {
	items []owedAt
	head  int
}

type owedAt struct {
	pos  session.Pos
	done bool
}

func (l *ledger) search(pos session.Pos) (int, bool) {
	// What is settled is nearly always the first, what is added the last.
	if l.head < len(l.items) {
		if l.items[l.head].pos == pos {
			return l.head, true
		}
		if l.items[len(l.items)-1].pos < pos {
			return len(l.items), false
		}
	}
	i, ok := slices.BinarySearchFunc(l.items[l.head:], pos, func(o owedAt, p session.Pos) int {
		switch {
		case o.pos < p:
			return -1
		case o.pos > p:
			return 1
		}
		return 0
	})
	return i + l.head, ok
}

func (l *ledger) has(pos session.Pos) bool {
	_, ok := l.search(pos)
	return ok
}

func (l *ledger) add(pos session.Pos) {
	if i, ok := l.search(pos); !ok {
		l.items = slices.Insert(l.items, i, owedAt{pos: pos})
	}
}

func (l *ledger) done(pos session.Pos) {
	i, ok := l.search(pos)
	if !ok {
		return
	}
	l.items[i].done = true
	for l.head < len(l.items) && l.items[l.head].done {
		l.head++
	}
	switch {
	case l.head == len(l.items):
		if cap(l.items) > keepCap {
			l.items = nil
		}
		l.items, l.head = l.items[:0], 0
	case l.head >= 1024 && l.head*2 >= len(l.items):
		l.items = slices.Delete(l.items, 0, l.head)
		l.head = 0
	}
}

// first returns the first position that is not settled.
func (l *ledger) first() (session.Pos, bool) {
	if l.head == len(l.items) {
		return 0, false
	}
	return l.items[l.head].pos, true
}
