//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// token makes a join token.
func (n *Node) token(uses int) string {
	n.t.Helper()
	return strings.TrimSpace(n.CLI("token", "create", "--uses", fmt.Sprint(uses), "--quiet"))
}

// grow adds count nodes at once.
func (c *Cluster) grow(count int) (added []*Node) {
	c.t.Helper()
	token := c.Leader().token(count)
	for range count {
		n := c.add()
		if err := c.Join(n, token); err != nil {
			c.t.Fatal(err)
		}
		n.Start()
		added = append(added, n)
	}
	return added
}

// awaitVoters waits until exactly so many of so many members vote, by the word of
// the leader.
func (c *Cluster) awaitVoters(voting, members int) {
	c.t.Helper()
	var last string
	await(c.t, patience, func() bool {
		s, err := c.Leader().Status()
		n := 0
		for _, m := range s.Members {
			if m.Votes() {
				n++
			}
		}
		last = fmt.Sprintf("%d of %d vote: %+v %v", n, len(s.Members), s.Members, err)
		return err == nil && n == voting && len(s.Members) == members
	}, func() string { return fmt.Sprintf("not %d voters of %d members: %s", voting, members, last) })
}

// underLoad publishes and subscribes through the first node while change changes
// the members, and judges.
func (c *Cluster) underLoad(t *testing.T, stays *Node, change func(run *Run)) {
	run := c.Record(t)
	sub := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(stays), Name: t.Name() + "-sub", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("members/#", 1)}})
	pub := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(stays), Name: t.Name() + "-pub", Expiry: 3600, QoS: 1,
		Topics: []string{"members/a"}, Rate: 200, Window: 50, Size: 64})
	awaitAcked(t, pub, 200, patience)
	change(run)
	awaitAcked(t, pub, pub.Acked()+200, patience)
	if err := pub.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	run.Finish(sub)
	run.Judge(history.Options{MinAcked: 400, MinOwed: 400})
}

// TestGrowAndShrink goes from one node to three, five, and down to one, under load:
// always an odd number votes in the end, and no step stops the cluster.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 1})
	first := c.Nodes[0]
	c.underLoad(t, first, func(*Run) {
		one := c.grow(1)
		one[0].WaitReady(patience)
		c.awaitVoters(1, 2)
		c.grow(1)
		c.awaitVoters(3, 3)
		c.grow(2)
		c.awaitVoters(5, 5)
		for i, step := range []struct{ voting, members int }{{3, 4}, {3, 3}, {1, 2}, {1, 1}} {
			// The leader goes second; the node with the clients stays.
			n := c.Nodes[len(c.Nodes)-1-i]
			if leader := c.Leader(); i == 1 && leader != first {
				n = leader
			}
			if !n.Running() || n == first {
				for _, other := range c.Running() {
					if other != first {
						n = other
					}
				}
			}
			n.CLI("leave")
			n.AwaitExit(patience)
			c.awaitVoters(step.voting, step.members)
		}
	})
}

// TestLeaderOfTwoLeaves: the one that votes goes, and the other one takes over
// with all data.
func TestLeaderOfTwoLeaves(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 2})
	leader := c.Leader()
	other := c.Followers()[0]
	leader.Connect(clean("pub")).Pub("two/a", 1, true, "kept")
	leader.CLI("leave")
	leader.AwaitExit(patience)
	c.awaitVoters(1, 1)
	other.WaitReady(patience)
	if got := retained(t, other, "#"); got["two/a"] != "kept" {
		t.Errorf("retained: %v", got)
	}
}

// TestLeaveWhileOneIsDown: with one of three down the others are both needed, so
// neither may go.
func TestLeaveWhileOneIsDown(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	followers := c.Followers()
	followers[0].Kill()
	out, err := followers[1].TryCLI("", "leave")
	if err == nil || !strings.Contains(err.Error(), "because "+followers[0].ID+" is down") {
		t.Errorf("leave: %q, %v", out, err)
	}
	t.Log(err)
	c.Leader().Connect(clean("pub")).Pub("down/a", 1, false, "x")
	followers[0].Restart()
	c.WaitWhole()
}

