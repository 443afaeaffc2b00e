//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestTakeover connects with a client id on one node and again on another: the
// first connection ends at once, in MQTT 5 with 0x8E.
func TestTakeover(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, version := range []byte{3, 4, 5} {
		for _, keep := range []bool{false, true} {
			for i, first := range c.Nodes {
				second := c.Nodes[(i+1)%len(c.Nodes)]
				t.Run(fmt.Sprintf("v%d, persistent %t, %s to %s", version, keep, first.ID, second.ID), func(t *testing.T) {
					c.In(t)
					o := rawmqtt.Connect{Version: version, ClientID: fmt.Sprintf("taken-%d-%t-%d", version, keep, i), CleanStart: !keep}
					if keep && version == 5 {
						o.Properties = []rawmqtt.Property{rawmqtt.Int(rawmqtt.SessionExpiry, 60)}
					}
					a := first.Connect(o)
					start := time.Now()
					b := second.Connect(o)
					// The CONNACK of MQTT 3.1 cannot tell.
					if want := keep && version > 3; b.Present != want {
						t.Errorf("session present is %t after a takeover, want %t", b.Present, want)
					}
					kicked(t, a, version)
					t.Logf("taken over in %v", time.Since(start).Round(time.Millisecond))
					if err := b.Ping(); err != nil {
						t.Errorf("the connection that took over: %v", err)
					}
					b.Disconnect(0)
				})
			}
		}
	}
}

// kicked fails unless the server closes the connection, in MQTT 5 after a
// DISCONNECT that names the takeover.
func kicked(t *testing.T, c *Client, version byte) {
	t.Helper()
	got, err := c.AwaitClose(5 * time.Second)
	if err != nil {
		t.Fatalf("the first connection: %v", err)
	}
	reason := byte(0)
	for _, p := range got {
		if p.Type == rawmqtt.DISCONNECT {
			reason = p.Reason
		}
	}
	if version == 5 && reason != history.TakenOver {
		t.Errorf("the first connection got %v, not a DISCONNECT with 0x8E", got)
	}
}

// TestTakeoverPingPong takes a client id over again and again across the nodes; one
// connection is left, and it works.
func TestTakeoverPingPong(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("persistent %t", keep), func(t *testing.T) {
			c.In(t)
			o := clean("pingpong")
			if keep {
				o = persistent("pingpong-keep", 60)
			}
			count := scaled(50)
			var all []*Client
			start := time.Now()
			for i := range count {
				all = append(all, c.Nodes[i%len(c.Nodes)].Connect(o))
			}
			took := time.Since(start)
			for _, a := range all[:count-1] {
				kicked(t, a, 5)
			}
			left := all[count-1]
			left.Sub(rawmqtt.Sub("pingpong", 1))
			p := c.Nodes[0].Connect(clean("pingpong-pub"))
			p.Pub("pingpong", 1, false, "once")
			exactlyOnce(t, "the one that is left", []string{"once"}, collect(left, 1))
			p.Disconnect(0)
			if n := connected(c); n != 1 {
				t.Errorf("%d clients are connected, want 1", n)
			}
			left.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
			t.Logf("%d takeovers in %v", count-1, took.Round(time.Millisecond))
		})
	}
}

// TestTakeoverStorm connects with one client id on all nodes at the same time: in
// the end there is one connection.
func TestTakeoverStorm(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	const clients = 30
	var mu sync.Mutex
	var up []*Client
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			// One that loses the race may get a DISCONNECT in place of a CONNACK.
			a, ack, err := c.Nodes[i%len(c.Nodes)].TryConnect(persistent("storm", 60))
			if err == nil && ack.Reason == 0 {
				mu.Lock()
				defer mu.Unlock()
				up = append(up, a)
			}
		})
	}
	wg.Wait()
	alive := 0
	for _, a := range up {
		if _, err := a.AwaitClose(time.Second); errors.Is(err, rawmqtt.ErrTimeout) {
			alive++
		}
	}
	t.Logf("%d of %d got a CONNACK, %d is left", len(up), clients, alive)
	if alive != 1 {
		t.Errorf("%d connections with one client id are left, want 1", alive)
	}
}

// connected is how many clients the nodes say are connected, once they have
// noticed who left.
func connected(c *Cluster) (n int) {
	c.t.Helper()
	deadline := time.Now().Add(2 * time.Second)
	for {
		n = 0
		s, err := c.Nodes[0].Status()
		for _, m := range s.Members {
			n += m.Clients
		}
		if err == nil && n == 1 || time.Now().After(deadline) {
			return n
		}
	}
}
