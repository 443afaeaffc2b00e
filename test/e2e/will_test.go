//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"slices"
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

// willCase is one client with a will.
type willCase struct {
	name    string
	version byte
	qos     byte
	retain  bool
	delay   uint32
	expiry  uint32
	// after is how long after the loss of its connection the will fires; never:
	// not at all.
	after time.Duration
	never bool
	// before runs after the client connected and before its connection is lost,
	// back after that.
	before, back func(e *willClient)
}

// willClient is the client of a case in one round.
type willClient struct {
	*willCase
	id, topic string
	c         *Client
	connect   rawmqtt.Connect
	others    []*Node // that are not its own
}

// comesBack connects again to a node, and leaves in good order when the round is
// over.
func (e *willClient) comesBack(n *Node) {
	deadline := time.Now().Add(patience)
	for {
		c, ack, err := n.TryConnect(e.connect)
		if err == nil && ack.Reason == 0 {
			e.c = c
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s does not come back: %v %v", e.id, ack, err)
		}
		time.Sleep(20 * time.Millisecond) // a client's back-off
	}
}

var willCases = []*willCase{
	{name: "q0", version: 5, qos: 0, expiry: 60},
	{name: "q1", version: 5, qos: 1, expiry: 60},
	{name: "q2", version: 5, qos: 2, expiry: 60},
	{name: "v4", version: 4, qos: 1},
	{name: "v4-retained", version: 4, qos: 2, retain: true},
	{name: "retained", version: 5, qos: 1, retain: true, expiry: 60},
	{name: "delayed", version: 5, qos: 1, delay: 2, expiry: 60, after: 2 * time.Second},
	{name: "delayed-retained", version: 5, qos: 2, retain: true, delay: 1, expiry: 0xFFFFFFFF, after: time.Second},
	{name: "session-ends-first", version: 5, qos: 2, delay: 60, expiry: 3, after: 3 * time.Second},
	{name: "session-of-the-connection", version: 5, qos: 1, delay: 60, expiry: 0},
	{name: "said-goodbye", version: 5, qos: 1, expiry: 60, never: true, before: func(e *willClient) { e.c.Disconnect(0) }},
	{name: "v4-said-goodbye", version: 4, qos: 1, never: true, before: func(e *willClient) { e.c.Disconnect(0) }},
	{name: "goodbye-with-will", version: 5, qos: 1, expiry: 60, before: func(e *willClient) { e.c.Disconnect(4) }},
	{name: "denied", version: 5, qos: 1, delay: 1, expiry: 60, never: true},
	{name: "back-in-time", version: 5, qos: 1, delay: 15, expiry: 60, never: true, back: func(e *willClient) { e.comesBack(e.others[0]) }},
}

// TestWillMatrix loses the connections of clients with all kinds of wills, in
// all ways: each will comes exactly once, in time, as it was given, unless its
// client said goodbye, came back, or may not publish it any more.
func TestWillMatrix(t *testing.T) {
	c := NewCluster(t, Options{Proxy: true})
	for _, tt := range []struct {
		name string
		lose func(n *Node, clients []*willClient)
		heal func(n *Node)
		// within is how long it may take until the cluster knows.
		within time.Duration
	}{
		{"connection", func(_ *Node, clients []*willClient) {
			for _, e := range clients {
				e.c.Close()
			}
		}, func(*Node) {}, 2 * time.Second},
		{"node", func(n *Node, _ []*willClient) { n.Kill() }, func(n *Node) { n.Restart() }, 15 * time.Second},
		{"network", func(n *Node, _ []*willClient) { c.Net.Isolate(n) }, func(n *Node) { c.Net.Heal(); n.WaitReady(patience) }, 15 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			victim := c.Followers()[0]
			var others []*Node
			for _, n := range c.Nodes {
				if n != victim {
					others = append(others, n)
				}
			}
			clients := startWills(tt.name, victim, others)
			witness := others[1].Connect(clean("witness-" + tt.name))
			witness.Sub(rawmqtt.Subscription{Filter: "will/" + tt.name + "/#", Options: 2 | 8})
			left := 0
			for _, e := range clients {
				if e.before != nil {
					e.before(e)
					left++
				}
			}
			// A goodbye counts when the node has it in the log, which the client is not
			// told: this is in the log after it.
			await(t, patience, func() bool {
				return victim.Metric("mqcluster_broker_connections") == float64(len(clients)-left)
			}, func() string { return "the node has not noticed who said goodbye" })
			others[0].CLI("acl", "set", "*", "deny publish will/"+tt.name+"/denied", "allow both #")
			seen := make(chan map[string][]willSeen)
			start := time.Now()
			go func() { seen <- witness.wills(start, tt.within+6*time.Second) }()
			tt.lose(victim, clients)
			for _, e := range clients {
				if e.back != nil {
					e.back(e)
				}
			}
			judgeWills(t, clients, <-seen, tt.within)
			for _, e := range clients {
				if e.back != nil {
					e.c.Disconnect(0)
				}
				if e.retain {
					late := others[0].Connect(clean("late-" + e.id))
					late.Sub(rawmqtt.Sub(e.topic, 1))
					if p := late.Messages(1, patience)[0]; !p.Retain || string(p.Payload) != e.id {
						t.Errorf("the retained will of %s is %v", e.id, p)
					}
					late.Disconnect(0)
				}
			}
			tt.heal(victim)
			c.WaitWhole()
			// What a node learns when it is back fires nothing again.
			witness.Quiet(time.Second)
			witness.Disconnect(0)
			others[0].CLI("acl", "set", "*", "allow both #")
		})
	}
}

