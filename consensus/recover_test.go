package consensus

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/fsm"
)

// recoverAlone makes a halted node the only one of its group.
func (n *testNode) recoverAlone(t *testing.T, generation string) {
	t.Helper()
	n.cfg.Generation = generation
	if err := Recover(n.cfg); err != nil {
		t.Fatal(err)
	}
}

// proposeAll proposes count items through a node and waits for all.
func proposeAll(t *testing.T, n *testNode, client string, count int) {
	t.Helper()
	for i := range count {
		if _, err := n.Propose(t.Context(), publish(client, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecover loses two of three nodes for good: the third has everything that was
// applied or in its log, whether its state survived or is built again, with and
// without a snapshot, and the group grows again.
func TestRecover(t *testing.T) {
	for _, tt := range []struct {
		name           string
		keep, snapshot bool
	}{{"state kept", true, false}, {"state lost", false, false}, {"snapshot, state kept", true, true}, {"snapshot, state lost", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, func(cfg *Config) { cfg.TrailingLogs = 1 })
			c.leased()
			n := c.followers()[0]
			proposeAll(t, c.leader(), "before", 20)
			if tt.snapshot {
				eventually(t, "applied", func() bool { return len(n.fsm.items()) == 20 })
				if err := n.Snapshot(); err != nil {
					t.Fatal(err)
				}
			}
			proposeAll(t, c.leader(), "after", 20)
			sameState(c)
			want := n.fsm.items()
			for _, n := range c.nodes {
				n.halt(false)
			}
			before, err := Inspect(n.cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if before.LastIndex < n.fsm.AppliedIndex() || len(before.Servers) != 3 || (before.SnapshotIndex > 0) != tt.snapshot || before.Stamp != n.fsm.Stamp() {
				t.Errorf("Inspect: %+v, applied %d, stamp %d", before, n.fsm.AppliedIndex(), n.fsm.Stamp())
			}
			n.recoverAlone(t, "second")
			n.recoverAlone(t, "second") // again changes nothing
			after, err := Inspect(n.cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			self := []Server{{Node: n.name, Store: n.cfg.Store, Address: n.cfg.Address, Voter: true}}
			if after.LastIndex != before.LastIndex+1 || after.LastTerm <= before.Term || !cmp.Equal(self, after.Servers) {
				t.Errorf("after: %+v, before %+v", after, before)
			}
			c.restart(n, tt.keep)
			eventually(t, "a lease", n.Leased)
			if d := cmp.Diff(want, n.fsm.items()); d != "" {
				t.Errorf("items: %s", d)
			}
			proposeAll(t, n, "recovered", 3)
			fresh := joinFresh(t, c, n, "n4")
			proposeAll(t, n, "joined", 3)
			eventually(t, "the new node has everything", func() bool { return cmp.Equal(n.fsm.items(), fresh.fsm.items()) })
		})
	}
}

// joinFresh adds a new node as a voter.
func joinFresh(t *testing.T, c *cluster, leader *testNode, name string) *testNode {
	t.Helper()
	n := &testNode{name: name, dir: t.TempDir(), w: c.w}
	n.cfg = testConfig(n.dir, name)
	n.cfg.Generation = leader.cfg.Generation
	n.cfg.TrailingLogs = leader.cfg.TrailingLogs
	c.nodes = append(c.nodes, n)
	c.start(n)
	if err := leader.AddNonvoter(name, n.cfg.Store, n.cfg.Address); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new node is leased", n.Leased)
	if err := leader.Promote(name, n.cfg.Store, n.cfg.Address); err != nil {
		t.Fatal(err)
	}
	return n
}

// What was in the survivor's log and not committed comes to count: it may have
// been acknowledged by those that are lost.
func TestRecoverCommitsTheWholeLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) { cfg.LeaderLease = 200 * time.Millisecond })
	c.leased()
	n := c.leader()
	proposeAll(t, n, "before", 5)
	for _, f := range c.followers() {
		f.halt(false)
	}
	last := n.raft.LastIndex()
	n.Submit(publish("unknown", 1), func(fsm.Result) {})
	eventually(t, "in the log", func() bool { return n.raft.LastIndex() > last })
	applied := n.fsm.AppliedIndex()
	n.halt(false)
	if n.fsm.AppliedIndex() != applied || counts(n.fsm.items())["unknown 000001"] != 0 {
		t.Fatal("an entry without a majority was applied")
	}
	n.recoverAlone(t, "second")
	c.restart(n, true)
	eventually(t, "the whole log is applied", func() bool { return counts(n.fsm.items())["unknown 000001"] == 1 })
}

// A majority that was believed to be lost comes back: it cannot take the
// recovered node into its fold, nor a new node that stands where one of it stood.
func TestOldMajorityIsNotBelieved(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.leased()
	n, old := c.followers()[0], []*testNode{c.leader(), c.followers()[1]}
	proposeAll(t, c.leader(), "before", 5)
	sameState(c)
	for _, n := range c.nodes {
		n.halt(false)
	}
	n.recoverAlone(t, "second")
	c.restart(n, true)
	eventually(t, "a lease", n.Leased)
	proposeAll(t, n, "recovered", 5)
	want := n.fsm.items()

	// By themselves the old two are a majority of the group as it was.
	for _, o := range old {
		c.restart(o, true)
	}
	eventually(t, "the old two have a leader", func() bool { return old[0].IsLeader() || old[1].IsLeader() })
	leader := old[0]
	if old[1].IsLeader() {
		leader = old[1]
	}
	eventually(t, "they serve each other", func() bool { return old[0].Leased() && old[1].Leased() })
	proposeAll(t, leader, "old", 20)
	proposeAll(t, n, "recovered-more", 5)
	if d := cmp.Diff(want, n.fsm.items()[:len(want)]); d != "" || len(n.fsm.items()) != len(want)+5 || !n.IsLeader() {
		t.Errorf("the recovered node was disturbed: %s", d)
	}

	// Alone, an old one finds nobody: neither the recovered node votes for it, nor a
	// node with an empty log at the address where it looks for the other one.
	other := old[1]
	if leader == other {
		other = old[0]
	}
	other.halt(false)
	eventually(t, "no majority", func() bool { return !leader.Leased() && !leader.IsLeader() })
	fresh := &testNode{name: other.name, dir: t.TempDir(), w: c.w}
	fresh.cfg = testConfig(fresh.dir, other.name)
	fresh.cfg.Store, fresh.cfg.Generation = "store-new", "second"
	for i, m := range c.nodes {
		if m == other {
			c.nodes[i] = fresh
		}
	}
	c.start(fresh)
	_, err := leader.dialPeer(t.Context(), fresh.name, "", ProtoRaft)
	if !errors.Is(err, ErrNotListened) {
		t.Errorf("an old server dials a new one: %v", err)
	}
	t.Log(err)
	if err := n.AddNonvoter(fresh.name, fresh.cfg.Store, fresh.cfg.Address); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new node is leased", fresh.Leased)
	if leader.IsLeader() {
		t.Error("an old server leads again")
	}
}

// What was meant for the disk that a node had before does not reach the one that
// it has now: an empty server votes for everybody.
func TestNothingForAnotherDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	n := c.nodes[0]
	for store, want := range map[string]error{n.cfg.Store: nil, "": nil, "store-before": ErrNotListened} {
		conn, err := n.dialPeer(t.Context(), n.name, store, ProtoRaft)
		if !errors.Is(err, want) {
			t.Errorf("store %q: %v", store, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

// Inspect changes nothing, and neither verb makes a log where there is none.
func TestInspectReadsOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Inspect(dir); !errors.Is(err, ErrNoLog) {
		t.Errorf("Inspect without a log: %v", err)
	}
	if err := Recover(testConfig(dir, "n1")); !errors.Is(err, ErrNoLog) {
		t.Errorf("Recover without a log: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	c := newCluster(t, 1, nil)
	n := c.nodes[0]
	proposeAll(t, n, "x", 3)
	if _, err := Inspect(n.cfg.Dir); err == nil {
		t.Error("a log that is in use was read")
	}
	n.halt(true)
	read := func() string {
		data, err := os.ReadFile(filepath.Join(n.cfg.Dir, "raft.db"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	before := read()
	if _, err := Inspect(n.cfg.Dir); err != nil || read() != before {
		t.Errorf("Inspect: %v, or it changed the log", err)
	}
}

func TestGreetingIsBounded(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		fmt.Fprintf(far, "%0*d\n", 2*maxGreeting, 0)
	}()
	if _, err := readLine(near); err == nil {
		t.Error("an endless greeting was read")
	}
}
