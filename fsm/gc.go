package fsm

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"

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
	loose []session.Pos

	adopted *state // whose leftovers were looked for; of run alone
}

// collectPause is between two rounds. What is dead harms nobody, and a round for
// many acknowledgements costs little more than one for a single one.
const collectPause = 200 * time.Millisecond

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

// touch notes filters that may have dead postings, and messages that may have
// lost their last one. It does not block.
func (c *collector) touch(fs []*filter, loose []session.Pos, st *state) {
	if len(fs) == 0 && len(loose) == 0 && st.stored.known.Load() {
		return
	}
	c.mu.Lock()
	for _, f := range fs {
		c.dirty[f] = struct{}{}
	}
	c.loose = append(c.loose, loose...)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
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
	c.mu.Lock()
	dirty, loose := c.dirty, c.loose
	c.dirty, c.loose = map[*filter]struct{}{}, nil
	c.mu.Unlock()
	for f := range dirty {
		if c.stopping() {
			return nil
		}
		if err := c.collect(f); err != nil {
			return err
		}
	}
	return c.collectLoose(loose)
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

// collect deletes the dead postings of f in bounded batches.
func (c *collector) collect(f *filter) error {
	for {
		var low session.Pos
		var count *stored
		gen := c.acquire(func(st *state) { low, count = lowest(f), st.stored })
		if gen == nil {
			return nil
		}
		n, err := collectSome(gen.db, f, low, count)
		gen.release()
		if err != nil || n < collectBatch || c.stopping() {
			return err
		}
	}
}

// collectLoose deletes messages whose last posting went out of turn.
func (c *collector) collectLoose(loose []session.Pos) error {
	if len(loose) == 0 {
		return nil
	}
	var count *stored
	gen := c.acquire(func(st *state) { count = st.stored })
	if gen == nil {
		return nil
	}
	defer gen.release()
	b := gen.db.NewBatch()
	var gone collected
	for _, p := range loose {
		if err := gone.message(gen.db, b, 0, p); err != nil {
			return err
		}
	}
	err := b.Commit(pebble.NoSync)
	gone.subtract(count)
	return err
}

// lowest is the position at or before which every posting of f is dead. The
// caller holds the apply lock.
func lowest(f *filter) session.Pos {
	low := session.Pos(math.MaxUint64 - 1)
	for s, n := range f.subs {
		if n.QoS > 0 {
			low = min(low, max(s.at(), n.since))
		}
	}
	return low
}

// collected counts what a batch deletes.
type collected struct {
	messages int64
	bytes    uint64
	seen     map[session.Pos]struct{} // of loose messages, which may be told twice
}

func (g *collected) subtract(count *stored) {
	count.messages.Add(-g.messages)
	count.bytes.Add(-int64(g.bytes))
}

// collectSome deletes postings of f up to low. A search that began at the first
// would walk over the tombstones of all that were deleted before, until Pebble
// drops those; so it begins behind them.
func collectSome(db *pebble.DB, f *filter, low session.Pos, count *stored) (int, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: postingKey(f.id, f.swept+1), UpperBound: postingKey(f.id, low+1)})
	if err != nil {
		return 0, err
	}
	var dead []session.Pos
	var alone []uint64
	for ok := it.First(); ok && len(dead) < collectBatch; ok = it.Next() {
		_, p, err := parsePosting(it.Key())
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		dead, alone = append(dead, p), append(alone, aloneIn(it.Value()))
	}
	if err := it.Close(); err != nil || len(dead) == 0 {
		return 0, err
	}
	b := db.NewBatch()
	// Many small range deletes would slow every read until they are compacted.
	ranged := len(dead) >= rangeAbove
	if ranged {
		err = b.DeleteRange(postingKey(f.id, dead[0]), postingKey(f.id, dead[len(dead)-1]+1), nil)
	}
	var gone collected
	for i, p := range dead {
		if err == nil && !ranged {
			err = b.SingleDelete(postingKey(f.id, p), nil)
		}
		switch {
		case err != nil:
		case alone[i] > 0:
			err = gone.drop(b, p, alone[i])
		default:
			err = gone.message(db, b, f.id, p)
		}
	}
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err == nil {
		gone.subtract(count)
		f.swept = dead[len(dead)-1]
	}
	return len(dead), err
}

// message deletes the message at p unless a filter but this one still has a
// posting of it.
func (g *collected) message(db *pebble.DB, b *pebble.Batch, filter uint64, p session.Pos) error {
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
	if _, twice := g.seen[p]; twice {
		return nil
	}
	if filter == 0 {
		if g.seen == nil {
			g.seen = map[session.Pos]struct{}{}
		}
		g.seen[p] = struct{}{}
	}
	return g.drop(b, p, recordSize(m))
}

func (g *collected) drop(b *pebble.Batch, p session.Pos, size uint64) error {
	g.messages++
	g.bytes += size
	return b.SingleDelete(messageKey(p), nil)
}

// adopt looks after what an earlier process, or the maker of a snapshot, left:
// it counts what is stored, collects for filters whose last subscription went
// shortly before the end, and has the others looked at.
func (c *collector) adopt() error {
	var fresh *state
	var snap *pebble.Snapshot
	var last uint64
	known := map[uint64]struct{}{}
	var live []*filter
	gen := c.acquire(func(st *state) {
		if st == c.adopted {
			return
		}
		fresh, last = st, st.lastFilter
		for _, o := range st.sessions {
			for _, n := range o.list() {
				if _, twice := known[n.filter.id]; !twice {
					live = append(live, n.filter)
				}
				known[n.filter.id] = struct{}{}
			}
		}
		// What is posted from now on counts by itself.
		snap = c.store.db.Load().db.NewSnapshot()
		st.stored.messages.Store(0)
		st.stored.bytes.Store(0)
	})
	if gen == nil {
		return nil
	}
	defer gen.release()
	if fresh == nil {
		return nil
	}
	messages, bytes, err := c.count(snap)
	if err = errors.Join(err, snap.Close()); err != nil || c.stopping() {
		return err
	}
	fresh.stored.messages.Add(messages)
	fresh.stored.bytes.Add(bytes)
	fresh.stored.known.Store(true)
	c.adopted = fresh
	c.mu.Lock()
	for _, f := range live {
		c.dirty[f] = struct{}{}
	}
	c.mu.Unlock()
	ids, err := orphans(gen.db, known)
	for _, id := range ids {
		if err == nil && id <= last {
			err = c.collect(&filter{id: id})
		}
	}
	return err
}

// count scans the messages of a snapshot.
func (c *collector) count(snap *pebble.Snapshot) (messages, bytes int64, err error) {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyMessage}, UpperBound: []byte{keyMessage + 1}})
	if err != nil {
		return 0, 0, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if messages%4096 == 0 && c.stopping() {
			break
		}
		o, err := outlineOf(it.Value())
		if err != nil {
			return 0, 0, errors.Join(err, it.Close())
		}
		messages++
		bytes += int64(o.size)
	}
	return messages, bytes, it.Close()
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
