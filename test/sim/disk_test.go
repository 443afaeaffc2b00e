package sim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// disk is what a node keeps: raft's log and snapshots, and the files of the
// state. A crash leaves of it what was synced.
type disk struct {
	fs    *vfs.MemFS
	links sync.Mutex // see linksAlone
	log   *memLog
	snaps *memSnapshots
}

func newDisk() *disk {
	return &disk{fs: vfs.NewCrashableMem(), log: newMemLog(), snaps: &memSnapshots{}}
}

// errCrashed is what a disk says to a node that is dead.
var errCrashed = errors.New("the node has crashed")

// crash returns the disk as it is found after a crash at this moment, and lets
// nothing more reach raft's part of the old one. unsynced is how many percent of
// what was not synced are there all the same.
//
// Raft's part is frozen first: the state may go on to apply entries for a moment,
// but only such as the frozen log holds.
func (d *disk) crash(unsynced int, rng *rand.Rand) *disk {
	log := d.log.freeze()
	snaps := d.snaps.freeze()
	d.links.Lock()
	defer d.links.Unlock()
	return &disk{fs: d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng}), log: log, snaps: snaps}
}

// linksAlone is a disk's file system whose Link and crash clones exclude each other:
// Pebble's takes a read lock twice in Link, and waits for ever for a clone that waits
// between the two.
type linksAlone struct {
	*vfs.MemFS
	mu *sync.Mutex
}

// Link implements vfs.FS.
func (l linksAlone) Link(oldname, newname string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.MemFS.Link(oldname, newname)
}

// memLog is raft's log and stable store. Every write is durable when it returns,
// as those of raft-boltdb are.
type memLog struct {
	sync func() // takes as long as the disk does

	mu          sync.Mutex
	logs        map[uint64]raft.Log
	first, last uint64
	kv          map[string][]byte
	numbers     map[string]uint64
	frozen      bool
}

func newMemLog() *memLog {
	return &memLog{logs: map[uint64]raft.Log{}, kv: map[string][]byte{}, numbers: map[string]uint64{}}
}

func (m *memLog) freeze() *memLog {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
	return &memLog{
		logs: maps.Clone(m.logs), first: m.first, last: m.last,
		kv: maps.Clone(m.kv), numbers: maps.Clone(m.numbers),
	}
}

// write runs f, after a while, unless the disk is frozen by then.
func (m *memLog) write(f func()) error {
	if m.sync != nil {
		m.sync()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.frozen {
		return errCrashed
	}
	f()
	return nil
}

func (m *memLog) FirstIndex() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first, nil
}

func (m *memLog) LastIndex() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, nil
}

func (m *memLog) GetLog(index uint64, l *raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.logs[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*l = found
	return nil
}

func (m *memLog) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

func (m *memLog) StoreLogs(logs []*raft.Log) error {
	return m.write(func() {
		for _, l := range logs {
			m.logs[l.Index] = *l
			if m.first == 0 {
				m.first = l.Index
			}
			m.last = max(m.last, l.Index)
		}
	})
}

func (m *memLog) DeleteRange(low, high uint64) error {
	return m.write(func() {
		for i := low; i <= high; i++ {
			delete(m.logs, i)
		}
		if low <= m.first {
			m.first = high + 1
		}
		if high >= m.last {
			m.last = low - 1
		}
		if m.first > m.last {
			m.first, m.last = 0, 0
		}
	})
}

func (m *memLog) Set(k, v []byte) error {
	return m.write(func() { m.kv[string(k)] = bytes.Clone(v) })
}

func (m *memLog) Get(k []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.kv[string(k)]
	if !ok {
		return nil, errors.New("not found") // the text is what raft looks for
	}
	return v, nil
}

// SetUint64 fails not even where the node is dead: raft panics where it cannot store a
// term, and nobody hears what it says after that.
func (m *memLog) SetUint64(k []byte, v uint64) error {
	if err := m.write(func() { m.numbers[string(k)] = v }); !errors.Is(err, errCrashed) {
		return err
	}
	return nil
}

func (m *memLog) GetUint64(k []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.numbers[string(k)], nil
}

// Close leaves the log for the next start.
func (m *memLog) Close() error { return nil }

// memSnapshots keeps the two newest snapshots, as the file store does. One is
// there when its sink was closed, whole, and not before.
type memSnapshots struct {
	mu     sync.Mutex
	kept   []*memSnapshot // newest first
	made   int
	frozen bool
}

type memSnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

func (m *memSnapshots) freeze() *memSnapshots {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
	return &memSnapshots{kept: append([]*memSnapshot(nil), m.kept...), made: m.made}
}

func (m *memSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return &memSink{store: m, snap: &memSnapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, m.made), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}}, nil
}

func (m *memSnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*raft.SnapshotMeta
	for _, s := range m.kept {
		meta := s.meta
		all = append(all, &meta)
	}
	return all, nil
}

func (m *memSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.kept {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("there is no snapshot %s", id)
}

// memSink is a snapshot that is being written.
type memSink struct {
	store *memSnapshots
	snap  *memSnapshot
	ended bool
}

func (s *memSink) ID() string { return s.snap.meta.ID }

func (s *memSink) Write(p []byte) (int, error) {
	s.snap.data = append(s.snap.data, p...)
	return len(p), nil
}

func (s *memSink) Cancel() error {
	s.ended = true
	return nil
}

func (s *memSink) Close() error {
	m := s.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	if m.frozen {
		return errCrashed
	}
	s.snap.meta.Size = int64(len(s.snap.data))
	m.kept = append([]*memSnapshot{s.snap}, m.kept...)
	// One that raft was taking ends after one that it has installed meanwhile, and is
	// older all the same.
	slices.SortStableFunc(m.kept, func(a, b *memSnapshot) int {
		return cmp.Or(cmp.Compare(b.meta.Term, a.meta.Term), cmp.Compare(b.meta.Index, a.meta.Index))
	})
	if len(m.kept) > 2 {
		m.kept = m.kept[:2]
	}
	return nil
}
