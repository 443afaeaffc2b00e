//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

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

// tooLate is how long a will may take beyond its delay. The last one that is due
// comes 3 s after the cluster knows; lingering is how long after that one is waited
// for that is not due, which has a delay of 5 s.
const tooLate, lingering = 2500 * time.Millisecond, 4 * time.Second

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
	{name: "back-in-time", version: 5, qos: 1, delay: 5, expiry: 60, never: true, back: func(e *willClient) { e.comesBack(e.others[0]) }},
}

// TestWillMatrix loses the connections of clients with all kinds of wills, in
// all ways: each will comes exactly once, in time, as it was given, unless its
// client said goodbye, came back, or may not publish it any more.
func TestWillMatrix(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Proxy: true})
	for _, tt := range []struct {
		name string
		lose func(n *Node, clients []*willClient)
		heal func(n *Node)
	}{
		{"connection", func(_ *Node, clients []*willClient) {
			for _, e := range clients {
				e.c.Close()
			}
		}, func(*Node) {}},
		{"node", func(n *Node, _ []*willClient) { n.Kill() }, func(n *Node) { n.Restart() }},
		{"network", func(n *Node, _ []*willClient) { c.Net.Isolate(n) }, func(n *Node) { c.Net.Heal(); n.WaitReady(patience) }},
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
			witness := newWitness(t, tt.name, others)
			clock := c.startClock(t, others)
			defer clock.end()
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
			lost := clock.now()
			tt.lose(victim, clients)
			for _, e := range clients {
				if e.back != nil {
					e.back(e)
				}
			}
			witness.await(clients)
			witness.judge(clients, clock, lost)
			for _, e := range clients {
				if e.back != nil {
					e.c.Disconnect(0)
				}
				if e.retain {
					late := connectOne(t, clean("late-"+e.id), others)
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
			came := len(witness.came)
			witness.read(time.Now().Add(time.Second))
			if again := witness.came[came:]; len(again) > 0 {
				t.Errorf("when %s was back there came %v", victim.ID, again)
			}
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

// connectOne connects to one of the nodes, the first that takes it.
func connectOne(t *testing.T, o rawmqtt.Connect, nodes []*Node) *Client {
	t.Helper()
	var c *Client
	var last string
	await(t, patience, func() bool {
		for _, n := range nodes {
			a, ack, err := n.TryConnect(o)
			if err == nil && ack.Reason == 0 {
				c = a
				return true
			}
			last = fmt.Sprint(n.ID, ": ", ack, err)
		}
		return false
	}, func() string { return o.ClientID + " cannot connect: " + last })
	return c
}

// clusterClock tells for how long the cluster stood still: nobody led it, so that
// log time did not pass and nothing was acknowledged. On a busy machine that
// happens, and is not what these tests judge.
type clusterClock struct {
	run *Run
	p   *history.Publisher
}

// startClock has a client publish all the time through the nodes.
func (c *Cluster) startClock(t *testing.T, nodes []*Node) *clusterClock {
	run := c.Record(t)
	at := c.Endpoint()
	at.Addresses = nil
	for _, n := range nodes {
		at.Addresses = append(at.Addresses, n.TLS)
	}
	p := run.Publish(history.PublisherConfig{Endpoint: at, Name: "clock", Expiry: 60, QoS: 1, Topics: []string{"clock"}, Rate: 20, Window: 1})
	awaitAcked(t, p, 3, patience)
	return &clusterClock{run, p}
}

// end ends the publisher.
func (k *clusterClock) end() {
	ctx, cancel := context.WithTimeout(k.run.t.Context(), patience)
	defer cancel()
	if err := k.p.Stop(ctx); err != nil {
		k.run.t.Error(err)
	}
}

// now is the time of the run.
func (k *clusterClock) now() time.Duration {
	return k.run.Add(history.Event{Kind: history.Mark, Note: "now"}).At
}

// stood is for how long the cluster stood still within a span of time.
func (k *clusterClock) stood(from, to time.Duration) (sum time.Duration) {
	const usual = 250 * time.Millisecond // between two acknowledgements
	last := from
	for _, e := range k.run.Events() {
		if e.At <= from || e.Kind != history.PublishAcked && e.At < to {
			continue
		}
		if silence := min(e.At, to) - last; silence > usual {
			sum += silence
		}
		if last = e.At; last >= to {
			break
		}
	}
	return sum
}

// witness sees the wills of a round.
type witness struct {
	t       *testing.T
	nodes   []*Node
	connect rawmqtt.Connect
	c       *Client
	// away: its connection was lost, since its node had no lease. It misses what has
	// QoS 0 then, and sees anew what it had not acknowledged.
	away bool
	came []willSeen
}

type willSeen struct {
	*rawmqtt.Packet
	when time.Time
}

func newWitness(t *testing.T, round string, nodes []*Node) *witness {
	w := &witness{t: t, nodes: []*Node{nodes[1], nodes[0]}, connect: persistent("witness-"+round, 600)}
	w.c = connectOne(t, w.connect, w.nodes)
	w.c.Sub(rawmqtt.Subscription{Filter: "will/" + round + "/#", Options: 2 | 8})
	t.Cleanup(func() { w.c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0)) })
	return w
}

// read takes what comes until a moment, and returns at once when a will has come.
func (w *witness) read(end time.Time) bool {
	w.t.Helper()
	for {
		p, err := w.c.Read(time.Until(end))
		switch {
		case errors.Is(err, rawmqtt.ErrTimeout):
			return false
		case err != nil:
			w.t.Logf("the witness lost its connection: %v", err)
			w.away = true
			w.c = connectOne(w.t, w.connect, w.nodes)
		case p.Type == rawmqtt.PUBLISH && !(w.away && p.Dup && len(w.of(p.Topic)) > 0):
			w.came = append(w.came, willSeen{p, time.Now()})
			return true
		}
	}
}

func (w *witness) of(topic string) (out []willSeen) {
	for _, s := range w.came {
		if s.Topic == topic {
			out = append(out, s)
		}
	}
	return out
}

// await reads until every will has come that should, and for as long again that
// those would have come that should not.
func (w *witness) await(clients []*willClient) {
	w.t.Helper()
	missing := func() (n int) {
		for _, e := range clients {
			if !e.never && len(w.of(e.topic)) == 0 && !(w.away && e.qos == 0) {
				n++
			}
		}
		return n
	}
	limit := time.Now().Add(2 * patience)
	for missing() > 0 && w.read(limit) {
	}
	for end := time.Now().Add(lingering); w.read(end); {
	}
}

func (w *witness) judge(clients []*willClient, clock *clusterClock, lost time.Duration) {
	t := w.t
	t.Helper()
	since := time.Now().Add(lost - clock.now()) // the same moment as lost
	after := func(s willSeen) time.Duration { return s.when.Sub(since) }
	// The cluster knows of all at once: the first will without a delay tells when.
	base := 2 * patience
	for _, e := range clients {
		if got := w.of(e.topic); len(got) > 0 && e.after == 0 && e.before == nil {
			base = min(base, after(got[0]))
		}
	}
	for _, e := range clients {
		got := w.of(e.topic)
		switch {
		case len(got) == 0 && e.qos == 0 && w.away, e.never && len(got) == 0:
			continue
		case e.never || len(got) != 1:
			t.Errorf("the will of %s came %d times: %v", e.id, len(got), got)
			continue
		}
		p := got[0]
		came, stood := after(p), clock.stood(lost+base, lost+after(p))
		// When the cluster knew is seen by a will that was itself under way. When the
		// connection was lost is known exactly; log time may make up a hundredth.
		if e.before == nil && (came < base+e.after-time.Second || came < e.after*99/100 || came > base+e.after+tooLate+stood) {
			t.Errorf("the will of %s came after %v, not %v after %v (the cluster stood still for %v)", e.id, came, e.after, base, stood)
		}
		if p.QoS != e.qos || p.Retain != e.retain || string(p.Payload) != e.id {
			t.Errorf("the will of %s came as %v", e.id, p)
		}
		checkWillProperties(t, e, p.Packet)
	}
	t.Logf("the cluster knew after %v, and stood still for %v", base.Round(time.Millisecond), clock.stood(lost, clock.now()).Round(time.Millisecond))
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
