// Package fsm is the deterministic core of a cluster: the state that the
// replicated log builds, kept in Pebble, and the rules by which an entry of the
// log changes it. Every node applies the same entries in the same order and
// comes to the same state; matching of messages to subscriptions happens here,
// at apply.
//
// It is not: consensus (package consensus feeds it), delivery to connections
// (package broker acts on its events), a place for clocks, randomness or logs.
//
// The store runs without a write-ahead log of its own, because the raft log is
// one: after a crash the state is that of the last flush and raft applies the
// entries since again. meta/applied is in every batch, so an entry never counts
// twice.
package fsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// Level is the feature level of this binary: the newest command or setting that
// it knows.
const Level = LevelAPI

// Levels: 1 is the first version.
const (
	levelZero   = 2 // the setting queue.qos0
	levelFormer = 3 // the will of a connection that is taken over waits for how it ended
	// LevelImport: SessionPut, UserPut.replaces, the actions receive and request of
	// rules, and the subject anonymous.
	LevelImport = 4
	// LevelLeft: Session.left, and messages of the mesh say what their node had
	// applied.
	LevelLeft = 5
	// LevelServing: members that never vote, and the setting cluster.voters.
	LevelServing = 6
	// LevelIdentity: BanPut, BanRemove, AuditPut, AclReplace, SecretPut, Item.by,
	// UserPut.scram and quota, certificate fields in rules, and AclVersion records.
	LevelIdentity = 7
	// LevelAPI: ApiTokenPut, ApiTokenRemove, AdminPublish.
	LevelAPI = 8
)

// Config of a Store.
type Config struct {
	// Dir holds the state; the Store owns it whole.
	Dir string
	// Node is this node's id: only its own items are reported as EventResult.
	Node string
	// CacheBytes and MemTableBytes size Pebble; 0 means 32 MiB and 16 MiB.
	CacheBytes, MemTableBytes int64
	// FS is the file system, for tests; nil means the real one.
	FS vfs.FS
	// Deadline (10 s) is how long one write or sync may take: the disk hangs, and
	// the store halts. One batch of entries has six times as long.
	Deadline time.Duration
	// KeepDead leaves dead postings in the store, for tests that compare stores.
	KeepDead bool
}

// Deps of a Store.
type Deps struct {
	Logger *slog.Logger
	// Observe gets the events of entries after they are in the store, on the
	// goroutine that applies; it is called for entries without events as well. It
	// must not block nor keep the slice.
	Observe func([]Event)
	// Halt ends the process: an entry could not be applied or stored, and to go
	// on would be to diverge. It does not return, and is called on any goroutine.
	Halt func(error)
	// Room tells whether so many bytes more may be written; nil: always. Asked
	// before snapshots, in and out.
	Room func(bytes uint64) bool
}

// Store is the state of one node. It implements raft.FSM and raft.BatchingFSM.
type Store struct {
	cfg  Config
	deps Deps

	// mu is the apply lock: it is held while entries are applied and their events
	// observed, and by Locked.
	mu    sync.Mutex
	state *state
	cuts  map[string]*Cut // that are waited for
	// scratch is the applying goroutine's.
	scratch scratch

	db      atomic.Pointer[generation]
	applied atomic.Uint64 // raft index
	stamp   atomic.Int64
	policy  atomic.Pointer[auth.Policy]
	table   atomic.Pointer[table] // what other goroutines may read of state
	due     atomic.Int64          // earliest due moment, 0: none
	turn    atomic.Uint64         // round robin of QoS 0 picks

	gc       *collector
	closed   bool
	fsCloser io.Closer // the watch over slow writes
}

// Open opens or creates the state in cfg.Dir. It reads every session and
// subscription, not the messages.
func Open(_ context.Context, cfg Config, deps Deps) (_ *Store, err error) {
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 32 << 20
	}
	if cfg.MemTableBytes == 0 {
		cfg.MemTableBytes = 16 << 20
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = 10 * time.Second
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Halt == nil {
		deps.Halt = func(err error) { panic(err) }
	}
	if deps.Observe == nil {
		deps.Observe = func([]Event) {}
	}
	if deps.Room == nil {
		deps.Room = func(uint64) bool { return true }
	}
	s := &Store{cfg: cfg, deps: deps}
	s.cfg.FS = s.watched(cfg.FS)
	defer func() {
		if err != nil {
			err = errors.Join(remedy(err), s.fsCloser.Close())
		}
	}()
	if err := s.cfg.FS.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w", err)
	}
	name, found, err := s.currentName()
	if err != nil {
		return nil, err
	}
	keep := name
	if !found {
		keep = "" // what an interrupted first start has left
	}
	if err := s.removeOthers(keep); err != nil {
		return nil, err
	}
	gen, st, err := s.openGeneration(name)
	if err != nil {
		return nil, err
	}
	// Without these a power loss can take a new directory away, flushed files
	// and all.
	if err := errors.Join(syncDir(s.cfg.FS, cfg.Dir), syncDir(s.cfg.FS, s.cfg.FS.PathDir(cfg.Dir))); err != nil {
		return nil, errors.Join(fmt.Errorf("sync the state directory: %w", err), gen.db.Close())
	}
	if !found {
		if err := s.setCurrent(name); err != nil {
			return nil, errors.Join(err, gen.db.Close())
		}
	}
	s.install(gen, st)
	if !cfg.KeepDead {
		s.gc = startCollector(s)
	}
	return s, nil
}

// install makes gen and st the state. The caller holds mu or is alone.
func (s *Store) install(gen *generation, st *state) {
	s.state = st
	s.db.Store(gen)
	s.publish()
}

