package consensus

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
)

// LogStore holds the log and the vote. What a write of it returned for survives a
// loss of power.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// Storage is what a node keeps of raft. Simulations bring one that loses what was
// not synced.
type Storage struct {
	Log       LogStore
	Snapshots raft.SnapshotStore
}

// openBolt opens raft.db, which it reads through before. Every write of it is
// synced before it returns.
func openBolt(dir string) (*sealedStore, error) {
	path := filepath.Join(dir, "raft.db")
	if err := examine(path); err != nil {
		return nil, err
	}
	db, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			// Another process on the same directory is an error, not a wait.
			Timeout: time.Second,
			// After a truncation tens of thousands of pages are free; writing their
			// list with every entry would cost more than the entry. It is rebuilt by
			// a scan when the file is opened.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &sealedStore{db}, nil
}

// guardedStore is the log and stable store as raft sees it. A write that fails
// or exceeds its deadline ends the process: what reached the disk is unknown,
// and raft (issue #503) would stay a leader that commits nothing. Where Fatal
// returns, as it does in tests, every later write fails.
//
// Where the disk has no more than its reserve, entries are refused before
// anything of them is written. Raft bears that: a follower lags, a leader steps
// down.
type guardedStore struct {
	LogStore
	deadline time.Duration
	fatal    func(error)
	latency  prometheus.Observer
	storing  func() (stored func()) // runs before entries are stored
	room     func() Room
	broken   atomic.Pointer[error]
	began    atomic.Int64 // when the write under way began, in ns since start; 0: none
	start    time.Time
	// cut: entries were deleted to make place for others. Those are stored
	// whatever room there is, because raft 1.7.3 does not notice that the deleted
	// ones are gone until it has stored something, and would refuse every append
	// from then on.
	cut   atomic.Bool
	onCut func() // for tests: entries were deleted, their successors not stored yet
}

const (
	// deletePiece is how many entries of the log's beginning are deleted at once: some
	// ms of a core. deleteRest is how long the store rests after that at most; it does as
	// long as the piece took.
	deletePiece = 2048
	deleteRest  = 50 * time.Millisecond
)

// errNoRoom is not fatal: nothing was written.
var errNoRoom = errors.New("the disk has no more than its reserve left: make room")

// GetLog implements raft.LogStore. A damaged entry ends the process: raft would
// ask for it again and again.
func (s *guardedStore) GetLog(index uint64, l *raft.Log) error {
	err := s.LogStore.GetLog(index, l)
	if errors.Is(err, ErrDamaged) {
		return s.fail(fmt.Errorf("read the log: %w", err))
	}
	return err
}

func (s *guardedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *guardedStore) StoreLogs(logs []*raft.Log) error {
	defer s.storing()()
	cut := s.cut.Swap(false)
	return s.write("append to the log", func() error {
		if !cut && s.room() == RoomNone {
			return errNoRoom
		}
		return s.LogStore.StoreLogs(logs)
	})
}

// IsMonotonic implements raft.MonotonicLogStore.
func (s *guardedStore) IsMonotonic() bool {
	m, ok := s.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// DeleteRange implements raft.LogStore. Raft deletes the beginning of the log
// behind a snapshot, and its end to put other entries there.
func (s *guardedStore) DeleteRange(first, last uint64) error {
	end, err := s.LastIndex()
	switch {
	case err != nil:
		return s.fail(fmt.Errorf("truncate the log: %w", err))
	case last < end:
		return s.deleteBeginning(first, last)
	}
	return s.write("truncate the log", func() error {
		if s.room() == RoomNone {
			return errNoRoom
		}
		s.cut.Store(true)
		if s.onCut != nil {
			defer s.onCut()
		}
		return s.LogStore.DeleteRange(first, last)
	})
}

// deleteBeginning deletes in pieces, each durable before the next: what a busy node
// wrote in some minutes would take a core for half a second at once, and the file for as
// long. Entries are stored meanwhile, so that this is not the write that stalled looks
// at.
func (s *guardedStore) deleteBeginning(first, last uint64) error {
	for {
		if err := s.broken.Load(); err != nil {
			return *err
		}
		began := time.Now()
		to := min(last, first+deletePiece-1)
		if err := s.watch("delete the log behind a snapshot", func() error { return s.LogStore.DeleteRange(first, to) }); err != nil || to == last {
			return err
		}
		first = to + 1
		// The journal is drained into the same file, and messages want the same cores:
		// half of the time is theirs, where a piece takes no longer than deleteRest. Only
		// a node that stops waits for the end of this.
		time.Sleep(min(time.Since(began), deleteRest))
	}
}

func (s *guardedStore) Set(k, v []byte) error {
	return s.write("store the vote", func() error { return s.LogStore.Set(k, v) })
}

func (s *guardedStore) SetUint64(k []byte, v uint64) error {
	return s.write("store the term", func() error { return s.LogStore.SetUint64(k, v) })
}

func (s *guardedStore) write(what string, f func() error) error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	start := time.Now()
	s.began.Store(int64(start.Sub(s.start)) + 1)
	err := s.watch(what, f)
	s.began.Store(0)
	s.latency.Observe(time.Since(start).Seconds())
	return err
}

// watch runs a write, bounds it by the deadline and ends the process where it fails.
func (s *guardedStore) watch(what string, f func() error) error {
	var done atomic.Bool
	late := func() {
		if !done.Load() {
			_ = s.fail(fmt.Errorf("%s: the disk did not answer within %v: look for a failing disk, then start the node again", what, s.deadline))
		}
	}
	// A second, shorter wait lets a process go on that was stopped meanwhile.
	timer := time.AfterFunc(s.deadline, func() { time.AfterFunc(s.deadline/20, late) })
	err := f()
	done.Store(true)
	timer.Stop()
	switch {
	case errors.Is(err, errNoRoom):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return s.fail(fmt.Errorf("%s: the disk is full: make room, then start the node again (%w)", what, err))
	case err != nil:
		return s.fail(fmt.Errorf("%s: %w", what, err))
	}
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// stalled tells whether a write has been under way for a good part of its
// deadline.
func (s *guardedStore) stalled() bool {
	began := s.began.Load()
	return began != 0 && time.Since(s.start)-time.Duration(began) > s.deadline/stallPart
}

// stallPart of its deadline is how long a write of the leader may take before its
// followers are left to elect another.
const stallPart = 4

// fail keeps the first error, tells it to Fatal and returns it.
func (s *guardedStore) fail(err error) error {
	if s.broken.CompareAndSwap(nil, &err) {
		s.fatal(err)
	}
	return *s.broken.Load()
}
