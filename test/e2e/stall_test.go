//go:build linux

package e2e

import (
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestStalledNode stops a node's process under load, for less and for longer than
// a lease, and lets it go on: what was acknowledged, there and elsewhere, is not
// lost, and what it had under way does not come late or twice.
func TestStalledNode(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name  string
		which func(leader, publisher, subscriber *Node) *Node
		stall time.Duration
		qos   byte
	}{
		{"subscriber's follower, 2 s", func(_, _, s *Node) *Node { return s }, 2 * time.Second, 1},
		{"subscriber's follower, 7 s", func(_, _, s *Node) *Node { return s }, 7 * time.Second, 1},
		{"publisher's follower, 2 s", func(_, p, _ *Node) *Node { return p }, 2 * time.Second, 1},
		{"publisher's follower, 7 s", func(_, p, _ *Node) *Node { return p }, 7 * time.Second, 1},
		{"publisher's follower, 7 s, QoS 2", func(_, p, _ *Node) *Node { return p }, 7 * time.Second, 2},
		{"leader, 7 s", func(l, _, _ *Node) *Node { return l }, 7 * time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			leader, followers := c.Leader(), c.Followers()
			publisher, subscriber := followers[0], followers[1]
			stallUnderLoad(t, c, tt.which(leader, publisher, subscriber), publisher, subscriber, tt.stall, tt.qos)
		})
	}
}

func stallUnderLoad(t *testing.T, c *Cluster, victim, publisher, subscriber *Node, stall time.Duration, qos byte) {
	run := c.Record(t)
	filter := []rawmqtt.Subscription{rawmqtt.Sub("stall/#", qos)}
	subs := []*history.Subscriber{
		run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(subscriber), Name: t.Name() + "-keep", Expiry: 3600, Subscriptions: filter}),
		run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(victim), Name: t.Name() + "-victims", Expiry: 3600, Subscriptions: filter}),
	}
	load := func(name string, n *Node) *history.Publisher {
		return run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(n), Name: t.Name() + "-" + name, Expiry: 3600, QoS: qos,
			Topics: []string{"stall/" + name}, Rate: 500, Window: 100, Size: 128})
	}
	pubs := []*history.Publisher{load("pub", publisher), load("victims-pub", victim)}
	for _, p := range pubs {
		awaitAcked(t, p, 500, patience)
	}
	run.Mark("stall " + victim.ID)
	victim.Pause()
	time.Sleep(stall) // how long it hangs is the test
	victim.Resume()
	run.Mark("resumed " + victim.ID)
	for _, p := range pubs {
		awaitAcked(t, p, p.Acked()+scaled(500), patience)
	}
	for _, p := range pubs {
		if err := p.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	victim.WaitReady(patience)
	run.Finish(subs...)
	// The hung connection of a stalled node cannot be told at once.
	run.Judge(history.Options{MinAcked: 2000, MinOwed: 2000, TakeoverGrace: stall + 3*time.Second})
	c.WaitWhole()
}
