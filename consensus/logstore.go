package consensus

import (
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
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

// openBolt opens raft.db. Every write of it is synced before it returns.
func openBolt(dir string) (*raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, "raft.db")
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
	return db, nil
}

// guardedStore is the log and stable store as raft sees it. A write that fails
// or exceeds its deadline ends the process: what reached the disk is unknown,
// and raft (issue #503) would stay a leader that commits nothing. Where Fatal
// returns, as it does in tests, every later write fails.
type guardedStore struct {
	LogStore
	deadline time.Duration
	fatal    func(error)
	latency  prometheus.Observer
	storing  func() (stored func()) // runs before entries are stored
	broken   atomic.Pointer[error]
}

func (s *guardedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *guardedStore) StoreLogs(logs []*raft.Log) error {
	defer s.storing()()
	return s.write("append to the log", func() error { return s.LogStore.StoreLogs(logs) })
}

func (s *guardedStore) DeleteRange(first, last uint64) error {
	return s.write("truncate the log", func() error { return s.LogStore.DeleteRange(first, last) })
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
	timer := time.AfterFunc(s.deadline, func() {
		s.fail(fmt.Errorf("%s: the disk did not answer within %v: look for a failing disk, then start the node again", what, s.deadline))
	})
	err := f()
	timer.Stop()
	s.latency.Observe(time.Since(start).Seconds())
	if err != nil {
		return s.fail(fmt.Errorf("%s: %w", what, err))
	}
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// fail keeps the first error, tells it to Fatal and returns it.
func (s *guardedStore) fail(err error) error {
	if s.broken.CompareAndSwap(nil, &err) {
		s.fatal(err)
	}
	return *s.broken.Load()
}
