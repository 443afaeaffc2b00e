//go:build linux

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestQueueSurvives queues messages for a session that is away, kills a node and
// resumes the session on another: everything is there, in order.
func TestQueueSurvives(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name   string
		victim func(leader, last, other *Node) *Node
	}{
		{"leader", func(l, _, _ *Node) *Node { return l }},
		{"the session's last node", func(_, s, _ *Node) *Node { return s }},
		{"another follower", func(_, _, o *Node) *Node { return o }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			leader, followers := c.Leader(), c.Followers()
			last, other := followers[0], followers[1]
			victim := tt.victim(leader, last, other)
			resumeOn := leader
			if victim == leader {
				resumeOn = other
			}
			queueAndKill(t, c, victim, last, resumeOn, other)
		})
	}
}

func queueAndKill(t *testing.T, c *Cluster, victim, last, resumeOn, publishOn *Node) {
	count := scaled(10_000)
	run := c.Record(t)
	at := c.Endpoint()
	at.Addresses = []string{last.TLS, resumeOn.TLS}
	sub := run.Subscribe(history.SubscriberConfig{Endpoint: at, Name: t.Name() + "-sub", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("queue/#", 1)}})
	sub.Disconnect()
	start := time.Now()
	pub := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(publishOn), Name: t.Name() + "-pub", Expiry: 3600, QoS: 1,
		Topics: []string{"queue/a", "queue/b"}, Window: 500, Size: 256, Count: count})
	run.Wait(pub, 4*patience)
	t.Logf("%d messages queued in %v; kill %s, resume on %s", count, time.Since(start).Round(time.Millisecond), victim.ID, resumeOn.ID)
	run.KillNode(victim)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	start = time.Now()
	if err := sub.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	resumed := time.Since(start)
	if err := sub.AwaitCount(ctx, count); err != nil {
		t.Error(err)
	}
	t.Logf("resumed after %v, all there after %v", resumed.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	run.Finish(sub)
	report := run.Judge(history.Options{MinAcked: count, MinOwed: count})
	if report.Stats.Present == 0 {
		t.Error("the session did not resume")
	}
	victim.Restart()
	c.WaitWhole()
}
