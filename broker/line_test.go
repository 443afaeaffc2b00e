package broker

import (
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/session"
)

// A session receives in the order of the log: messages of QoS 1 do not overtake
// one of QoS 2 whose packet id is not in the log yet. Those of QoS 0 may.
func TestQoS2IsNotOvertaken(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 5, "s", persistent)
	s.subscribe(sub("a", 2))
	p := connect(t, n, 5, "p")
	p.publish("a", "0", 1, false)
	n.holdMarks()
	var want []string
	for i, qos := range []byte{2, 1, 1, 2, 2, 1} {
		p.publish("a", fmt.Sprint(i+1), qos, false)
		want = append(want, fmt.Sprint(i+1))
	}
	s.wantMessages("a", "0")
	s.quiet()
	n.letMarks()
	s.wantMessages("a", want...)
	s.quiet()
}

// The same for a session that reads its queue from the log, and what an earlier
// connection sent comes first again.
func TestQoS2IsNotOvertakenOnResume(t *testing.T) {
	c := newCluster(t, 2, Config{})
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 2))
	p := connect(t, c.nodes[1], 5, "p")
	p.publish("a", "0", 1, false)
	p.publish("a", "1", 2, false)
	s.expect(packets.Publish)
	sent := s.expect(packets.Publish)
	s.disconnect()
	for i, qos := range []byte{1, 2, 1, 2} {
		p.publish("a", fmt.Sprint(i+2), qos, false)
	}
	c.nodes[1].holdMarks()
	s = connect(t, c.nodes[1], 5, "s", persistent)
	s.wantMessages("a", "0")
	if m := s.expect(packets.Publish); string(m.Payload) != "1" || m.PacketID != sent.PacketID || !m.FixedHeader.Dup {
		t.Fatalf("got %q, id %d, DUP %v; want what was sent before, id %d", m.Payload, m.PacketID, m.FixedHeader.Dup, sent.PacketID)
	}
	s.wantMessages("a", "2")
	s.quiet()
	c.nodes[1].letMarks()
	finishOne(s, sent)
	s.wantMessages("a", "3", "4", "5")
	s.quiet()
}

// What waited behind a mark and was never sent is sent for the first time by the
// next connection [MQTT-3.3.1-2], and nothing of it is lost.
func TestLineThatWasNotSent(t *testing.T) {
	for _, how := range []string{"disconnect", "drain"} {
		t.Run(how, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			n := c.nodes[0]
			s := connect(t, n, 5, "s", persistent)
			s.subscribe(sub("a", 2))
			p := connect(t, c.nodes[1], 5, "p")
			n.holdMarks()
			p.publish("a", "1", 2, false)
			p.publish("a", "2", 1, false)
			s.quiet()
			if how == "drain" {
				go n.broker.Drain(t.Context(), 0)
				s.closed(reasonShuttingDown)
			} else {
				s.disconnect()
			}
			n.letMarks()
			c.settle()
			s = connect(t, c.nodes[1], 5, "s", persistent)
			if m := s.message(); string(m.Payload) != "1" {
				t.Fatalf("got %q first", m.Payload)
			}
			if m := s.message(); string(m.Payload) != "2" || m.FixedHeader.Dup {
				t.Fatalf("got %q, DUP %v; want the one that was not sent", m.Payload, m.FixedHeader.Dup)
			}
			s.quiet()
		})
	}
}

// Those in a line that are given up leave their place, and the rest goes on.
func TestTrimOfALine(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 5, "s", persistent)
	// Without retained messages, whose end would be waited for in the log.
	s.subscribe(packets.Subscription{Filter: "a", Qos: 2, RetainHandling: 2})
	p := connect(t, n, 5, "p")
	n.holdMarks()
	p.publish("a", "given up", 2, false)
	p.publish("a", "1", 1, false)
	s.quiet()
	c.trimAll()
	n.letMarks()
	p.publish("a", "2", 2, false)
	s.wantMessages("a", "1", "2")
	s.quiet()
	cl := n.broker.find("s")
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.out.queueBytes != 0 || cl.out.line.q.len() != 0 {
		t.Errorf("%d bytes and %d messages are left", cl.out.queueBytes, cl.out.line.q.len())
	}
}

// Many writers of all QoS, and a client that acknowledges slowly.
func TestOrderOfAllQoS(t *testing.T) {
	c := newCluster(t, 2, Config{MaxQueuedMessages: 20})
	s := connect(t, c.nodes[0], 5, "s", persistent, receiveMaximum(7))
	s.subscribe(sub("a", 2))
	w := connect(t, c.nodes[1], 5, "w", persistent) // sees the order of the log, by QoS 1 alone
	w.subscribe(sub("a", 1))
	const each = 300
	for k := range 2 {
		p := connect(t, c.nodes[k], 5, fmt.Sprint("p", k))
		for i := range each {
			o := codec.PublishOptions{QoS: byte(1 + (i+k)%2), PacketID: uint16(i + 1)}
			p.write(codec.AppendPublish(nil, 5, &session.Message{Topic: "a", Payload: fmt.Append(nil, k, "-", i)}, o))
		}
	}
	read := func(p *peer) (got []string) {
		for range 2 * each {
			got = append(got, string(p.message().Payload))
		}
		return got
	}
	want, got := read(w), read(s)
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("message %d is %s, want %s", i, got[i], want[i])
		}
	}
}
