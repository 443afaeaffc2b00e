package fsm

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Facts about the disk that a node and its operator act on.
var (
	// ErrCorrupt: what was read from the disk is not what was written.
	ErrCorrupt = errors.New("the state on disk is damaged: replace this node's data directory (mqcluster join --replace) and look for a failing disk")
	// ErrNoRoom: there is no room for a snapshot beside the state.
	ErrNoRoom = errors.New("the disk has no room for a snapshot: make room")

	errHung = errors.New("the disk does not answer: look for a failing disk, then start the node again")
	errFull = errors.New("the disk is full: make room, then start the node again")
)

// remedy adds to an error of the file system what its reader is to do.
func remedy(err error) error {
	switch {
	case errors.Is(err, ErrCorrupt), errors.Is(err, errFull), errors.Is(err, errHung):
		return err
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w (%w)", ErrCorrupt, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w (%w)", errFull, err)
	}
	return err
}

// halt ends the process for an error of the disk.
func (s *Store) halt(what string, err error) {
	s.deps.Halt(fmt.Errorf("%s: %w", what, remedy(err)))
}

// pebbleEvents are the faults that Pebble meets in the background. It would try
// again for ever, without a pause, while writes pile up before it.
func (s *Store) pebbleEvents() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { s.halt("write the state", err) },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.halt("read the state", fmt.Errorf("%w (%s: %w)", ErrCorrupt, filepath.Base(i.Path), i.Details))
		},
	}
}

// pebbleLogger passes Pebble's own lines on at debug; errors come as errors.
type pebbleLogger struct {
	l    *slog.Logger
	halt func(what string, err error)
}

func (p pebbleLogger) Infof(f string, a ...any)  { p.l.Debug(fmt.Sprintf(f, a...)) }
func (p pebbleLogger) Errorf(f string, a ...any) { p.l.Error(fmt.Sprintf(f, a...)) }

// Fatalf is called where Pebble cannot go on: mostly, a write of its manifest
// failed.
func (p pebbleLogger) Fatalf(f string, a ...any) {
	var cause error
	for _, v := range a {
		if err, ok := v.(error); ok {
			cause = err
		}
	}
	text := fmt.Sprintf(f, a...)
	if cause != nil {
		p.halt("write the state", fmt.Errorf("%s: %w", text, cause))
	}
	p.halt("write the state", errors.New(text))
	panic(text)
}

// slow watches writes that do not end. One look is not enough: a process that
// was stopped finds every write under way to be old.
type slow struct {
	deadline time.Duration
	halt     func(what string, err error)

	mu   sync.Mutex
	seen map[string]time.Duration // by path and operation: how long, at the last look
}

// watched is fs with an eye on operations that take longer than the deadline:
// they halt the store. Reads are not watched here (see applying).
func (s *Store) watched(fs vfs.FS) vfs.FS {
	w := &slow{deadline: s.cfg.Deadline, halt: s.halt, seen: map[string]time.Duration{}}
	// The watchers end with the files; the file system itself has none to close
	// that outlives the process.
	fs, s.fsCloser = vfs.WithDiskHealthChecks(strictFS{fs, s.halt}, s.cfg.Deadline/2, nil, w.look)
	return fs
}

// look is called every two seconds while an operation is slow.
func (w *slow) look(i vfs.DiskSlowInfo) {
	w.mu.Lock()
	key := i.OpType.String() + " " + i.Path
	before, again := w.seen[key]
	w.seen[key] = i.Duration
	if len(w.seen) > 1000 {
		clear(w.seen)
	}
	w.mu.Unlock()
	// The same operation, twice, by the second time too old.
	if again && i.Duration > before && i.Duration >= w.deadline {
		w.halt("write the state", fmt.Errorf("%w (%s of %s for %v)", errHung, i.OpType, filepath.Base(i.Path), i.Duration.Round(time.Second)))
	}
}

// stalled is how many deadlines of one operation apply may take for one batch:
// it may have to wait for flushes of several memtables, each of many writes.
const stalled = 6

// applying halts the store if a batch is not applied in time, because reads hang
// or flushes do not keep up; call what it returns when it is. A second, shorter
// wait lets a process that was stopped go on.
func (s *Store) applying() (applied func()) {
	var done atomic.Bool
	again := func() {
		if !done.Load() {
			s.halt("apply the log", fmt.Errorf("%w (one batch took %v)", errHung, stalled*s.cfg.Deadline))
		}
	}
	// The clock decides nothing of the state: it only ends a process that hangs.
	timer := time.AfterFunc(stalled*s.cfg.Deadline, func() { //nolint:forbidigo // see above
		time.AfterFunc(s.cfg.Deadline/10, again) //nolint:forbidigo // see above
	})
	return func() {
		timer.Stop()
		done.Store(true)
	}
}
