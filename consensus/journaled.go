package consensus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// keyJournal is the name in raft.db under which the id of its journal is kept.
var keyJournal = []byte("Journal")

const (
	// drainBytes of entries, or drainAfter, are gathered before they go from the
	// journal to raft.db.
	drainBytes = 2 << 20
	drainAfter = time.Second
)

// journaledStore is raft.db with a journal in front of it. What StoreLogs returned
// for is in the journal: one write, where a transaction of bbolt is two, each with
// what the tree needs besides. Some megabytes of entries then go to raft.db at once.
// Only its end is behind the journal, never by more than fits there.
//
// What the journal holds in the order of its records is, entry by entry, in raft.db
// already, or follows what is there. Entries are deleted from the end of the log
// behind a reset, so that this stays so.
type journaledStore struct {
	*sealedStore
	j *journal
	// watch runs a write of raft.db that nobody waits for.
	watch func(what string, f func() error) error

	write sync.Mutex // guards j and end; before drainMu
	end   uint64     // index of the last entry, 0: none

	drainMu sync.Mutex // one goes from the journal to raft.db at a time; before mu
	mu      sync.Mutex
	pending []*raft.Log // in the journal and not in raft.db
	bytes   int
	broken  error // a write failed: what is on disk is unknown

	some, full chan struct{}
	quit       chan struct{}
	wg         sync.WaitGroup
}

// openLog opens the log in dir and brings raft.db up to its journal. size is that
// of each file of a journal that is not there yet.
func openLog(dir string, size int64) (_ *journaledStore, err error) {
	path := filepath.Join(dir, "raft.db")
	if err := lostLog(dir, path); err != nil {
		return nil, err
	}
	db, err := openBolt(dir)
	if err != nil {
		return nil, err
	}
	s := newJournaled(db)
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
			if s.j != nil {
				err = errors.Join(err, s.j.close())
			}
		}
	}()
	id, err := s.ensureJournal(dir, size)
	if err != nil {
		return nil, err
	}
	gen, err := s.replay(dir, id)
	if err != nil {
		return nil, err
	}
	if s.j, err = openJournal(dir, id); err != nil {
		return nil, err
	}
	if err := s.drainAll(); err != nil {
		return nil, err
	}
	s.j.gen = gen
	if err := s.j.reset(); err != nil {
		return nil, err
	}
	return s, nil
}

// run has entries brought to raft.db in the background, until Close. watch runs the
// writes, of which nobody else gets the error.
func (s *journaledStore) run(watch func(what string, f func() error) error, latency prometheus.Observer) {
	s.watch = func(what string, f func() error) error {
		start := time.Now()
		defer func() { latency.Observe(time.Since(start).Seconds()) }()
		return watch(what, f)
	}
	s.wg.Go(s.drainer)
}

