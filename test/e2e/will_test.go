//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// willed is a CONNECT with a will, delayed by delay seconds, and a session of
// expiry seconds.
func willed(id string, delay, expiry uint32) rawmqtt.Connect {
	o := persistent(id, expiry)
	o.Will = &rawmqtt.Will{Topic: "will/" + id, Payload: []byte("gone"), QoS: 1}
	if delay > 0 {
		o.Will.Properties = []rawmqtt.Property{rawmqtt.Int(rawmqtt.WillDelay, delay)}
	}
	return o
}

// witnesses subscribe to all wills on the given nodes.
func witnesses(nodes ...*Node) (out []*Client) {
	for _, n := range nodes {
		w := n.Connect(clean("witness-" + n.ID))
		w.Sub(rawmqtt.Sub("will/#", 1))
		out = append(out, w)
	}
	return out
}

// once fails unless each witness sees the will of id, no sooner than after from
// and no later than after to, and then nothing more.
func once(t *testing.T, id string, seen []*Client, since time.Time, from, to time.Duration) {
	t.Helper()
	for _, w := range seen {
		p := w.Messages(1, time.Until(since.Add(to)))[0]
		if after := time.Since(since); after < from {
			t.Errorf("the will of %s came after %v, not before %v was allowed", id, after, from)
		}
		if p.Topic != "will/"+id {
			t.Errorf("got %v, not the will of %s", p, id)
		}
	}
	t.Logf("the will of %s came after %v", id, time.Since(since).Round(time.Millisecond))
	for _, w := range seen {
		w.Quiet(quiet)
	}
}

// TestWill has connections end in every way there is.
func TestWill(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	seen := witnesses(c.Nodes...)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	const soon = 3 * time.Second

	t.Run("connection lost", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("lost", 0, 0)).Close()
		once(t, "lost", seen, time.Now(), 0, soon)
	})
	t.Run("connection lost, session stays", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("stays", 0, 60)).Close()
		once(t, "stays", seen, time.Now(), 0, soon)
	})
	t.Run("DISCONNECT", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("leaves", 0, 0)).Disconnect(0)
		seen[1].Quiet(time.Second)
	})
	t.Run("DISCONNECT with will", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("with", 0, 0)).Disconnect(4)
		once(t, "with", seen, time.Now(), 0, soon)
	})
	t.Run("delayed", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("delayed", 2, 60)).Close()
		once(t, "delayed", seen, time.Now(), 1900*time.Millisecond, 2*time.Second+soon)
	})
	t.Run("session ends before the delay", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("ends", 60, 1)).Close()
		once(t, "ends", seen, time.Now(), 900*time.Millisecond, time.Second+soon)
	})
	t.Run("cancelled by a reconnect elsewhere", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("back", 2, 60)).Close()
		back := n2.Connect(willed("back", 2, 60))
		for _, w := range seen {
			w.Quiet(1200 * time.Millisecond)
		}
		back.Disconnect(0) // else the end of the test would fire it
	})
	t.Run("takeover elsewhere", func(t *testing.T) {
		c.In(t)
		// [MQTT-3.1.4-3]: the will of the connection that is taken over counts, for a
		// session that resumes only if it has no delay.
		n1.Connect(willed("over", 0, 60))
		start := time.Now()
		second := n2.Connect(willed("over", 0, 60))
		once(t, "over", seen, start, 0, soon)
		second.Disconnect(0)
	})
	t.Run("clean takeover elsewhere ends the session", func(t *testing.T) {
		c.In(t)
		n1.Connect(willed("clean", 60, 60))
		start := time.Now()
		n2.Connect(clean("clean"))
		once(t, "clean", seen, start, 0, soon)
	})
}

