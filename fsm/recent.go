package fsm

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/session"
)

// fresh is a message of late.
type fresh struct {
	pos    session.Pos
	size   uint64
	filter *filter   // the first that has a posting of it; nil: none has
	more   []*filter // the others
	gone   bool      // the message is deleted
}

func newFresh(p session.Pos, size uint64, owed []*filter) fresh {
	m := fresh{pos: p, size: size, filter: owed[0]}
	if len(owed) > 1 {
		m.more = slices.Clone(owed[1:])
	}
	return m
}

func (m *fresh) each(f func(*filter)) {
	if m.filter != nil {
		f(m.filter)
	}
	for _, o := range m.more {
		f(o)
	}
}

// lose takes filters from m.
func (m *fresh) lose(dead func(*filter) bool) {
	if m.more != nil {
		m.more = slices.DeleteFunc(m.more, dead)
	}
	for m.filter != nil && dead(m.filter) {
		m.filter = nil
		if len(m.more) > 0 {
			// It was asked about, and stays.
			m.filter, m.more = m.more[0], m.more[1:]
			return
		}
	}
}

// recent are the messages of late in the order of their positions. It has all
// that were stored since the first of them, the deleted ones too: between two of
// its neighbours there is no other message in the store.
type recent []fresh

// take brings the messages of late up to the last entry, and returns those that
// may have lost their last posting and are not among them. The caller holds the
// apply lock.
func (c *collector) take() (loose []session.Pos) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.missed != nil {
		loose = c.evict(len(c.recent))
		for _, f := range c.missed {
			f.spilled, f.missed = max(f.spilled, f.missed), 0
		}
		c.missed = nil
	}
	c.recent = append(c.recent, c.new.posted...)
	clear(c.new.posted)
	c.new.posted = c.new.posted[:0]
	for _, u := range c.new.unposted {
		i, found := slices.BinarySearchFunc(c.recent, u.pos, func(m fresh, p session.Pos) int { return cmp.Compare(m.pos, p) })
		if found {
			m := &c.recent[i]
			m.lose(func(f *filter) bool { return f.id == u.filter })
			m.gone = m.gone || u.whole
		} else if !u.whole {
			loose = append(loose, u.pos)
		}
	}
	c.new.unposted = nil
	return append(loose, c.evict(max(len(c.recent)-c.room, 0))...)
}

// evict leaves the n oldest messages of late to the store.
func (c *collector) evict(n int) (loose []session.Pos) {
	for i := range c.recent[:n] {
		m := &c.recent[i]
		if m.filter == nil && !m.gone {
			loose = append(loose, m.pos)
		}
		m.each(func(f *filter) { f.spilled = m.pos })
	}
	c.recent = slices.Delete(c.recent, 0, n)
	return loose
}

// forget begins anew, with a state whose messages only the store knows. The
// caller holds the apply lock.
func (c *collector) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.new.touched {
		f.dirty = false
	}
	for _, f := range c.missed {
		f.missed = 0
	}
	c.new, c.missed, c.recent = news{}, nil, nil
}

// sweepBatch bounds the messages of one batch; from sweepRange neighbours on they
// go by one range delete.
const (
	sweepBatch = 8192
	sweepRange = 32
)

// sweep deletes what is dead among the messages of late.
func (c *collector) sweep(db *pebble.DB) error {
	for l := c.recent; len(l) > 0; {
		n := min(len(l), sweepBatch)
		if err := c.sweepSome(db, l[:n]); err != nil {
			return err
		}
		l = l[n:]
	}
	n := slices.IndexFunc(c.recent, func(m fresh) bool { return !m.gone })
	if n < 0 {
		n = len(c.recent)
	}
	c.recent = slices.Delete(c.recent, 0, n)
	return nil
}

func (c *collector) sweepSome(db *pebble.DB, l recent) error {
	dead := l.losePassed()
	var gone collected
	b := db.NewBatch()
	err := deletePostings(b, dead)
	for i := 0; i < len(l) && err == nil; {
		n := 0
		for i+n < len(l) && l[i+n].filter == nil {
			n++
		}
		if n > 0 {
			err = gone.run(b, l[i:i+n])
		}
		i += n + 1
	}
	if err == nil && !b.Empty() {
		err = b.Commit(pebble.NoSync)
	}
	if err == nil {
		gone.subtract(c.adopted.stored)
	}
	return errors.Join(err, b.Close())
}

// losePassed returns the postings that are dead, of each filter together and in
// order.
func (l recent) losePassed() (dead []posting) {
	for i := range l {
		m := &l[i]
		m.lose(func(f *filter) bool {
			passed := m.pos <= f.low
			if passed {
				dead = append(dead, posting{f.id, m.pos})
			}
			return passed
		})
	}
	slices.SortFunc(dead, func(a, b posting) int {
		return cmp.Or(cmp.Compare(a.filter, b.filter), cmp.Compare(a.pos, b.pos))
	})
	return dead
}

// deletePostings deletes postings, those of each filter together and in order:
// all of the filter between the first and the last are dead.
func deletePostings(b *pebble.Batch, dead []posting) error {
	for len(dead) > 0 {
		n := 1
		for n < len(dead) && dead[n].filter == dead[0].filter {
			n++
		}
		of := dead[:n]
		dead = dead[n:]
		if n >= sweepRange {
			if err := b.DeleteRange(postingKey(of[0].filter, of[0].pos), postingKey(of[0].filter, of[n-1].pos+1), nil); err != nil {
				return err
			}
			continue
		}
		for _, p := range of {
			if err := b.SingleDelete(postingKey(p.filter, p.pos), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// run deletes neighbouring messages, none of which has a posting.
func (g *collected) run(b *pebble.Batch, l recent) error {
	here := 0
	for i := range l {
		if !l[i].gone {
			here++
		}
	}
	if here >= sweepRange {
		if err := b.DeleteRange(messageKey(l[0].pos), messageKey(l[len(l)-1].pos+1), nil); err != nil {
			return err
		}
	}
	for i := range l {
		m := &l[i]
		if m.gone {
			continue
		}
		m.gone = true
		g.messages++
		g.bytes += m.size
		if here < sweepRange {
			if err := b.SingleDelete(messageKey(m.pos), nil); err != nil {
				return err
			}
		}
	}
	return nil
}
