package fsm

import (
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/session"
)

// collector deletes postings that every subscriber of their filter has
// acknowledged, and messages whose last posting went. Dead postings have no
// effect on anything that is read, so this is each node's own affair and not in
// the log: when it happens may differ between nodes.
//
// It remembers the messages of late. Most are acknowledged soon after they came,
// and then it reads nothing: a filter's postings, and all messages between two
// positions, go by one range delete each. Of what was stored before (while nobody
// acknowledged, or by an earlier process) only the store knows.
type collector struct {
	store *Store
	wake  chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
	once  sync.Once
	room  int // messages of late

	mu  sync.Mutex
	new news
	// missed are filters with postings that there was no room for in new.
	missed []*filter

	// Of run alone:
	adopted *state // whose leftovers were looked for
	recent  recent
}

// news are what a batch of entries did that the collector has to know.
type news struct {
	touched  []*filter // postings may have become dead
	posted   []fresh   // in the order of their positions
	unposted []unposted
}

// unposted is a posting that apply took back, which no cursor has passed.
type unposted struct {
	posting
	whole bool // the message went with it
}

// collectPause is between two rounds. What is dead harms nobody, and a round for
// many acknowledgements costs little more than one for a single one.
const collectPause = 200 * time.Millisecond

// recentRoom bounds the messages of late: what comes in one or two seconds, in 4
// MiB of memory.
const recentRoom = 1 << 16

// lookBatch bounds the subscriptions that are looked at between two entries.
const lookBatch = 4096

func newCollector(s *Store) *collector {
	return &collector{store: s, wake: make(chan struct{}, 1), quit: make(chan struct{}), room: recentRoom}
}

func startCollector(s *Store) *collector {
	c := newCollector(s)
	c.wg.Go(c.run)
	return c
}

func (c *collector) stop() {
	c.once.Do(func() { close(c.quit) })
	c.wg.Wait()
}

// note takes what a batch did. The caller holds the apply lock. It does not
// block, and keeps nothing of n.
func (c *collector) note(n news, st *state) {
	c.mu.Lock()
	for _, f := range n.touched {
		if !f.dirty {
			f.dirty = true
			c.new.touched = append(c.new.touched, f)
		}
	}
	c.new.unposted = append(c.new.unposted, n.unposted...)
	if c.missed == nil && len(c.new.posted)+len(n.posted) <= c.room {
		c.new.posted = append(c.new.posted, n.posted...)
	} else {
		c.miss(c.new.posted)
		c.miss(n.posted)
		c.new.posted = nil
	}
	c.mu.Unlock()
	if len(n.touched) == 0 && len(n.unposted) == 0 && st.stored.known.Load() {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// miss leaves messages to the store. The caller holds c.mu.
func (c *collector) miss(posted []fresh) {
	for i := range posted {
		posted[i].each(func(f *filter) {
			if f.missed == 0 {
				c.missed = append(c.missed, f)
			}
			f.missed = posted[i].pos
		})
	}
}

func (c *collector) run() {
	pause := time.NewTimer(collectPause)
	defer pause.Stop()
	for {
		if err := c.round(); err != nil {
			c.store.deps.Halt(err)
			return
		}
		select {
		case <-c.quit:
			return
		case <-c.wake:
		}
		pause.Reset(collectPause)
		select {
		case <-c.quit:
			return
		case <-pause.C:
		}
	}
}

// round does what there is to do.
func (c *collector) round() error {
	if err := c.adopt(); err != nil {
		return err
	}
	gen, dirty, loose := c.look()
	if gen == nil {
		return nil
	}
	defer gen.release()
	for _, f := range dirty {
		if c.stopping() {
			return nil
		}
		if err := c.collect(gen.db, f); err != nil {
			return err
		}
	}
	if err := c.sweep(gen.db); err != nil {
		return err
	}
	return c.collectLoose(gen.db, loose)
}

func (c *collector) stopping() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// acquire pins the store in force; at runs in it between two entries. It returns
// nil where there is none any more.
func (c *collector) acquire(at func(*state)) *generation {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	gen := s.db.Load()
	if s.closed || !gen.acquire() {
		return nil
	}
	at(s.state)
	return gen
}

// look finds how far the filters that were touched are dead, a bounded number of
// subscriptions at a time, and pins their store. What apply took back by then is
// known: no cursor had passed it. It returns messages that may have lost their
// last posting.
func (c *collector) look() (gen *generation, dirty []*filter, loose []session.Pos) {
	next := 0
	for first := true; first || next < len(dirty); first = false {
		same := false
		now := c.acquire(func(st *state) {
			if same = st == c.adopted; !same {
				return
			}
			loose = append(loose, c.take()...)
			if first {
				dirty = c.takeTouched()
			}
			for n := 0; next < len(dirty) && n < lookBatch; next++ {
				dirty[next].low = lowest(dirty[next], st)
				n += 1 + len(dirty[next].subs)
			}
		})
		if gen != nil {
			gen.release()
		}
		if gen = now; !same {
			if gen != nil {
				gen.release() // another state: round begins anew with it
			}
			return nil, nil, nil
		}
	}
	return gen, dirty, loose
}

func (c *collector) takeTouched() []*filter {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.new.touched
	c.new.touched = nil
	for _, f := range l {
		f.dirty = false
	}
	return l
}

// lowest is the position at or before which every posting of f is dead. What
// comes later is not judged, even where nobody waits for it now. The caller holds
// the apply lock.
func lowest(f *filter, st *state) session.Pos {
	low := session.At(st.applied+1, 0) - 1
	for s, n := range f.subs {
		if n.waits() {
			low = min(low, max(s.at(), n.since))
		}
	}
	return low
}