// TestWillOfKilledNode kills the node of clients with wills: each fires once, on
// every node that is left, but for those that reconnect in time.
func TestWillOfKilledNode(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name   string
		victim func() *Node
	}{
		{"follower", func() *Node { return c.Followers()[0] }},
		{"leader", func() *Node { return c.Leader() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			victim := tt.victim()
			var left []*Node
			for _, n := range c.Running() {
				if n != victim {
					left = append(left, n)
				}
			}
			seen := witnesses(left...)
			id := "killed-" + tt.name
			victim.Connect(willed(id, 0, 60))
			victim.Connect(willed(id+"-back", 20, 60))
			start := time.Now()
			victim.Kill()
			back := left[0].Connect(willed(id+"-back", 20, 60))
			if !back.Present {
				t.Error("the session that came back is gone")
			}
			once(t, id, seen, start, 0, 20*time.Second)
			for _, w := range seen {
				w.Disconnect(0)
			}
			victim.Restart()
			c.WaitWhole()
			seen = witnesses(c.Nodes...)
			seen[0].Quiet(2 * time.Second)
			for _, w := range append(seen, back) {
				w.Disconnect(0)
			}
		})
	}
}

// TestWillAfterDrain stops a node in good order: the wills of its clients wait for
// them to come back elsewhere, and fire only for those that do not.
func TestWillAfterDrain(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: []string{"--drain.grace", "4s"}})
	victim := c.Followers()[0]
	var left []*Node
	for _, n := range c.Nodes {
		if n != victim {
			left = append(left, n)
		}
	}
	seen := witnesses(left...)
	back, away := victim.Connect(willed("drain-back", 0, 60)), victim.Connect(willed("drain-away", 0, 60))
	start := time.Now()
	victim.Stop()
	for _, d := range []*Client{back, away} {
		got, err := d.AwaitClose(patience)
		if err != nil || len(got) == 0 || got[len(got)-1].Type != rawmqtt.DISCONNECT {
			t.Errorf("a client of a node that stops was sent away with %v, %v; want a DISCONNECT", got, err)
		}
	}
	if again := left[0].Connect(willed("drain-back", 0, 60)); !again.Present {
		t.Error("the session of a drained client is gone")
	}
	once(t, "drain-away", seen, start, 3*time.Second, 15*time.Second)
	if _, err := seen[0].Read(quiet); !errors.Is(err, rawmqtt.ErrTimeout) {
		t.Errorf("want nothing more, got %v", err)
	}
}

// TestWillOfDrainedThatComesAtOnce has clients, whose wills wait for nothing and
// whose sessions end with their connections, come to another node the moment they
// are sent away.
func TestWillOfDrainedThatComesAtOnce(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	victim := c.Followers()[0]
	var left []*Node
	for _, n := range c.Nodes {
		if n != victim {
			left = append(left, n)
		}
	}
	seen := witnesses(left...)
	const clients = 40
	var sent []*Client
	for i := range clients {
		sent = append(sent, victim.Connect(willed(fmt.Sprintf("at-once-%d", i), 0, 0)))
	}
	back := make([]*Client, clients)
	var wg sync.WaitGroup
	for i, d := range sent {
		wg.Go(func() {
			p, err := d.Read(patience)
			if err != nil || p.Type != rawmqtt.DISCONNECT {
				t.Errorf("a client of a node that stops got %v, %v; want a DISCONNECT", p, err)
				return
			}
			again, ack, err := left[i%len(left)].TryConnect(willed(fmt.Sprintf("at-once-%d", i), 0, 0))
			if err != nil || ack.Reason != 0 {
				t.Errorf("a client that was sent away comes back: %v, %v", ack, err)
				return
			}
			back[i] = again
		})
	}
	victim.Stop()
	wg.Wait()
	for _, w := range seen {
		if p, err := w.Read(quiet); !errors.Is(err, rawmqtt.ErrTimeout) {
			t.Errorf("a client that came back at once was missed: %v, %v", p, err)
		}
	}
	for _, b := range back {
		if b != nil {
			b.Disconnect(0)
		}
	}
}

// TestDrainOff drains a node and has it serve again: it accepts clients by the time
// it says that it is ready.
func TestDrainOff(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	n := c.Followers()[0]
	n.CLI("drain")
	n.WaitReadyz(http.StatusServiceUnavailable, patience)
	if _, ack, err := n.TryConnect(clean("early")); err == nil && ack.Reason == 0 {
		t.Error("a node that drains accepted a client")
	}
	n.CLI("drain", "--off")
	n.WaitReady(patience)
	n.Connect(clean("late"))
}
