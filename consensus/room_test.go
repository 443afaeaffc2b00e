package consensus

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm"
)

// disks gives each node of a cluster the room that a test sets.
type disks struct {
	mu  sync.Mutex
	all map[string]*atomic.Uint32
}

func (d *disks) of(node string) *atomic.Uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]*atomic.Uint32{}
	}
	if d.all[node] == nil {
		d.all[node] = new(atomic.Uint32)
	}
	return d.all[node]
}

func (d *disks) set(n *testNode, r Room) { d.of(n.name).Store(uint32(r)) }

func (d *disks) room(node string) func() Room {
	v := d.of(node)
	return func() Room { return Room(v.Load()) }
}

func newRoomCluster(t *testing.T, n int) (*cluster, *disks) {
	d := &disks{}
	c := newClusterWith(t, n, nil, func(node string, deps *Deps) { deps.Room = d.room(node) })
	c.leased()
	return c, d
}

// ack proposes through n and fails if that takes longer than a few elections.
func (n *testNode) ack(t *testing.T, what string, i int) {
	t.Helper()
	done := make(chan fsm.Result, 1)
	n.Submit(publish(what, i), func(r fsm.Result) { done <- r })
	select {
	case r := <-done:
		if r.Err != nil {
			t.Fatalf("%s %d: %v", what, i, r.Err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s %d is not acknowledged", what, i)
	}
}

func TestFollowerWithoutRoomLagsAndCatchesUp(t *testing.T) {
	c, d := newRoomCluster(t, 3)
	leader, full := c.leader(), c.followers()[0]
	// What the node was sent while it had room is let in.
	eventually(t, "nothing is on its way", func() bool { return full.raft.LastIndex() == leader.raft.LastIndex() })
	d.set(full, RoomNone)
	at := full.raft.LastIndex()
	for i := range 50 {
		leader.ack(t, "pub", i)
	}
	if got := full.raft.LastIndex(); got != at {
		t.Errorf("the full node went on from entry %d to %d", at, got)
	}
	eventually(t, "the full node is without lease", func() bool { return !full.Leased() })
	eventually(t, "the full node is down in the state", func() bool { return leader.fsm.incarnation(full.name) == 0 })
	if full.fatal.Load() != nil {
		t.Fatalf("the full node ended: %v", *full.fatal.Load())
	}
	d.set(full, RoomEnough)
	eventually(t, "the node serves again", full.Leased)
	full.ack(t, "back", 1)
	sameState(c)
}

// A truncation that is let through is followed by entries, whatever room there
// is by then; one that is not leaves the log as it is. Either way the follower
// takes the new leader's entries without a restart.
func TestTruncationWithoutRoom(t *testing.T) {
	for _, when := range []string{"before the truncation", "after the truncation"} {
		t.Run(when, func(t *testing.T) {
			c, d := newRoomCluster(t, 3)
			old := c.leader()
			others := c.followers()
			// Entries that only the old leader has.
			c.w.isolate(old.name, true)
			for i := range 20 {
				old.raft.ApplyLog(raft.Log{Data: fmt.Appendf(nil, "lost %d", i)}, 0)
			}
			eventually(t, "another leads", func() bool { return others[0].IsLeader() || others[1].IsLeader() })
			var now *testNode
			for _, n := range others {
				if n.IsLeader() {
					now = n
				}
			}
			now.ack(t, "new", 0)
			if when == "before the truncation" {
				d.set(old, RoomNone)
			} else {
				old.store.onCut = func() { d.set(old, RoomNone) }
			}
			c.w.isolate(old.name, false)
			for i := 1; i < 30; i++ {
				now.ack(t, "new", i)
			}
			eventually(t, "the node has heard of the leader", func() bool { l, ok := old.Leader(); return ok && l != old.name })
			if when == "after the truncation" {
				eventually(t, "the truncation", func() bool { return Room(d.of(old.name).Load()) == RoomNone })
			}
			d.set(old, RoomEnough)
			old.store.onCut = nil
			eventually(t, "the node serves again", old.Leased)
			old.ack(t, "back", 1)
			sameState(c)
		})
	}
}

func TestLeaderWithLittleRoomHandsOver(t *testing.T) {
	for _, r := range []Room{RoomLow, RoomNone} {
		t.Run(r.String(), func(t *testing.T) {
			c, d := newRoomCluster(t, 3)
			old := c.leader()
			other := c.followers()[0]
			// The one that may not become leader either.
			d.set(c.followers()[1], RoomLow)
			d.set(old, r)
			eventually(t, "the roomy node leads", other.IsLeader)
			other.ack(t, "pub", 1)
			if old.fatal.Load() != nil {
				t.Fatalf("the old leader ended: %v", *old.fatal.Load())
			}
			d.set(old, RoomEnough)
			d.set(c.followers()[0], RoomEnough)
			d.set(c.followers()[1], RoomEnough)
			eventually(t, "all serve", func() bool {
				return c.nodes[0].Leased() && c.nodes[1].Leased() && c.nodes[2].Leased()
			})
			old.ack(t, "back", 1)
			sameState(c)
		})
	}
}

func TestScarceByQuorum(t *testing.T) {
	c, d := newRoomCluster(t, 3)
	scarce := func(want bool) func() bool {
		return func() bool {
			for _, n := range c.nodes {
				if n.Leased() && n.Scarce() != want {
					return false
				}
			}
			return true
		}
	}
	d.set(c.nodes[0], RoomLow)
	eventually(t, "the low node does not lead", func() bool { return !c.nodes[0].IsLeader() && c.leader() != nil })
	if !scarce(false)() {
		t.Error("one low disk of three: refused")
	}
	d.set(c.nodes[1], RoomLow)
	eventually(t, "two low disks of three: refused everywhere", scarce(true))
	// What is proposed all the same is stored: who refuses is the broker.
	c.leader().ack(t, "clear", 1)
	d.set(c.nodes[1], RoomEnough)
	eventually(t, "one low disk of three: taken again", scarce(false))
	// A low disk counts when another voter is gone.
	dead := c.nodes[2]
	dead.halt(false)
	eventually(t, "a low and a dead one of three: refused", func() bool {
		return c.nodes[0].Scarce() && c.nodes[1].Scarce()
	})
	c.restart(dead, true)
	eventually(t, "the dead one is back: taken again", scarce(false))
}

// A fresh leader has not heard of anybody's disk; it used to trust them all, and
// for a second durable publishes were taken again.
func TestScarceAcrossElection(t *testing.T) {
	c, d := newRoomCluster(t, 3)
	old := c.leader()
	d.set(c.followers()[0], RoomLow)
	to := c.followers()[1]
	d.set(old, RoomLow)
	eventually(t, "the roomy node leads", to.IsLeader)
	all := func() bool {
		return c.nodes[0].Scarce() && c.nodes[1].Scarce() && c.nodes[2].Scarce()
	}
	eventually(t, "two low disks of three: refused everywhere", all)
	if err := to.raft.LeadershipTransfer().Error(); err != nil {
		t.Fatal(err)
	}
	// To a low one, and from there back to the roomy one.
	eventually(t, "the roomy node leads again", func() bool {
		if !all() {
			t.Fatal("a fresh leader has durable publishes taken before it knows")
		}
		return to.IsLeader()
	})
	// Nothing tells that a wrong word will not come any more. One holds for a whole
	// renewal, so that in two of them a look each millisecond sees it.
	for end := time.Now().Add(2 * to.cfg.Renew); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !all() {
			t.Fatal("a fresh leader has durable publishes taken before it knows")
		}
	}
}

func TestNobodyDiesWithoutRoom(t *testing.T) {
	c, d := newRoomCluster(t, 3)
	for _, n := range c.nodes {
		d.set(n, RoomNone)
	}
	eventually(t, "no leases", func() bool { return !c.nodes[0].Leased() && !c.nodes[1].Leased() && !c.nodes[2].Leased() })
	for _, n := range c.nodes {
		d.set(n, RoomEnough)
	}
	c.leased()
	for i, n := range c.nodes {
		n.ack(t, "again", i)
		if n.fatal.Load() != nil {
			t.Errorf("%s ended: %v", n.name, *n.fatal.Load())
		}
	}
	sameState(c)
}

// A leader whose disk hangs cannot step down, because its raft waits for the
// disk. The others must not wait for the end of its process.
func TestHungLeaderIsReplaced(t *testing.T) {
	d := 8 * time.Second // of the store; a quarter of it is the leader's patience
	c := newClusterWith(t, 3, func(cfg *Config) { cfg.StoreDeadline = d }, nil)
	c.leased()
	old := c.leader()
	others := c.followers()
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		_ = old.store.write("append", func() error { entered <- struct{}{}; <-release; return nil })
	}()
	<-entered
	start := time.Now()
	eventually(t, "another leads", func() bool { return others[0].IsLeader() || others[1].IsLeader() })
	took := time.Since(start)
	if took > d {
		t.Errorf("another led after %v", took)
	}
	if old.fatal.Load() != nil {
		t.Errorf("the process would have ended before: %v", *old.fatal.Load())
	}
	t.Logf("another leads after %v", took)
	close(release)
	<-hung
	eventually(t, "the old leader serves again", func() bool { return old.Leased() && !old.IsLeader() })
}

// After its log failed a node holds no lease, even if its process cannot end.
func TestNoLeaseAfterAFailedStore(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	n, leader := c.followers()[0], c.leader()
	_ = n.store.fail(errStalled)
	if n.Leased() {
		t.Error("a lease after the log failed")
	}
	eventually(t, "the leader ends the incarnation", func() bool { return leader.fsm.incarnation(n.name) == 0 })
	// Before an election: raft panics where it cannot store a term.
	n.halt(false)
}
