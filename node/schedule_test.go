package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
)

// names are the files of a directory.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestSchedule: one backup at once where there is none, then one an interval, also
// across a restart; the oldest own ones go, others' files stay; after a failure the
// next attempt is soon, and nothing is removed.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "backups")
		var broken atomic.Pointer[error]
		s := newSchedule(BackupConfig{Directory: dir, Interval: time.Hour, Keep: 2}, "id-a-", slog.New(slog.DiscardHandler),
			func(_ context.Context, path string) (int64, error) {
				if err := broken.Load(); err != nil {
					return 0, *err
				}
				return 5, os.WriteFile(path, []byte("whole"), 0o600)
			})
		start := func() func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); s.run(ctx) }()
			return func() { cancel(); <-done }
		}
		stop := start()
		synctest.Wait()
		if got := names(t, dir); len(got) != 1 || got[0] != "id-a-20000101T000000Z.mqb" {
			t.Fatalf("at the first start: %v", got)
		}
		for _, other := range []string{"id-b-19990101T000000Z.mqb", "id-a-notes.mqb", ".id-a-19990101T000000Z.mqb.1.partial"} {
			if err := os.WriteFile(filepath.Join(dir, other), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Minute)
		stop()
		stop = start() // a restart is no reason for a backup
		time.Sleep(29 * time.Minute)
		if got := names(t, dir); len(got) != 4 {
			t.Errorf("before it is due: %v", got)
		}
		time.Sleep(2*time.Hour + 2*time.Minute)
		want := []string{"id-a-20000101T020000Z.mqb", "id-a-20000101T030000Z.mqb", "id-a-notes.mqb", "id-b-19990101T000000Z.mqb"}
		if d := cmp.Diff(want, names(t, dir)); d != "" {
			t.Error(d)
		}
		failure := errors.New("broken")
		broken.Store(&failure)
		time.Sleep(time.Hour)
		if d := cmp.Diff(want, names(t, dir)); d != "" {
			t.Error(d)
		}
		var m dto.Metric
		if err := s.failures.Write(&m); err != nil || m.GetCounter().GetValue() != 1 {
			t.Errorf("failures are counted as %v, %v", m.GetCounter(), err)
		}
		broken.Store(nil)
		time.Sleep(backupRetry)
		want = []string{"id-a-20000101T030000Z.mqb", "id-a-20000101T040500Z.mqb", "id-a-notes.mqb", "id-b-19990101T000000Z.mqb"}
		if d := cmp.Diff(want, names(t, dir)); d != "" {
			t.Error(d)
		}
		stop()
	})
}
