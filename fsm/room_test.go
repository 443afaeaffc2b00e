package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// A snapshot that does not fit beside the reserve is not begun, or given up, and
// the state stays what it was.
func TestNoRoomForASnapshot(t *testing.T) {
	c := newScript(t)
	full := false
	s, err := Open(t.Context(), Config{Dir: "state", Node: "a", FS: vfs.NewMem(), KeepDead: true}, Deps{
		Room: func(uint64) bool { return !full },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.ApplyBatch(c.logs[:10])
	before := dump(t, s)
	full = true
	if _, err := s.Snapshot(); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a snapshot on a full disk: %v", err)
	}
	if err := s.Restore(io.NopCloser(bytes.NewReader(c.install))); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a restore on a full disk: %v", err)
	}
	same(t, "on a full disk", before, dump(t, s))
	full = false
	if err := s.Restore(io.NopCloser(bytes.NewReader(c.install))); err != nil {
		t.Fatal(err)
	}
	s.ApplyBatch(c.logs)
	same(t, "with room again", c.want, dump(t, s))
}

// halts runs f and returns the error that it halted the store with.
func halts(t *testing.T, disk *faultyDisk, f func(s *Store)) error {
	t.Helper()
	halted := make(chan error, 1)
	c := newScript(t)
	s, err := Open(t.Context(), Config{
		Dir: "state", Node: "a", FS: errorfs.Wrap(disk.FS, disk), KeepDead: true, Deadline: 5 * time.Second,
	}, Deps{Halt: func(err error) {
		select {
		case halted <- err:
		default:
		}
		select {} // as a process that ends
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		s.ApplyBatch(c.logs)
		f(s)
	}()
	select {
	case err := <-halted:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the store did not halt")
		return nil
	}
}

// faultyDisk refuses or hangs every write from the moment that fault is set.
type faultyDisk struct {
	vfs.FS
	fault chan struct{} // closed: from now on
	err   error         // nil: hang
}

func (d *faultyDisk) String() string { return "faulty disk" }

// MaybeError implements errorfs.Injector.
func (d *faultyDisk) MaybeError(op errorfs.Op) error {
	select {
	case <-d.fault:
	default:
		return nil
	}
	if !changes(op) || op.Kind == errorfs.OpFileClose {
		return nil
	}
	if d.err == nil {
		select {}
	}
	return d.err
}

func TestFullDiskHaltsWithASentence(t *testing.T) {
	d := &faultyDisk{FS: vfs.NewMem(), fault: make(chan struct{}), err: syscall.ENOSPC}
	err := halts(t, d, func(s *Store) {
		close(d.fault)
		_, _ = s.Snapshot() // flushes
	})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk is full: make room, then start the node again") {
		t.Errorf("halted with %v", err)
	}
}

// A flush that hangs must not hold up apply for ever: nobody would be told.
func TestHungDiskHaltsWithinTheDeadline(t *testing.T) {
	t.Parallel()
	d := &faultyDisk{FS: vfs.NewMem(), fault: make(chan struct{})}
	start := time.Now()
	err := halts(t, d, func(s *Store) {
		close(d.fault)
		_, _ = s.Snapshot()
	})
	// Looked at every two seconds, twice.
	if took := time.Since(start); !errors.Is(err, errHung) || took > 15*time.Second {
		t.Errorf("after %v halted with %v", took, err)
	}
}

// A write that is old because the process was stopped is no hung disk.
func TestStoppedProcessIsNoHungDisk(t *testing.T) {
	var got error
	w := &slow{deadline: 10 * time.Second, halt: func(_ string, err error) { got = err }, seen: map[string]time.Duration{}}
	w.look(vfs.DiskSlowInfo{Path: "state/1.sst", OpType: vfs.OpTypeSync, Duration: time.Hour})
	w.look(vfs.DiskSlowInfo{Path: "state/2.sst", OpType: vfs.OpTypeSync, Duration: time.Hour})
	if got != nil {
		t.Errorf("halted at the first look: %v", got)
	}
	w.look(vfs.DiskSlowInfo{Path: "state/1.sst", OpType: vfs.OpTypeSync, Duration: time.Hour + 2*time.Second})
	if !errors.Is(got, errHung) {
		t.Errorf("at the second look: %v", got)
	}
}

func TestBatchThatDoesNotEndHalts(t *testing.T) {
	d := &faultyDisk{FS: vfs.NewMem(), fault: make(chan struct{})}
	halted := make(chan error, 1)
	s, err := Open(t.Context(), Config{Dir: "state", Node: "a", FS: d.FS, Deadline: 200 * time.Millisecond}, Deps{
		Halt: func(err error) { halted <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Apply(newTape(t).entry(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}}))
	select {
	case err := <-halted:
		t.Fatalf("halted without a cause: %v", err)
	default:
	}
	applied := make(chan struct{})
	s.Locked(func(session.Pos, func() View) {
		go func() {
			defer close(applied)
			s.Apply(newTape(t).entry(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}}))
		}()
		if err := <-halted; !errors.Is(err, errHung) {
			t.Errorf("halted with %v", err)
		}
	})
	<-applied
}
