package broker

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/session"
)

// tracer collects the steps of one node.
type tracer struct {
	t     testing.TB
	steps chan Step
}

func everything(string, string, string) bool { return true }

func trace(t testing.TB, n *node) *tracer {
	t.Helper()
	c := &tracer{t: t, steps: make(chan Step, 10_000)}
	n.broker.Trace(&Tracer{Wants: everything, Tell: func(s *Step) {
		select {
		case c.steps <- *s:
		default:
			panic("nobody reads the steps") // on a goroutine of the broker, which a test cannot fail from
		}
	}})
	t.Cleanup(func() { n.broker.Trace(nil) })
	return c
}

// await returns the first step of a kind about a client; what came before it is
// passed over.
func (c *tracer) await(kind StepKind, client string) Step {
	c.t.Helper()
	late := time.After(10 * time.Second)
	var seen []Step
	for {
		select {
		case s := <-c.steps:
			if s.Kind == kind && s.Client == client {
				return s
			}
			seen = append(seen, s)
		case <-late:
			c.t.Fatalf("no step %q about %q comes, but %+v", kind, client, seen)
		}
	}
}

// TestTraceWay follows a message of each QoS from one node to another.
func TestTraceWay(t *testing.T) {
	c := newCluster(t, 2, Config{})
	a, b := trace(t, c.nodes[0]), trace(t, c.nodes[1])
	for qos := range byte(3) {
		s := connect(t, c.nodes[1], 5, "sub")
		p := connect(t, c.nodes[0], 5, "pub")
		s.subscribe(sub("way/#", 2))
		p.publish("way/1", "x", qos, false)
		if m := s.message(); string(m.Payload) != "x" {
			t.Fatalf("got %+v", m)
		}
		if got := a.await(StepAccepted, "pub"); got.Topic != "way/1" || got.QoS != qos || got.Publisher != "pub" {
			t.Errorf("QoS %d: accepted: %+v", qos, got)
		}
		if qos == 0 {
			a.await(StepForwarded, "pub")
			b.await(StepArrived, "pub")
			b.await(StepQueued, "sub")
			if got := b.await(StepDelivered, "sub"); got.Topic != "way/1" || got.Publisher != "pub" {
				t.Errorf("QoS 0: delivered: %+v", got)
			}
			s.disconnect()
			p.disconnect()
			continue
		}
		committed := a.await(StepCommitted, "pub")
		queued, delivered := b.await(StepQueued, "sub"), b.await(StepDelivered, "sub")
		if committed.Pos == 0 || queued.Pos != committed.Pos && queued.Pos != 0 || delivered.Topic != "way/1" || delivered.PacketID == 0 {
			t.Errorf("QoS %d: committed %+v, queued %+v, delivered %+v", qos, committed, queued, delivered)
		}
		if got := b.await(StepAcked, "sub"); got.PacketID != delivered.PacketID {
			t.Errorf("QoS %d: acknowledged: %+v of %+v", qos, got, delivered)
		}
		s.disconnect()
		p.disconnect()
	}
}

// TestTraceDrops: each policy by which the broker drops a message says so, and counts
// it once.
func TestTraceDrops(t *testing.T) {
	publish := func(p *peer, topic, payload string, o codec.PublishOptions) { p.write(p.frame(topic, payload, o)) }
	deny := func(n *node, of bool) {
		f := func(publish bool, topic string) bool { return publish == of && topic == "drop/1" }
		n.denied.Store(&f)
		n.version.Add(1)
	}
	for reason, do := range map[string]struct {
		client string // whom the drop is about
		run    func(t *testing.T, n *node, p *peer)
	}{
		dropPublishDenied: {"pub", func(t *testing.T, n *node, p *peer) {
			deny(n, true)
			publish(p, "drop/1", "x", codec.PublishOptions{})
		}},
		dropDenied: {"sub", func(t *testing.T, n *node, p *peer) {
			connect(t, n, 5, "sub").subscribe(sub("drop/#", 1))
			deny(n, false)
			publish(p, "drop/1", "x", codec.PublishOptions{QoS: 1, PacketID: 1})
		}},
		dropTooLarge: {"sub", func(t *testing.T, n *node, p *peer) {
			s := connect(t, n, 5, "sub", func(p *packets.Packet) { p.Properties.MaximumPacketSize = 40 })
			s.subscribe(sub("drop/#", 1))
			publish(p, "drop/1", "a payload that is too large for a packet of forty bytes", codec.PublishOptions{QoS: 1, PacketID: 1})
		}},
		dropQueueFull: {"sub", func(t *testing.T, n *node, p *peer) {
			// The first is under way and not acknowledged, the second waits.
			s := connect(t, n, 5, "sub", receiveMaximum(1))
			s.subscribe(sub("drop/#", 1))
			publish(p, "drop/1", "x", codec.PublishOptions{QoS: 1, PacketID: 1})
			s.expect(packets.Publish)
			publish(p, "drop/1", "x", codec.PublishOptions{QoS: 1, PacketID: 2})
			publish(p, "drop/1", "x", codec.PublishOptions{QoS: 1, PacketID: 3})
		}},
		dropExpired: {"sub", func(t *testing.T, n *node, p *peer) {
			s := connect(t, n, 5, "sub", persistent)
			s.subscribe(sub("drop/#", 1))
			s.disconnect()
			publish(p, "drop/1", "x", codec.PublishOptions{QoS: 1, PacketID: 1, HasExpiry: true, Expiry: 1})
			p.expect(packets.Puback)
			n.c.skew.Add(60_000)
			connect(t, n, 5, "sub", func(p *packets.Packet) { persistent(p); p.Connect.Clean = false })
		}},
		dropUnproposed: {"pub", func(t *testing.T, n *node, p *peer) {
			n.unleased.Store(true)
			publish(p, "drop/1", "x", codec.PublishOptions{Retain: true})
		}},
		dropScarce: {"pub", func(t *testing.T, n *node, p *peer) {
			n.scarce.Store(true)
			publish(p, "drop/1", "x", codec.PublishOptions{QoS: 1, PacketID: 1})
		}},
	} {
		t.Run(reason, func(t *testing.T) {
			c := newCluster(t, 1, Config{MaxQueuedMessages: 1})
			n := c.nodes[0]
			p := connect(t, n, 5, "pub")
			steps := trace(t, n)
			do.run(t, n, p)
			got := steps.await(StepDropped, do.client)
			if got.Why != reason || got.Topic != "drop/1" {
				t.Errorf("dropped: %+v", got)
			}
			// The writer may have taken the first from the queue by then, or not.
			if n := n.broker.Stats().Dropped; n != 1 && !(reason == dropQueueFull && n == 2) {
				t.Errorf("%d were counted", n)
			}
			n.unleased.Store(false)
		})
	}
}

