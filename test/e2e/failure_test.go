//go:build linux

package e2e

import (
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// workingAgain is the bar: how long after its reconnect a client may wait until
// it works.
const workingAgain = 3 * time.Second

// TestKillNode kills a node under 1,000 messages a second of QoS 1: the leader,
// the publisher's, the persistent subscriber's.
func TestKillNode(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name   string
		victim func(leader, publisher, subscriber *Node) *Node
		qos    byte
	}{
		{"leader", func(l, _, _ *Node) *Node { return l }, 1},
		{"publisher's", func(_, p, _ *Node) *Node { return p }, 1},
		{"subscriber's", func(_, _, s *Node) *Node { return s }, 1},
		{"publisher's, QoS 2", func(_, p, _ *Node) *Node { return p }, 2},
		{"subscriber's, QoS 2", func(_, _, s *Node) *Node { return s }, 2},
		{"leader, QoS 2", func(l, _, _ *Node) *Node { return l }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			leader, followers := c.Leader(), c.Followers()
			victim := tt.victim(leader, followers[0], followers[1])
			count := 10_500
			if tt.qos == 2 {
				count = 4_000
			}
			killUnderLoad(t, c, victim, followers[0], followers[1], tt.qos, scaled(count))
		})
	}
}

// killUnderLoad runs the load, kills the victim in its midst and judges.
func killUnderLoad(t *testing.T, c *Cluster, victim, publisher, subscriber *Node, qos byte, count int) {
	const rate = 1000
	run := c.Record(t)
	sub := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(subscriber), Name: t.Name() + "-sub", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("load/#", qos)}})
	pub := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(publisher), Name: t.Name() + "-pub", Expiry: 3600, QoS: qos,
		Topics: []string{"load/a", "load/b", "load/c"}, Rate: rate, Window: 200, Size: 128, Count: count})
	awaitAcked(t, pub, count/3, time.Duration(count/rate)*time.Second+patience)
	t.Logf("kill %s", victim.ID)
	run.KillNode(victim)
	run.Wait(pub, time.Duration(count/rate)*time.Second+patience)
	run.Finish(sub)
	run.Judge(history.Options{MinAcked: count - count/22, MinOwed: count - count/22})
	kill := run.fault(history.Killed)
	for _, who := range []struct {
		name string
		kind history.Kind
	}{{t.Name() + "-pub", history.PublishAcked}, {t.Name() + "-sub", history.Received}} {
		outage, again := run.Gap(who.name, kill, who.kind)
		t.Logf("%s: at most %v without %q around the kill, working %v after reconnecting", who.name, outage.Round(time.Millisecond), who.kind, again.Round(time.Millisecond))
		if again > workingAgain {
			t.Errorf("%s worked only %v after reconnecting, at most %v is allowed", who.name, again, workingAgain)
		}
	}
	victim.Restart()
	c.WaitWhole()
}
