package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// keepTopics publishes n retained messages, r/0000 to r/n-1, with their numbers.
func keepTopics(t *testing.T, at *node, qos byte, n int) *peer {
	t.Helper()
	p := connect(t, at, 5, "keeper")
	for i := range n {
		p.publish(fmt.Sprintf("r/%04d", i), fmt.Sprint(i), qos, true)
	}
	// Those of QoS 0 have no acknowledgement: what a SUBSCRIBE overtakes comes live.
	p.quiet()
	at.c.settle()
	return p
}

// A retained message of QoS 2 keeps its state in the log as well.
func TestRetainedQoS2AcrossACrash(t *testing.T) {
	c := newCluster(t, 2, Config{})
	p := connect(t, c.nodes[1], 5, "p")
	p.publish("r", "kept", 2, true)
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("r", 2))
	m := s.expect(packets.Publish)
	c.crash(c.nodes[0])
	s = connect(t, c.nodes[1], 5, "s", persistent)
	again := s.expect(packets.Publish)
	if again.PacketID != m.PacketID || !again.FixedHeader.Dup || string(again.Payload) != "kept" {
		t.Fatalf("got %q id %d dup %v, want id %d", again.Payload, again.PacketID, again.FixedHeader.Dup, m.PacketID)
	}
	answer(s, again)
	s.quiet()
}

// What a subscription was not sent of its retained messages, or did not
// acknowledge, comes from whichever node has the session next.
func TestRetainedGoOnElsewhere(t *testing.T) {
	const n = 700
	for _, tt := range []struct {
		name  string
		qos   byte
		after func(c *cluster, s *peer)
		dup   bool // of what was sent
	}{
		{"QoS 1, crash", 1, func(c *cluster, _ *peer) { c.crash(c.nodes[0]) }, true},
		{"QoS 2, crash", 2, func(c *cluster, _ *peer) { c.crash(c.nodes[0]) }, true},
		{"QoS 1, orderly", 1, func(_ *cluster, s *peer) { s.disconnect() }, true},
		{"QoS 2, orderly", 2, func(_ *cluster, s *peer) { s.disconnect() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 2, Config{ProgressInterval: time.Millisecond})
			p := keepTopics(t, c.nodes[1], tt.qos, n)
			s := connect(t, c.nodes[0], 5, "s", persistent, receiveMaximum(20))
			s.subscribe(sub("r/#", tt.qos))
			seen := map[string]int{}
			for range 300 {
				seen[string(s.message().Payload)]++
			}
			var left []*packets.Packet // sent, not acknowledged
			for range 20 {
				m := s.skipTo(packets.Publish)
				left = append(left, m)
				if tt.qos == 2 {
					seen[string(m.Payload)]++
				}
			}
			// One of them is acknowledged out of order.
			finishOne(s, left[10])
			seen[string(left[10].Payload)] = 1
			c.settled(s, "s", c.nodes[0])
			p.publish("r/0500", "newer", tt.qos, true)
			p.publish("r/0600", "", tt.qos, true)
			tt.after(c, s)

			s = connect(t, c.nodes[1], 5, "s", persistent, receiveMaximum(20))
			if !s.connack.SessionPresent {
				t.Fatal("the session is gone")
			}
			was := map[uint16]bool{}
			for i, m := range left {
				was[m.PacketID] = i != 10
			}
			for seen["newer"] == 0 || seen["699"] == 0 || seen[""] == 0 {
				m := s.message()
				key := string(m.Payload)
				if tt.qos == 2 && was[m.PacketID] && m.FixedHeader.Dup {
					continue // the client knows it by its id
				}
				if tt.qos == 2 && seen[key] > 0 {
					t.Fatalf("%q came twice, id %d dup %v", key, m.PacketID, m.FixedHeader.Dup)
				}
				if key == "newer" && m.FixedHeader.Retain {
					t.Error("a message of the queue has the retain flag")
				}
				seen[key]++
			}
			s.quiet()
			for i := range n {
				if seen[fmt.Sprint(i)] == 0 && i != 500 && i != 600 {
					t.Errorf("%d did not come", i)
				}
			}
			if seen["500"]+seen["600"] != 0 || tt.name == "QoS 1, orderly" && seen[string(left[10].Payload)] != 1 {
				t.Errorf("what was replaced, cleared or acknowledged came: %d %d %d", seen["500"], seen["600"], seen[string(left[10].Payload)])
			}
			c.settled(s, "s", c.nodes[1])
			owed := func() *logpb.Replay { return c.nodes[1].store.Session("s").Subscriptions[0].Replay }
			// That there is nothing more is found out after the last one was acknowledged.
			for end := time.Now().Add(patience); owed() != nil && time.Now().Before(end); {
				c.settled(s, "s", c.nodes[1])
			}
			if r := owed(); r != nil {
				t.Errorf("the session is owed %v when everything was acknowledged", r)
			}
			s.disconnect()
			s = connect(t, c.nodes[0+1], 5, "s", persistent)
			s.quiet()
		})
	}
}