// publish lets other goroutines see what changed, the index last: who reads it, as the
// leader does that waits until a user's change is everywhere, sees no state from before.
func (s *Store) publish() {
	s.policy.Store(s.state.policy)
	s.table.Store(s.state.table)
	s.due.Store(s.state.nextDue())
	s.stamp.Store(s.state.stamp)
	s.applied.Store(s.state.applied)
}

// Close flushes what is applied and closes the store. It is idempotent.
func (s *Store) Close() error {
	if s.gc != nil {
		s.gc.stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	gen := s.db.Load()
	err := gen.db.Flush()
	gen.release()
	return errors.Join(err, s.fsCloser.Close())
}

// AppliedIndex is the raft index of the last entry in the state.
func (s *Store) AppliedIndex() uint64 { return s.applied.Load() }

// Level returns the feature level that every member has. It does not block.
func (s *Store) Level() uint32 { return s.table.Load().level }

// Stamp is the log time of the last entry, in milliseconds.
func (s *Store) Stamp() int64 { return s.stamp.Load() }

// Due tells the earliest log time at which something is to happen by itself.
func (s *Store) Due() (int64, bool) {
	d := s.due.Load()
	return d, d != 0
}

// Policy is the users and ACLs in force.
func (s *Store) Policy() *auth.Policy { return s.policy.Load() }

// Locked runs f between two entries: nothing is applied while it runs. It must
// not be called from an observer, which is between entries already.
func (s *Store) Locked(f func(at session.Pos, view func() View)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(session.At(s.state.applied+1, 0)-1, s.View)
}

// generation is one Pebble database; a restored snapshot makes a new one. It is
// closed when the last view of it is.
type generation struct {
	db   *pebble.DB
	name string
	refs atomic.Int64
	done func(*generation)
}

// acquire reports false when the generation is closed already.
func (g *generation) acquire() bool {
	for {
		n := g.refs.Load()
		if n == 0 {
			return false
		}
		if g.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *generation) release() {
	if g.refs.Add(-1) == 0 {
		g.done(g)
	}
}

const currentFile = "CURRENT"

// currentName is the directory that holds the state in force; none where there
// is no state yet.
func (s *Store) currentName() (name string, found bool, err error) {
	fs := s.cfg.FS
	f, err := fs.Open(filepath.Join(s.cfg.Dir, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		return generationName(0), false, s.neverBegun()
	}
	if err != nil {
		return "", false, fmt.Errorf("open the state's %s file: %w", currentFile, err)
	}
	defer f.Close()
	buf, err := io.ReadAll(f)
	if err != nil {
		return "", false, fmt.Errorf("read the state's %s file: %w", currentFile, err)
	}
	name = string(buf)
	if n, ok := generationNumber(name); !ok || name != generationName(n) {
		return "", false, fmt.Errorf("%w (the state's %s file names %q)", ErrCorrupt, currentFile, name)
	}
	if _, err := fs.Stat(filepath.Join(s.cfg.Dir, name)); err != nil {
		return "", false, fmt.Errorf("%w (the state's %s file names %s: %w)", ErrCorrupt, currentFile, name, err)
	}
	return name, true, nil
}

// neverBegun is an error where a state was in force once and CURRENT was lost:
// the first state, and only that, is made before CURRENT is.
func (s *Store) neverBegun() error {
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list the state directory: %w", err)
	}
	for _, name := range names {
		if n, ok := generationNumber(name); ok && n > 0 {
			return fmt.Errorf("%w (the state's %s file is gone)", ErrCorrupt, currentFile)
		}
	}
	return nil
}

func generationName(n int) string { return fmt.Sprintf("state-%d", n) }

func generationNumber(name string) (n int, ok bool) {
	_, err := fmt.Sscanf(name, "state-%d", &n)
	return n, err == nil
}

// setCurrent is durable on return.
func (s *Store) setCurrent(name string) error {
	fs := s.cfg.FS
	path := filepath.Join(s.cfg.Dir, currentFile)
	f, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("write the state's %s file: %w", currentFile, err)
	}
	_, err = f.Write([]byte(name))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = fs.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(s.cfg.FS, s.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("write the state's %s file: %w", currentFile, err)
	}
	return nil
}

// removeOthers deletes what an interrupted restore or snapshot left behind.
func (s *Store) removeOthers(keep string) error {
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list the state directory: %w", err)
	}
	for _, n := range names {
		if n == keep || n == currentFile {
			continue
		}
		if err := s.cfg.FS.RemoveAll(filepath.Join(s.cfg.Dir, n)); err != nil {
			return fmt.Errorf("remove an unfinished state: %w", err)
		}
	}
	return nil
}

func (s *Store) openGeneration(name string) (*generation, *state, error) {
	// Pebble takes the memtables, one that is flushed among them, out of the cache:
	// with less there is no room for blocks, and every read comes from a file.
	cache := pebble.NewCache(s.cfg.CacheBytes + 2*s.cfg.MemTableBytes)
	defer cache.Unref()
	db, err := pebble.Open(filepath.Join(s.cfg.Dir, name), &pebble.Options{
		FS:                          s.cfg.FS,
		Cache:                       cache,
		DisableWAL:                  true,
		MemTableSize:                uint64(s.cfg.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLogger{s.deps.Logger, s.halt},
		EventListener:               s.pebbleEvents(),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open the state: %w", err)
	}
	gen := &generation{db: db, name: name, done: s.closeGeneration}
	gen.refs.Store(1)
	st, err := load(db, s.cfg.Node)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the state: %w", err), db.Close())
	}
	return gen, st, nil
}

func (s *Store) closeGeneration(g *generation) {
	if err := g.db.Close(); err != nil {
		s.deps.Logger.Warn("close the state", "err", err)
	}
}

// Members returns the members of the cluster, by node id.
func (s *Store) Members() []*logpb.Member { return s.table.Load().members }
