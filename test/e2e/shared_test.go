//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// group is a shared subscription with one member on the node that goes, and two on
// others.
type group struct {
	t          *testing.T
	name       string
	persistent bool // the member that goes
	comesBack  bool // at once, on another node
	qos        byte
	gone       *Client
	stay       []*Client
	sent       []string
	// Of the member that goes: what it got, and what it acknowledged of that.
	got, acked []string
	ids        map[string]uint16
}

func (g *group) topic() string { return "group/" + g.name }

// start subscribes the members, publishes and reads what comes to the one that
// goes, of which it acknowledges the first half at QoS 1 and nothing at QoS 2.
func (g *group) start(victim *Node, others []*Node, count int) {
	g.t.Helper()
	member := func(n *Node, id string, keep bool) *Client {
		o := clean(g.name + id)
		if keep {
			o = persistent(g.name+id, 3600)
		}
		c := n.Connect(o)
		c.Sub(rawmqtt.Sub("$share/g/"+g.topic(), g.qos))
		return c
	}
	g.gone = member(victim, "-gone", g.persistent)
	g.gone.AutoAck = false
	g.stay = []*Client{member(others[0], "-clean", false), member(others[1], "-kept", true)}
	p := others[0].Connect(clean(g.name + "-publisher"))
	for i := range count {
		g.sent = append(g.sent, fmt.Sprint(i))
		p.Pub(g.topic(), g.qos, false, g.sent[i])
	}
	p.Disconnect(0)
	g.read()
	if g.qos == 1 {
		g.acked = g.got[:len(g.got)/2]
	}
	for _, payload := range g.acked {
		if err := g.gone.Send(rawmqtt.AckPacket(5, rawmqtt.PUBACK, g.ids[payload], 0)); err != nil {
			g.t.Fatal(err)
		}
	}
	if len(g.got) < 4 {
		g.t.Fatalf("%s: the member that goes got %d of %d messages", g.name, len(g.got), count)
	}
	g.gone.Quiet(quiet) // acknowledgements are gathered for up to 75 ms
}

// read takes what comes until all that was sent has come to one of the members.
func (g *group) read() {
	g.t.Helper()
	g.ids = map[string]uint16{}
	members := append([]*Client{g.gone}, g.stay...)
	seen := map[string]int{}
	deadline := time.Now().Add(patience)
	for total := 0; total < len(g.sent); {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: %d of %d messages came", g.name, total, len(g.sent))
		}
		for i, c := range members {
			m, err := c.Read(10 * time.Millisecond)
			if err != nil || m.Type != rawmqtt.PUBLISH {
				continue
			}
			total++
			seen[string(m.Payload)]++
			if i == 0 {
				g.got = append(g.got, string(m.Payload))
				g.ids[string(m.Payload)] = m.ID
			}
		}
	}
	exactlyOnce(g.t, "the members of "+g.name, g.sent, seen)
}

// judge says what each message must have become when the member had gone.
func (g *group) judge(others []*Node) {
	g.t.Helper()
	want := map[string]bool{}
	if g.qos == 1 && !g.comesBack {
		for _, s := range g.got[len(g.acked):] {
			want[s] = true
		}
	}
	got, shares := collectAll(g.stay, len(want))
	exactlyOnce(g.t, "the members of "+g.name+" that stay", slices.Sorted(maps.Keys(want)), got)
	g.t.Logf("%s: of %d messages %d came to the member that went, which acknowledged %d; to the others %v",
		g.name, len(g.sent), len(g.got), len(g.acked), shares)
	if !g.comesBack {
		g.returns(others[1])
	}
	for _, c := range g.stay {
		c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
	}
}

// returns has the member that went come back: it gets what stayed with it.
func (g *group) returns(n *Node) {
	g.t.Helper()
	o := clean(g.name + "-gone")
	if g.persistent {
		o = persistent(g.name+"-gone", 3600)
	}
	var c *Client
	await(g.t, patience, func() bool {
		again, ack, err := n.TryConnect(o)
		c = again
		return err == nil && ack.Reason == 0
	}, func() string { return g.name + ": the member cannot come back" })
	if c.Present != g.persistent {
		g.t.Errorf("%s: session present %v", g.name, c.Present)
	}
	var want []string
	if g.persistent && (g.qos == 2 || g.comesBack) {
		want = g.got[len(g.acked):]
	}
	for i, p := range c.Messages(len(want), patience) {
		// In the order in which they came first; at QoS 2 with the same ids.
		if string(p.Payload) != want[i] || !p.Dup || g.qos == 2 && p.ID != g.ids[want[i]] {
			g.t.Errorf("%s: got %v, want %s with id %d", g.name, p, want[i], g.ids[want[i]])
		}
	}
	c.Quiet(quiet)
	c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
}

// TestSharedMemberGoes takes a member of shared subscriptions away: at QoS 1 the
// others get what it did not acknowledge [MQTT-4.8.2-4], unless it is back at
// once; at QoS 2 its messages stay with it [MQTT-4.8.2-5].
func TestSharedMemberGoes(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name   string
		victim func() *Node
		kill   bool
	}{
		{"connection", func() *Node { return c.Followers()[0] }, false},
		{"follower", func() *Node { return c.Followers()[0] }, true},
		{"leader", func() *Node { return c.Leader() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			victim := tt.victim()
			var others []*Node
			for _, n := range c.Nodes {
				if n != victim {
					others = append(others, n)
				}
			}
			groups := []*group{
				{t: t, name: tt.name + "-kept-1", persistent: true, qos: 1},
				{t: t, name: tt.name + "-clean-1", qos: 1},
				{t: t, name: tt.name + "-kept-2", persistent: true, qos: 2},
				{t: t, name: tt.name + "-clean-2", qos: 2},
			}
			if tt.kill {
				// Before the cluster has noticed that the node is dead.
				groups = append(groups, &group{t: t, name: tt.name + "-back-1", persistent: true, comesBack: true, qos: 1},
					&group{t: t, name: tt.name + "-back-2", persistent: true, comesBack: true, qos: 2})
			}
			for _, g := range groups {
				g.start(victim, others, scaled(40))
			}
			victim.Connect(willed("shared-"+tt.name, 0, 0))
			witness := witnesses(others[0])[0]
			start := time.Now()
			if tt.kill {
				victim.Kill()
			}
			for _, g := range groups {
				g.gone.Close()
				if g.comesBack {
					g.returns(others[1])
				}
			}
			if tt.kill {
				// The cluster gives the dead node's sessions up when its lease is over.
				witness.Messages(1, patience)
				t.Logf("the node was given up after %v", time.Since(start).Round(time.Millisecond))
			}
			for _, g := range groups {
				g.judge(others)
			}
			witness.Disconnect(0)
			if tt.kill {
				victim.Restart()
				c.WaitWhole()
			}
		})
	}
}