// TestReplace gives a dead node's place to a new one, by the same name and by
// another, under load.
func TestReplace(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name string
		same bool
	}{{"same name, empty disk", true}, {"another name", false}} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			followers := c.Followers()
			dead, stays := followers[0], followers[1]
			c.underLoad(t, stays, func(run *Run) {
				token := stays.token(3)
				fresh := dead
				if !tt.same {
					fresh = c.add()
				}
				join := func(extra ...string) error {
					args := append([]string{"join", stays.Advertise, "--token", token}, fresh.flags(nil)...)
					_, err := command("", append(args, extra...)...)
					return err
				}
				if !tt.same {
					if err := join("--replace", dead.ID); err == nil || !strings.Contains(err.Error(), "is up") {
						t.Fatalf("a node that is up was replaced: %v", err)
					}
					if err := join("--replace", "nobody"); err == nil || !strings.Contains(err.Error(), "no member nobody") {
						t.Fatalf("nobody was replaced: %v", err)
					}
				}
				run.Kill(dead.TLS)
				dead.Kill()
				if tt.same {
					if err := os.Rename(dead.Dir, dead.Dir+".old"); err != nil {
						t.Fatal(err)
					}
					if out, err := dead.TryCLI("", "run"); err == nil || !strings.Contains(err.Error(), "holds no node") {
						t.Fatalf("a node without its disk runs: %q %v", out, err)
					}
					if err := join(); err == nil || !strings.Contains(err.Error(), "--replace "+dead.ID) {
						t.Fatalf("a node without its disk joins as if it were new: %v", err)
					}
				}
				await(t, patience, func() bool { return join("--replace", dead.ID) == nil },
					func() string { return fmt.Sprintf("the dead node is not replaced: %v", join("--replace", dead.ID)) })
				if err := join("--replace", dead.ID); err != nil {
					t.Errorf("run again: %v", err)
				}
				fresh.Start()
				c.awaitVoters(3, 3)
				fresh.WaitReady(patience)
				if tt.same {
					return
				}
				// The one that was replaced comes back: nobody hears it.
				dead.Start()
				awaitLog(t, dead, "was removed, replaced")
				if code, _ := dead.Ready(); code == 200 {
					t.Error("a replaced node is ready")
				}
				dead.Kill()
				c.awaitVoters(3, 3)
			})
			if !tt.same {
				for i, n := range c.Nodes {
					if n == dead {
						c.Nodes = append(c.Nodes[:i:i], c.Nodes[i+1:]...)
					}
				}
			}
			c.WaitWhole()
		})
	}
}

// TestJoinBehindTheOwnLeave: a node that left and joins again, with a new disk, is
// caught up from before its leave, when it was a member still, and stays.
func TestJoinBehindTheOwnLeave(t *testing.T) {
	t.Parallel()
	// One snapshot, of the leader, before the leave, and none until the node is back.
	c := NewCluster(t, Options{Flags: []string{"--raft.snapshot-interval", "500ms", "--raft.snapshot-threshold", "3000", "--raft.trailing-logs", "10"}})
	leader, n := c.Leader(), c.Followers()[0]
	pub := leader.Connect(clean("pub"))
	await(t, patience, func() bool {
		for i := range 200 {
			pub.Pub("own/leave", 1, false, fmt.Sprint(i))
		}
		all, err := os.ReadDir(filepath.Join(leader.Dir, "raft", "snapshots"))
		return err == nil && len(all) > 0
	}, func() string { return "the leader has no snapshot" })
	// Under load, so that what it is told of the leave comes in several pieces.
	c.underLoad(t, leader, func(*Run) {
		n.CLI("leave")
		n.AwaitExit(patience)
		if err := os.Rename(n.Dir, n.Dir+".old"); err != nil {
			t.Fatal(err)
		}
		if err := c.Join(n, leader.token(1)); err != nil {
			t.Fatal(err)
		}
		n.Start()
		n.WaitReady(patience)
	})
	c.WaitWhole()
}
