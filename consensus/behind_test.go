package consensus

import (
	"testing"

	"github.com/hashicorp/raft"
)

// TestStartAfterSnapshotOfLeader: a follower that came back by a snapshot of the
// leader's starts again before it has taken one of its own.
func TestStartAfterSnapshotOfLeader(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.TrailingLogs = 5 })
	c.leased()
	f, leader := c.followers()[0], c.leader()
	c.w.isolate(f.name, true)
	for i := range 40 {
		leader.ack(t, "pub", i)
	}
	for _, n := range c.nodes {
		if n != f {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.w.isolate(f.name, false)
	want := leader.raft.AppliedIndex()
	eventually(t, "the follower has the snapshot", func() bool { return f.raft.AppliedIndex() >= want })
	c.leader().ack(t, "pub", 40)
	want = c.leader().raft.AppliedIndex()
	eventually(t, "the follower has an entry behind it", func() bool { return f.raft.AppliedIndex() >= want })
	f.halt(true)
	c.restart(f, true) // fails the test if the log is refused
	c.leased()
}

// TestDropBehind: a log that ends before the newest snapshot is deleted, any other
// one stays.
func TestDropBehind(t *testing.T) {
	for _, tt := range []struct {
		name     string
		snapshot uint64 // 0: none
		want     uint64 // last index of the log after
	}{
		{"no snapshot", 0, 20},
		{"within the log", 15, 20},
		{"at its end", 20, 20},
		{"beyond its end", 21, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := raft.NewInmemStore()
			for i := uint64(10); i <= 20; i++ {
				if err := log.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
					t.Fatal(err)
				}
			}
			snaps, err := raft.NewFileSnapshotStoreWithLogger(t.TempDir(), 2, hclogDiscard())
			if err != nil {
				t.Fatal(err)
			}
			if tt.snapshot > 0 {
				sink, err := snaps.Create(1, tt.snapshot, 1, raft.Configuration{}, 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := sink.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := dropBehind(log, snaps); err != nil {
				t.Fatal(err)
			}
			if got, err := log.LastIndex(); got != tt.want || err != nil {
				t.Errorf("the log ends at %d, not %d (%v)", got, tt.want, err)
			}
		})
	}
}
