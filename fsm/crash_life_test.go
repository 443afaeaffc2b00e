package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// script is a log that touches every kind of record, with the state that it
// leads to and a snapshot of that state at three quarters of it.
type script struct {
	logs      []*raft.Log
	want      []string // at the end
	installAt int      // the snapshot holds logs[:installAt]
	install   []byte
}

func newScript(t *testing.T) *script {
	r := newTape(t)
	_, pub := r.connect("b", &logpb.Claim{Client: "pub", Expiry: session.Never, Will: will("w", 5)})
	_, sub := r.connect("a", &logpb.Claim{Client: "sub", Expiry: session.Never})
	r.subscribe("a", "sub", sub, 2, "x/+", "x/#")
	r.subscribe("b", "pub", pub, 1, "$share/g/x/1")
	put := func(topic, payload string, qos uint32, retain bool) {
		r.admin("b", &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
			Client: "pub", Epoch: pub, Topic: topic, Payload: []byte(payload), Qos: qos, Retain: retain, PacketId: uint32(r.index) + 1,
		}}})
	}
	for i := range 16 {
		put("x/1", fmt.Sprint("one ", i), 1+uint32(i%2), false)
		put(fmt.Sprint("r/", i%5), fmt.Sprint("kept ", i), 1, true)
		if i%4 == 3 {
			r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{
				{Client: "sub", Epoch: sub, Cursor: uint64(session.At(r.index-4, 0))},
			}}}})
		}
		if i == 9 {
			put("r/2", "", 1, true)
			r.admin("b", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "pub", Epoch: pub, Will: true}}})
			_, pub = r.connect("b", &logpb.Claim{Client: "pub", Expiry: session.Never})
		}
	}
	c := &script{logs: r.logs, want: dump(t, r.store), installAt: len(r.logs) * 3 / 4}
	part := r.open(vfs.NewMem())
	part.ApplyBatch(c.logs[:c.installAt])
	c.install = saved(t, part).data
	return c
}

// saved takes a snapshot as raft would.
func saved(t *testing.T, s *Store) kept {
	t.Helper()
	at := s.AppliedIndex()
	sink := &memSink{}
	snap, err := s.Snapshot()
	if err == nil {
		err = snap.Persist(sink)
	}
	if err != nil {
		t.Fatal(err)
	}
	snap.Release()
	return kept{at, sink.Bytes()}
}

// kept is the newest snapshot of raft: on disk, and the log behind it is gone.
type kept struct {
	index uint64
	data  []byte
}

// life is one store from its first start to its last end, as a node leads it.
type life struct {
	t      *testing.T
	script *script
	fs     vfs.FS

	mu     sync.Mutex
	snap   kept
	halted chan struct{}
	once   sync.Once
	why    error
	store  *Store
}

func newLife(t *testing.T, c *script, fs vfs.FS) *life {
	return &life{t: t, script: c, fs: fs, halted: make(chan struct{})}
}

func (l *life) newest() kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snap
}

func (l *life) keep(s kept) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snap = s
}

// halt keeps the goroutine that calls it where it is, for ever, with its locks:
// as far as the disk is concerned the process has ended.
func (l *life) halt(err error) {
	l.once.Do(func() { l.why = err; close(l.halted) })
	select {}
}

// start opens the store as a node does: a state older than raft's newest
// snapshot is brought up to it, and the log behind it follows.
func (l *life) start() error {
	s, err := Open(l.t.Context(), Config{
		Dir: "data/state", Node: "a", FS: l.fs, KeepDead: true, CacheBytes: 1 << 20, MemTableBytes: 256 << 10,
	}, Deps{Halt: l.halt})
	if err != nil {
		return err
	}
	l.store = s
	snap := l.newest()
	if s.AppliedIndex() < snap.index {
		if err := s.Restore(io.NopCloser(bytes.NewReader(snap.data))); err != nil {
			return errors.Join(err, s.Close())
		}
		if at := s.AppliedIndex(); at != snap.index {
			return fmt.Errorf("the snapshot of %d holds the state at %d", snap.index, at)
		}
	}
	return nil
}

// must is start, a second time if need be: a failed start is the end of the
// process and the operator starts it again.
func (l *life) must() {
	if l.start() == nil {
		return
	}
	if err := l.start(); err != nil {
		l.t.Errorf("the store does not start again: %v", err)
		runtime.Goexit()
	}
}

func (l *life) feed(from, to int) {
	for i := from; i < to; i += 3 {
		l.store.ApplyBatch(l.script.logs[i:min(i+3, to)])
	}
}

// snapshot is one of raft's: what fails is tried again some day.
func (l *life) snapshot() {
	at := l.store.AppliedIndex()
	snap, err := l.store.Snapshot()
	if err != nil {
		return
	}
	defer snap.Release()
	sink := &memSink{}
	if snap.Persist(sink) == nil {
		l.keep(kept{at, sink.Bytes()})
	}
}

// run is the life. It ends early where the store halts.
func (l *life) run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n := len(l.script.logs)
		l.must()
		l.feed(0, n/4)
		l.snapshot()
		l.feed(n/4, n/2)
		l.snapshot()
		l.feed(n/2, n/2+3)
		// The leader sends a snapshot: raft has it on disk before it restores it,
		// and sends it again where that fails.
		l.keep(kept{l.script.logs[l.script.installAt-1].Index, l.script.install})
		for range 2 {
			if l.store.Restore(io.NopCloser(bytes.NewReader(l.script.install))) == nil {
				break
			}
		}
		l.feed(l.script.installAt, n-6)
		l.snapshot()
		l.feed(n-6, n-3)
		_ = l.store.Close()
		l.must()
		l.feed(0, n) // what it has already counts once
		same(l.t, "at the end of the life", l.script.want, dump(l.t, l.store))
		_ = l.store.Close()
	}()
	select {
	case <-done:
	case <-l.halted:
	}
}

// resume starts what a crash left behind and feeds it the log from raft's newest
// snapshot, as raft does.
func resume(t *testing.T, c *script, fs vfs.FS, snap kept, what string) {
	l := newLife(t, c, fs)
	l.snap = snap
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.start(); err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		from := 0
		for from < len(c.logs) && c.logs[from].Index <= snap.index {
			from++
		}
		l.feed(from, len(c.logs))
		same(t, what, c.want, dump(t, l.store))
		if err := l.store.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}()
	select {
	case <-done:
	case <-l.halted:
		t.Errorf("%s: halted: %v", what, l.why)
	}
}

// changes tells whether an operation alters what a crash leaves.
func changes(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRemove, errorfs.OpRemoveAll, errorfs.OpRename,
		errorfs.OpReuseForWrite, errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync,
		errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileClose:
		return true
	}
	return false
}

// moment is what a crash at one operation leaves on disk, and what raft has.
type crash struct {
	what  string
	snap  kept
	disks []*vfs.MemFS
}

// crashes are the disks that a crash now may leave: only what was synced, all
// that was written, and something in between.
func crashes(fs *vfs.MemFS, seed uint64) []*vfs.MemFS {
	rng := rand.New(rand.NewPCG(seed, 1))
	return []*vfs.MemFS{
		fs.CrashClone(vfs.CrashCloneCfg{}),
		fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}),
		fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}),
	}
}