// settled waits until what the client acknowledged is in the log.
func (c *cluster) settled(s *peer, id string, n *node) {
	ping := func() {
		s.write([]byte{0xC0, 0})
		s.skipTo(packets.Pingresp)
	}
	ping()
	for {
		cl := n.broker.find(id)
		cl.mu.Lock()
		left := len(cl.out.marks) + len(cl.out.rels)
		waits := cl.out.reported || cl.out.replayed
		cl.mu.Unlock()
		if left == 0 && !waits {
			break
		}
		cl.submitMarks()
		ping()
	}
	c.settle()
	c.settle()
}

// finishOne takes the delivery of m to its end.
func finishOne(s *peer, m *packets.Packet) {
	if m.FixedHeader.Qos == 1 {
		s.ack(codec.TypePuback, m.PacketID, 0)
		return
	}
	s.ack(codec.TypePubrec, m.PacketID, 0)
	s.skipTo(packets.Pubrel)
	s.ack(codec.TypePubcomp, m.PacketID, 0)
}

// A retained copy of a message and the queued one of the same position are two
// deliveries, each exactly once.
func TestRetainedAndQueuedCopyOfOneMessage(t *testing.T) {
	c := newCluster(t, 2, Config{ProgressInterval: time.Millisecond})
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("r/+", 2))
	connect(t, c.nodes[1], 5, "p").publish("r/1", "x", 2, true)
	queued := s.expect(packets.Publish)
	s.subscribe(sub("r/#", 2))
	kept := s.skipTo(packets.Publish)
	if kept.PacketID == queued.PacketID || !kept.FixedHeader.Retain || queued.FixedHeader.Retain {
		t.Fatalf("got id %d retain %v and id %d retain %v", queued.PacketID, queued.FixedHeader.Retain, kept.PacketID, kept.FixedHeader.Retain)
	}
	finishOne(s, queued)
	c.settled(s, "s", c.nodes[0])
	c.crash(c.nodes[0])
	s = connect(t, c.nodes[1], 5, "s", persistent)
	if again := s.expect(packets.Publish); again.PacketID != kept.PacketID || !again.FixedHeader.Dup || !again.FixedHeader.Retain {
		t.Fatalf("got id %d dup %v, want id %d", again.PacketID, again.FixedHeader.Dup, kept.PacketID)
	}
	finishOne(s, kept)
	s.quiet()
}

// Two filters of one SUBSCRIBE that match a message are two copies of it, one
// after the other where the log keeps their state.
func TestRetainedOfOverlappingFilters(t *testing.T) {
	c := newCluster(t, 1, Config{})
	keepTopics(t, c.nodes[0], 2, 3)
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("r/#", 2), sub("r/+", 2))
	for range 2 {
		for i := range 3 {
			s.wantMessages(fmt.Sprintf("r/%04d", i), fmt.Sprint(i))
		}
	}
	s.quiet()
	c.settled(s, "s", c.nodes[0])
	if n := len(c.nodes[0].broker.find("s").out.kept); n != 0 {
		t.Errorf("%d states are left", n)
	}
}

// A client that is slow to take its retained messages pins no view.
func TestSlowFeed(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	keepTopics(t, n, 1, 2*feedQueue)
	s := connect(t, n, 5, "s", receiveMaximum(1))
	s.subscribe(sub("r/#", 1))
	m := s.expect(packets.Publish)
	for n.views.Load() != 0 {
		s.quiet()
	}
	finishOne(s, m)
	for i := 1; i < 2*feedQueue; i++ {
		s.wantMessages(fmt.Sprintf("r/%04d", i), fmt.Sprint(i))
	}
	s.quiet()
}