func willProperties() []rawmqtt.Property {
	return []rawmqtt.Property{
		rawmqtt.Int(rawmqtt.PayloadFormat, 1), rawmqtt.Text(rawmqtt.ContentType, "text/plain"),
		rawmqtt.Text(rawmqtt.ResponseTopic, "will/answer"), rawmqtt.Text(rawmqtt.CorrelationData, "\x00\xff42"),
		rawmqtt.User("b", "1"), rawmqtt.User("a", "2"), rawmqtt.User("b", "3"), rawmqtt.Int(rawmqtt.MessageExpiry, 300),
	}
}

func startWills(round string, at *Node, others []*Node) (out []*willClient) {
	for _, w := range willCases {
		e := &willClient{willCase: w, id: round + "-" + w.name, topic: "will/" + round + "/" + w.name, others: others}
		e.connect = persistent(e.id, w.expiry)
		e.connect.Version = w.version
		e.connect.CleanStart = w.version == 4
		e.connect.Will = &rawmqtt.Will{Topic: e.topic, Payload: []byte(e.id), QoS: w.qos, Retain: w.retain, Properties: willProperties()}
		if w.delay > 0 {
			e.connect.Will.Properties = append(e.connect.Will.Properties, rawmqtt.Int(rawmqtt.WillDelay, w.delay))
		}
		e.c = at.Connect(e.connect)
		out = append(out, e)
	}
	return out
}

type willSeen struct {
	*rawmqtt.Packet
	after time.Duration
}

// wills reads for some time what comes, by topic.
func (c *Client) wills(start time.Time, d time.Duration) map[string][]willSeen {
	out := map[string][]willSeen{}
	for {
		p, err := c.Read(time.Until(start.Add(d)))
		if err != nil {
			if !errors.Is(err, rawmqtt.ErrTimeout) {
				c.t.Errorf("the witness: %v", err)
			}
			return out
		}
		if p.Type == rawmqtt.PUBLISH {
			out[p.Topic] = append(out[p.Topic], willSeen{p, time.Since(start)})
		}
	}
}

func judgeWills(t *testing.T, clients []*willClient, seen map[string][]willSeen, within time.Duration) {
	t.Helper()
	// The cluster knows of all at once: the first will without a delay tells when.
	base := within
	for _, e := range clients {
		if got := seen[e.topic]; len(got) > 0 && e.after == 0 && e.before == nil {
			base = min(base, got[0].after)
		}
	}
	for _, e := range clients {
		got := seen[e.topic]
		want := 1
		if e.never {
			want = 0
		}
		if len(got) != want {
			t.Errorf("the will of %s came %d times, want %d: %v", e.id, len(got), want, got)
			continue
		}
		if e.never {
			continue
		}
		p := got[0]
		if e.before == nil && (p.after < base+e.after-200*time.Millisecond || p.after > base+e.after+2500*time.Millisecond) {
			t.Errorf("the will of %s came after %v, not %v after %v", e.id, p.after, e.after, base)
		}
		if p.QoS != e.qos || p.Retain != e.retain || string(p.Payload) != e.id {
			t.Errorf("the will of %s came as %v", e.id, p)
		}
		checkWillProperties(t, e, p.Packet)
	}
	t.Logf("the cluster knew after %v", base.Round(time.Millisecond))
}

func checkWillProperties(t *testing.T, e *willClient, p *rawmqtt.Packet) {
	t.Helper()
	var got []rawmqtt.Property
	for _, x := range p.Properties {
		if x.ID == rawmqtt.MessageExpiry && x.Int <= 300 && x.Int >= 290 {
			x.Int = 300 // counted down [MQTT-3.3.2-6]
		}
		got = append(got, x)
	}
	want := willProperties()
	if e.version < 5 {
		want = nil
	}
	order := func(a, b rawmqtt.Property) int { return int(a.ID) - int(b.ID) }
	slices.SortStableFunc(got, order) // user properties stay in order among themselves
	slices.SortStableFunc(want, order)
	if !slices.Equal(got, want) {
		t.Errorf("the will of %s has the properties %+v, want %+v", e.id, got, want)
	}
}