// TestTraceWants: of a message that is wanted all is told, its acknowledgement, which
// names no topic, included; of others nothing.
func TestTraceWants(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	steps := make(chan Step, 1000)
	n.broker.Trace(&Tracer{
		Wants: func(client, publisher, topic string) bool {
			return topic == "x/wanted" && publisher == "pub" && client != ""
		},
		Tell: func(s *Step) { steps <- *s },
	})
	defer n.broker.Trace(nil)
	s, p := connect(t, n, 5, "sub"), connect(t, n, 5, "pub")
	s.subscribe(sub("x/#", 2))
	for qos := range byte(3) {
		for _, topic := range []string{"x/other", "x/wanted"} {
			p.publish(topic, "y", qos, false)
			s.wantMessages(topic, "y")
		}
		kinds := map[StepKind]int{}
		for want := 3 + min(int(qos), 1)*2; len(kinds) < want; {
			select {
			case s := <-steps:
				kinds[s.Kind]++
				if s.Topic != "x/wanted" && s.Kind != StepAcked {
					t.Errorf("QoS %d: %+v is told", qos, s)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("QoS %d: only %v are told", qos, kinds)
			}
		}
		for kind, n := range kinds {
			if n != 1 {
				t.Errorf("QoS %d: %d steps %q", qos, n, kind)
			}
		}
	}
}

// TestTraceOff: without a trace nothing is told, and what is made for one is not made.
func TestTraceOff(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	var told atomic.Int64
	n.broker.Trace(&Tracer{Wants: everything, Tell: func(*Step) { told.Add(1) }})
	n.broker.Trace(nil)
	s, p := connect(t, n, 5, "sub"), connect(t, n, 5, "pub")
	s.subscribe(sub("#", 1))
	for qos := range byte(2) {
		p.publish("x", "y", qos, false)
		s.wantMessages("x", "y")
	}
	if told.Load() > 0 {
		t.Errorf("%d steps were told", told.Load())
	}
	message := &message{m: &session.Message{Topic: "x"}}
	cl := n.broker.find("sub")
	if allocs := testing.AllocsPerRun(1000, func() { cl.tellMessage(StepQueued, message, "") }); allocs > 0 {
		t.Errorf("a step for nobody allocates %v times", allocs)
	}
}

// TestCounted: what clients send is counted by client and topic while somebody looks.
func TestCounted(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	p := connect(t, n, 5, "pub")
	n.broker.Count(true)
	for range 2000 {
		p.write(p.frame("busy", "x", codec.PublishOptions{}))
	}
	p.publish("busy", "x", 1, false) // all before it were read
	clients, topics := n.broker.Counted()
	for what, got := range map[string]int64{"client": clients["pub"], "topic": topics["busy"]} {
		if got < 1000 || got > 3500 {
			t.Errorf("2,001 messages were estimated as %d by %s", got, what)
		}
	}
	n.broker.Count(false)
	if clients, _ := n.broker.Counted(); clients != nil {
		t.Errorf("still counted: %v", clients)
	}
}

// TestStages: messages are timed in every part of their way.
func TestStages(t *testing.T) {
	s := stages{start: time.Now()}
	marks := 0
	for range 100_000 {
		if s.mark() != 0 {
			marks++
		}
	}
	if marks < 500 || marks > 1200 {
		t.Errorf("of 100,000 messages %d are timed, and not one in %d", marks, sampleOf)
	}
}

// BenchmarkStageMark is what every message pays for the few that are timed.
func BenchmarkStageMark(b *testing.B) {
	s := stages{start: time.Now()}
	for b.Loop() {
		s.mark()
	}
}

// BenchmarkTraceOff is what every step pays while nobody traces.
func BenchmarkTraceOff(b *testing.B) {
	c := &client{b: &Broker{}}
	m := &message{m: &session.Message{Topic: "x"}}
	for b.Loop() {
		c.tellMessage(StepQueued, m, "")
	}
}
