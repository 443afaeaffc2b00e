//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestAllKilled kills all nodes at once and starts them in every order: the
// cluster comes back by itself, with its retained messages and queues.
func TestAllKilled(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	const count = 300
	for round, order := range [][]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			c.In(t)
			id := fmt.Sprintf("all-%d", round)
			s := c.Nodes[0].Connect(persistent(id, 3600))
			s.Sub(rawmqtt.Sub(id+"/#", 1))
			s.Disconnect(0)
			p := c.Nodes[1].Connect(clean(id + "-pub"))
			var sent []string
			for i := range count {
				sent = append(sent, fmt.Sprint(i))
				p.Pub(id+"/queue", 1, i == count-1, sent[i])
			}
			for _, n := range c.Nodes {
				n.Kill()
			}
			start := time.Now()
			for i, at := range order {
				c.Nodes[at].Start()
				if i == 0 {
					// One of three is a minority: it must say so and serve nobody.
					c.Nodes[at].WaitReadyz(http.StatusServiceUnavailable, patience)
				}
			}
			took := c.WaitWhole()
			t.Logf("whole %v after the last start, %v after the first", took.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
			again := c.Nodes[order[0]].Connect(persistent(id, 3600))
			if !again.Present {
				t.Error("the session is gone")
			}
			got := again.Messages(count, patience)
			for i, m := range got {
				if string(m.Payload) != sent[i] {
					t.Fatalf("message %d of the queue is %q", i, m.Payload)
				}
			}
			again.Quiet(quiet)
			again.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
			for _, n := range c.Nodes {
				if got := retained(t, n, id+"/#"); got[id+"/queue"] != fmt.Sprint(count-1) {
					t.Errorf("%s has %v retained", n.ID, got)
				}
			}
		})
	}
}

// TestPartition isolates a node for longer than its lease under load: it says so,
// acknowledges nothing, accepts nobody, sends its clients away and comes back
// without an operator.
func TestPartition(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		victim func(c *Cluster) *Node
	}{
		{"follower", func(c *Cluster) *Node { return c.Followers()[0] }},
		{"leader", func(c *Cluster) *Node { return c.Leader() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCluster(t, Options{Proxy: true, Flags: []string{"--drain.isolated-after", "3s"}})
			partition(t, c, tt.victim(c))
		})
	}
}

func partition(t *testing.T, c *Cluster, victim *Node) {
	var other *Node
	for _, n := range c.Nodes {
		if n != victim {
			other = n
		}
	}
	run := c.Record(t)
	sub := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(other), Name: "sub", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("cut/#", 1)}})
	pubs := map[string]*history.Publisher{}
	for name, n := range map[string]*Node{"inside": victim, "outside": other} {
		pubs[name] = run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(n), Name: name, Expiry: 3600, QoS: 1,
			Topics: []string{"cut/" + name}, Rate: 300, Window: 100, Size: 64})
		awaitAcked(t, pubs[name], 200, patience)
	}
	idle := victim.Connect(persistent("idle", 3600))

	run.Mark("isolate " + victim.ID)
	start := time.Now()
	c.Net.Isolate(victim)
	t.Logf("%s is isolated; /readyz says 503 after %v", victim.ID, victim.WaitReadyz(http.StatusServiceUnavailable, 10*time.Second).Round(time.Millisecond))
	if a, ack, err := victim.TryConnect(clean("refused")); err == nil && ack.Reason == 0 {
		t.Error("an isolated node accepted a CONNECT")
		a.Close()
	} else {
		t.Logf("it answers a CONNECT with %v, %v", ack, err)
	}
	got, err := idle.AwaitClose(15 * time.Second)
	if err != nil {
		t.Error(err)
	}
	t.Logf("it sent its clients away after %v with %v", time.Since(start).Round(time.Millisecond), got)
	// Well beyond a lease and what the leader waits before it declares a node down.
	await(t, patience, func() bool { return time.Since(start) > 9*time.Second }, func() string { return "time passes" })
	before := pubs["inside"].Acked()
	awaitAcked(t, pubs["inside"], before+200, patience) // by now on another node

	run.Mark("heal")
	start = time.Now()
	c.Net.Heal()
	t.Logf("ready %v after the link is whole", victim.WaitReadyz(http.StatusOK, patience).Round(time.Millisecond))
	c.WaitWhole()
	t.Logf("the cluster is whole after %v", time.Since(start).Round(time.Millisecond))
	back := victim.Connect(persistent("idle", 3600))
	if !back.Present {
		t.Error("the session of the client that was sent away is gone")
	}
	for _, p := range pubs {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	run.Finish(sub)
	run.Judge(history.Options{MinAcked: 1000, MinOwed: 1000})
}

// TestRollingRestart restarts one node after the other in good order under load.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	run := c.Record(t)
	var subs []*history.Subscriber
	var pubs []*history.Publisher
	for i, n := range c.Nodes {
		subs = append(subs, run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(n), Name: fmt.Sprintf("sub-%d", i), Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("rolling/#", byte(1+i%2))}}))
		pubs = append(pubs, run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(n), Name: fmt.Sprintf("pub-%d", i), Expiry: 3600, QoS: byte(1 + i%2),
			Topics: []string{fmt.Sprintf("rolling/%d", i)}, Rate: 200, Window: 50, Size: 128}))
	}
	for range scaled(1) {
		for _, n := range c.Nodes {
			for _, p := range pubs {
				awaitAcked(t, p, p.Acked()+400, patience)
			}
			run.Mark("stop " + n.ID)
			start := time.Now()
			n.Stop()
			stopped := time.Since(start)
			run.Restart(n.TLS)
			n.Restart()
			t.Logf("%s stopped in %v, ready again after %v, cluster whole after %v", n.ID, stopped.Round(time.Millisecond),
				(time.Since(start) - stopped).Round(time.Millisecond), c.WaitWhole().Round(time.Millisecond))
		}
	}
	for _, p := range pubs {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	run.Finish(subs...)
	run.Judge(history.Options{MinAcked: 3000, MinOwed: 9000, MaxSilence: 3 * time.Second})
}
