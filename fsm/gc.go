package fsm

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/session"
)

// collector deletes postings that every subscriber of their filter has
// acknowledged, and messages whose last posting went. Dead postings have no
// effect on anything that is read, so this is each node's own affair and not in
// the log: when it happens may differ between nodes.
type collector struct {
	store *Store
	wake  chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
	once  sync.Once

	mu    sync.Mutex
	dirty map[*filter]struct{}
}

// collectBatch bounds the postings of one batch; from rangeAbove on they go by
// one range delete.
const (
	collectBatch = 4096
	rangeAbove   = 256
)

func startCollector(s *Store) *collector {
	c := &collector{store: s, wake: make(chan struct{}, 1), quit: make(chan struct{}), dirty: map[*filter]struct{}{}}
	c.wg.Go(c.run)
	return c
}

func (c *collector) stop() {
	c.once.Do(func() { close(c.quit) })
	c.wg.Wait()
}

// touch notes filters that may have dead postings. It does not block.
func (c *collector) touch(fs []*filter) {
	if len(fs) == 0 {
		return
	}
	c.mu.Lock()
	for _, f := range fs {
		c.dirty[f] = struct{}{}
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *collector) run() {
	if err := c.adopt(); err != nil {
		c.store.deps.Halt(err)
		return
	}
	for {
		select {
		case <-c.quit:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		dirty := c.dirty
		c.dirty = map[*filter]struct{}{}
		c.mu.Unlock()
		for f := range dirty {
			if err := c.collect(f); err != nil {
				c.store.deps.Halt(err)
				return
			}
			select {
			case <-c.quit:
				return
			default:
			}
		}
	}
}

// collect deletes the dead postings of f in bounded batches.
func (c *collector) collect(f *filter) error {
	s := c.store
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil
		}
		gen := s.db.Load()
		ok := gen.acquire()
		low := lowest(f)
		s.mu.Unlock()
		if !ok {
			return nil
		}
		n, err := c.collectSome(gen.db, f.id, low)
		gen.release()
		if err != nil || n < collectBatch {
			return err
		}
	}
}

// lowest is the position at or before which every posting of f is dead. The
// caller holds the apply lock.
func lowest(f *filter) session.Pos {
	low := session.Pos(math.MaxUint64 - 1)
	for s, n := range f.subs {
		if n.QoS > 0 {
			low = min(low, max(s.cursor, n.since))
		}
	}
	return low
}

func (c *collector) collectSome(db *pebble.DB, filter uint64, low session.Pos) (int, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: postingKey(filter, 0), UpperBound: postingKey(filter, low+1)})
	if err != nil {
		return 0, err
	}
	var dead []session.Pos
	for ok := it.First(); ok && len(dead) < collectBatch; ok = it.Next() {
		_, p, err := parsePosting(it.Key())
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		dead = append(dead, p)
	}
	if err := it.Close(); err != nil || len(dead) == 0 {
		return 0, err
	}
	b := db.NewBatch()
	// Many small range deletes would slow every read until they are compacted.
	ranged := len(dead) >= rangeAbove
	if ranged {
		err = b.DeleteRange(postingKey(filter, dead[0]), postingKey(filter, dead[len(dead)-1]+1), nil)
	}
	for _, p := range dead {
		if err == nil && !ranged {
			err = b.Delete(postingKey(filter, p), nil)
		}
		if err == nil {
			err = c.dropMessage(db, b, filter, p)
		}
	}
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	return len(dead), err
}

// dropMessage deletes the message at p unless another filter still has a
// posting of it.
func (c *collector) dropMessage(db *pebble.DB, b *pebble.Batch, filter uint64, p session.Pos) error {
	m, err := readMessage(db, p)
	if errors.Is(err, errNoMessage) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range m.Filters {
		if id == filter {
			continue
		}
		_, closer, err := db.Get(postingKey(id, p))
		if err == nil {
			return closer.Close()
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			return err
		}
	}
	return b.Delete(messageKey(p), nil)
}

// adopt collects for filters whose last subscription went shortly before the
// process ended.
func (c *collector) adopt() error {
	s := c.store
	s.mu.Lock()
	known := map[uint64]struct{}{}
	for _, o := range s.state.sessions {
		for _, n := range o.list() {
			known[n.filter.id] = struct{}{}
		}
	}
	next := s.state.lastFilter + 1
	gen := s.db.Load()
	ok := gen.acquire()
	s.mu.Unlock()
	if !ok {
		return nil
	}
	ids, err := orphans(gen.db, known)
	gen.release()
	for _, id := range ids {
		if err == nil && id < next {
			err = c.collect(&filter{id: id})
		}
	}
	return err
}

// orphans returns the ids of filters that have postings and no subscription any
// more: removed shortly before the process ended.
func orphans(db *pebble.DB, known map[uint64]struct{}) ([]uint64, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosting}, UpperBound: []byte{keyPosting + 1}})
	if err != nil {
		return nil, err
	}
	var out []uint64
	for ok := it.First(); ok; {
		id := binary.BigEndian.Uint64(it.Key()[1:])
		if _, live := known[id]; !live {
			out = append(out, id)
		}
		ok = it.SeekGE(postingKey(id+1, 0))
	}
	return out, it.Close()
}