// After UNSUBACK no more retained messages follow than were on their way.
func TestUnsubscribeEndsTheFeed(t *testing.T) {
	c := newCluster(t, 1, Config{})
	keepTopics(t, c.nodes[0], 1, 3*feedQueue)
	s := connect(t, c.nodes[0], 5, "s", persistent, receiveMaximum(1))
	s.subscribe(sub("r/#", 1))
	s.unsubscribe("r/#")
	got := 0
	for {
		s.write([]byte{0xC0, 0})
		m := s.next()
		if m.FixedHeader.Type == packets.Pingresp {
			break
		}
		finishOne(s, m)
		s.skipTo(packets.Pingresp)
		got++
	}
	if got > 2*feedQueue+1 {
		t.Errorf("%d came after UNSUBACK", got)
	}
}

// A wide subscription is held to a rate, and others are not.
func TestRetainedRate(t *testing.T) {
	c := newCluster(t, 1, Config{RetainedRate: 100})
	keepTopics(t, c.nodes[0], 0, 31)
	s := connect(t, c.nodes[0], 5, "s")
	start := time.Now()
	s.subscribe(sub("r/#", 0))
	for i := range 31 {
		s.wantMessages(fmt.Sprintf("r/%04d", i), fmt.Sprint(i))
	}
	// The first chunk is at once.
	if d := time.Since(start); d < 250*time.Millisecond {
		t.Errorf("31 messages took %v at 100 a second", d)
	}
}

// Packet ids that wait for their message are not given to another one.
func TestResumedIDsAreKept(t *testing.T) {
	c := newCluster(t, 2, Config{})
	p := connect(t, c.nodes[1], 5, "p")
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 2))
	s.publish("x", "y", 0, false)
	c.nodes[0].broker.find("s").out.lastID = 65535 // as after many messages
	p.publish("a", "0", 2, false)
	first := s.expect(packets.Publish)
	if first.PacketID != 1 {
		t.Fatalf("id %d", first.PacketID)
	}
	s.ack(codec.TypePubrec, 1, 0)
	s.expect(packets.Pubrel)
	s.ack(codec.TypePubcomp, 1, 0)
	c.settled(s, "s", c.nodes[0])
	for i, qos := range []byte{1, 1, 1, 2} {
		p.publish("a", fmt.Sprint(i+1), qos, false)
		if i == 2 {
			cl := c.nodes[0].broker.find("s")
			cl.mu.Lock()
			cl.out.lastID = 1
			delete(cl.out.flights, 2)
			cl.mu.Unlock()
		}
		s.expect(packets.Publish)
	}
	c.crash(c.nodes[0])
	s = connect(t, c.nodes[1], 5, "s", persistent, receiveMaximum(10))
	ids := map[uint16]string{}
	for range 4 {
		m := s.expect(packets.Publish)
		if other, ok := ids[m.PacketID]; ok {
			t.Fatalf("id %d is of %s and of %s", m.PacketID, other, m.Payload)
		}
		ids[m.PacketID] = string(m.Payload)
	}
}

// What an earlier connection sent stays known as sent, under its packet id, when a
// connection between had no room to send it again [MQTT-4.4.0-1].
func TestSentStaysSentAcrossAConnectionThatDoesNotSendIt(t *testing.T) {
	for _, kind := range []string{"queued", "retained"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			p := connect(t, c.nodes[1], 5, "p")
			s := connect(t, c.nodes[0], 5, "s", persistent)
			s.subscribe(sub("b", 1))
			for range 5 { // packet ids, so that the next connection would give others
				p.publish("b", "", 1, false)
				s.message()
			}
			if kind == "queued" {
				s.subscribe(sub("a/#", 1))
			}
			for i := range 3 {
				p.publish(fmt.Sprint("a/", i), fmt.Sprint(i), 1, kind == "retained")
			}
			if kind == "retained" {
				s.subscribe(sub("a/#", 1))
			}
			sent := map[string]uint16{}
			for range 3 {
				m := s.skipTo(packets.Publish)
				sent[string(m.Payload)] = m.PacketID
			}
			s.disconnect()
			s = connect(t, c.nodes[1], 5, "s", persistent, receiveMaximum(1))
			s.expect(packets.Publish)
			s.quiet() // the others have been read, and wait
			s.disconnect()
			s = connect(t, c.nodes[0], 5, "s", persistent)
			for range 3 {
				m := s.message()
				if id := sent[string(m.Payload)]; !m.FixedHeader.Dup || m.PacketID != id {
					t.Errorf("%q came again with packet id %d and DUP %v; it was sent with id %d", m.Payload, m.PacketID, m.FixedHeader.Dup, id)
				}
			}
			s.quiet()
		})
	}
}