// readLog opens the log in dir and leaves it as it is.
func readLog(dir string) (*journaledStore, error) {
	db, err := openReadOnly(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, err
	}
	s := newJournaled(db)
	id, err := number(db, keyJournal)
	if err == nil && id != 0 {
		_, err = s.replay(dir, id)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func newJournaled(db *sealedStore) *journaledStore {
	return &journaledStore{
		sealedStore: db, watch: func(_ string, f func() error) error { return f() },
		some: make(chan struct{}, 1), full: make(chan struct{}, 1), quit: make(chan struct{}),
	}
}

// lostLog tells of a raft.db that is gone, while its journal is there: the node
// would start as a voter that has forgotten its vote.
func lostLog(dir, path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	used, err := hasJournal(dir)
	if err == nil && used {
		err = fmt.Errorf("%w (%s is gone, and its journal is there)", ErrDamaged, path)
	}
	return err
}

// ensureJournal returns the id of the journal, and makes one where there is none.
func (s *journaledStore) ensureJournal(dir string, size int64) (uint64, error) {
	id, err := number(s.sealedStore, keyJournal)
	if err != nil || id != 0 {
		return id, err
	}
	if err := makeJournal(dir, size); err != nil {
		return 0, err
	}
	// It counts from when raft.db names it.
	id = rand.Uint64() | 1
	if err := s.sealedStore.SetUint64(keyJournal, id); err != nil {
		return 0, fmt.Errorf("note the journal: %w", err)
	}
	return id, nil
}

// replay makes pending what the journal has and raft.db has not.
func (s *journaledStore) replay(dir string, id uint64) (gen uint64, err error) {
	if s.end, err = s.sealedStore.LastIndex(); err != nil {
		return 0, fmt.Errorf("read the log: %w", err)
	}
	logs, gen, err := readJournal(dir, id)
	if err != nil {
		return 0, err
	}
	for _, l := range logs {
		switch {
		case l.Index <= s.end:
		case s.end != 0 && l.Index != s.end+1:
			return 0, fmt.Errorf("%w (between entry %d and entry %d of the journal some are missing)", ErrDamaged, s.end, l.Index)
		default:
			s.add([]*raft.Log{l})
			s.end = l.Index
		}
	}
	return gen, nil
}

// IsMonotonic implements raft.MonotonicLogStore: raft leaves no gap behind the
// entries of before a snapshot that it got from another.
func (s *journaledStore) IsMonotonic() bool { return true }

// StoreLog implements raft.LogStore.
func (s *journaledStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. The entries are on disk when it returns nil.
func (s *journaledStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.follows(logs); err != nil {
		return err
	}
	if recordSize(logs) > s.j.size/2 {
		// More than the journal is for.
		if err := s.drainAll(); err != nil {
			return err
		}
		if err := s.sealedStore.StoreLogs(logs); err != nil {
			return s.fail(err)
		}
		s.end = logs[len(logs)-1].Index
		return nil
	}
	if !s.j.fits(logs) {
		if err := s.turn(); err != nil {
			return err
		}
	}
	if err := s.j.append(logs); err != nil {
		return s.fail(err)
	}
	s.end = logs[len(logs)-1].Index
	s.add(logs)
	return nil
}

// follows checks that entries continue the log.
func (s *journaledStore) follows(logs []*raft.Log) error {
	if err := s.failed(); err != nil {
		return err
	}
	end := s.end
	for _, l := range logs {
		if end != 0 && l.Index != end+1 {
			return fmt.Errorf("store entry %d behind entry %d", l.Index, end)
		}
		end = l.Index
	}
	return nil
}

// turn goes on with the other file when raft.db has what is in it.
func (s *journaledStore) turn() error {
	for s.oldest() <= s.j.last[1-s.j.active] {
		if err := s.drain(); err != nil {
			return err
		}
	}
	s.j.turn()
	return nil
}

// none is no entry, behind all others.
const none = ^uint64(0)

// oldest is the first entry that is not in raft.db.
func (s *journaledStore) oldest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return none
	}
	return s.pending[0].Index
}

func (s *journaledStore) add(logs []*raft.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, logs...)
	for _, l := range logs {
		s.bytes += journalEntry + len(l.Data)
	}
	signal(s.some)
	if s.bytes >= drainBytes {
		signal(s.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drainer brings entries to raft.db, many at a time.
func (s *journaledStore) drainer() {
	timer := time.NewTimer(drainAfter)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.some:
		}
		timer.Reset(drainAfter)
		select {
		case <-s.quit:
			return
		case <-timer.C:
		case <-s.full:
		}
		if s.drain() != nil {
			return // watch told it
		}
	}
}

// drain brings to raft.db what is pending when it begins.
func (s *journaledStore) drain() error {
	s.drainMu.Lock()
	defer s.drainMu.Unlock()
	s.mu.Lock()
	batch, err := s.pending, s.broken
	s.mu.Unlock()
	if err != nil || len(batch) == 0 {
		return err
	}
	if err := s.watch("write the log", func() error { return s.sealedStore.StoreLogs(batch) }); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A new array, so that the old one can go.
	s.pending = append([]*raft.Log(nil), s.pending[len(batch):]...)
	for _, l := range batch {
		s.bytes -= journalEntry + len(l.Data)
	}
	return nil
}

// drainAll returns when nothing is pending; the caller keeps others from adding.
func (s *journaledStore) drainAll() error {
	for s.oldest() != none {
		if err := s.drain(); err != nil {
			return err
		}
	}
	return s.failed()
}

func (s *journaledStore) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
	}
	return s.broken
}

func (s *journaledStore) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// DeleteRange implements raft.LogStore. Raft deletes the beginning of the log,
// which does not hold up who stores entries, or its end.
func (s *journaledStore) DeleteRange(first, last uint64) error {
	if last < s.oldest() {
		if end, err := s.sealedStore.LastIndex(); err != nil || last < end {
			return errors.Join(err, s.sealedStore.DeleteRange(first, last))
		}
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.drainAll(); err != nil {
		return err
	}
	if last >= s.end {
		if err := s.j.reset(); err != nil {
			return s.fail(err)
		}
	}
	if err := s.sealedStore.DeleteRange(first, last); err != nil {
		return s.fail(err)
	}
	end, err := s.sealedStore.LastIndex()
	s.end = end
	return err
}

// FirstIndex implements raft.LogStore.
func (s *journaledStore) FirstIndex() (uint64, error) {
	pending := s.oldest()
	first, err := s.sealedStore.FirstIndex()
	if err == nil && first == 0 && pending != none {
		first = pending
	}
	return first, err
}

// LastIndex implements raft.LogStore.
func (s *journaledStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	if n := len(s.pending); n > 0 {
		defer s.mu.Unlock()
		return s.pending[n-1].Index, nil
	}
	s.mu.Unlock()
	return s.sealedStore.LastIndex()
}

// GetLog implements raft.LogStore.
func (s *journaledStore) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	if len(s.pending) > 0 && index >= s.pending[0].Index && index-s.pending[0].Index < uint64(len(s.pending)) {
		*l = *s.pending[index-s.pending[0].Index]
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return s.sealedStore.GetLog(index, l)
}

// Close brings everything to raft.db and closes it.
func (s *journaledStore) Close() error {
	if s.j == nil {
		return s.sealedStore.Close()
	}
	close(s.quit)
	s.wg.Wait()
	s.write.Lock()
	defer s.write.Unlock()
	return errors.Join(s.drainAll(), s.j.close(), s.sealedStore.Close())
}
