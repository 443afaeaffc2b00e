package consensus

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// A seeded group begins behind its snapshot, once, and not where the snapshot could
// not be written.
func TestSeed(t *testing.T) {
	cfg := testConfig(t.TempDir(), "n1")
	self := []Server{{Node: "n1", Store: cfg.Store, Address: cfg.Address, Voter: true}}
	broken := errors.New("broken")
	err := Seed(cfg, self, 7, func(sink raft.SnapshotSink) error { return errors.Join(broken, sink.Cancel()) })
	if !errors.Is(err, broken) {
		t.Errorf("a snapshot that cannot be written: %v", err)
	}
	write := func(sink raft.SnapshotSink) error {
		_, err := io.WriteString(sink, "state")
		return errors.Join(err, sink.Close())
	}
	if err := Seed(cfg, self, 7, write); err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if in.SnapshotIndex != 7 || in.LastIndex != 7 || in.Term != seedTerm || in.FirstIndex != 0 || !cmp.Equal(self, in.Servers) {
		t.Errorf("seeded: %+v", in)
	}
	if err := Seed(cfg, self, 9, write); !errors.Is(err, ErrBootstrapped) {
		t.Errorf("again: %v", err)
	}
	if err := Bootstrap(cfg, self); !errors.Is(err, ErrBootstrapped) {
		t.Errorf("Bootstrap over it: %v", err)
	}
}
