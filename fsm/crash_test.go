package fsm

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// shards is how many parts of a long test run side by side.
const shards = 4

// TestCrashAtEveryFileOperation: a crash between any two file operations of a
// life with snapshots, an installed snapshot, a close and a start leaves a disk
// that starts, and with what raft still has comes to the same state. The disk
// holds what was synced, and of the rest nothing, everything or something.
func TestCrashAtEveryFileOperation(t *testing.T) {
	c := newScript(t)
	disk := vfs.NewCrashableMem()
	var mu sync.Mutex
	var all []crash
	var l *life
	l = newLife(t, c, errorfs.Wrap(linksAlone{disk, &mu}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if changes(op) {
			mu.Lock()
			defer mu.Unlock()
			n := uint64(len(all))
			all = append(all, crash{
				what: fmt.Sprintf("crash before operation %d (%v of %s)", n, op.Kind, op.Path),
				snap: l.newest(), disks: crashes(disk, n),
			})
		}
		return nil
	})))
	l.run()
	if t.Failed() || l.why != nil {
		t.Fatalf("without any fault: %v", l.why)
	}
	if len(all) < 200 {
		t.Fatalf("only %d file operations were seen", len(all))
	}
	t.Logf("%d file operations, %d disks", len(all), 3*len(all))
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for i := shard; i < len(all) && !t.Failed(); i += stride() {
				for j, d := range all[i].disks {
					resume(t, c, d, all[i].snap, fmt.Sprintf("%s, disk %d", all[i].what, j))
				}
			}
		})
	}
}

// linksAlone is a file system whose Link and crash clones, which are made under mu,
// exclude each other: Pebble's takes a read lock twice in Link, and waits for ever for
// a clone that waits between the two.
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

// stride is how far the operations of one shard are apart: the short form, which is
// for the race detector, takes each fourth.
func stride() int {
	if testing.Short() {
		return 4 * shards
	}
	return shards
}

// TestErrorAtEveryFileOperation: an error of any one file operation, reads too,
// is reported and leaves the state right, or halts the node; then, too, what is
// on the disk comes to the same state.
func TestErrorAtEveryFileOperation(t *testing.T) {
	c := newScript(t)
	count := func(at int) (int, int) {
		disk := vfs.NewCrashableMem()
		var mu sync.Mutex
		ops, halts := 0, 0 // no results by name: Pebble cleans up when this returns
		var failed string
		l := newLife(t, c, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			ops++
			if ops != at {
				return nil
			}
			failed = fmt.Sprintf("error at operation %d (%v of %s)", at, op.Kind, op.Path)
			return errorfs.ErrInjected
		})))
		l.run()
		mu.Lock()
		defer mu.Unlock()
		if l.why != nil {
			halts = 1
		}
		if t.Failed() {
			t.Errorf("%s; halted: %v", failed, l.why)
			return ops, halts
		}
		if failed != "" || at == 0 {
			for j, d := range crashes(disk, uint64(at)) {
				resume(t, c, d, l.newest(), fmt.Sprintf("%s, then a crash, disk %d", failed, j))
			}
		}
		return ops, halts
	}
	ops, _ := count(0)
	if t.Failed() {
		t.Fatal("without any fault")
	}
	var mu sync.Mutex
	halted := 0
	t.Run("all", func(t *testing.T) {
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for at := 1 + shard; at <= ops && !t.Failed(); at += stride() {
					_, n := count(at)
					mu.Lock()
					halted += n
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d file operations, %d errors halted the store", ops, halted)
}
