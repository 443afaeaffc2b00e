package broker

import (
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// trimAll gives up everything that is queued now.
func (c *cluster) trimAll() {
	c.do(func() {
		c.admin(c.nodes[0], &logpb.Item{Kind: &logpb.Item_Trim{Trim: &logpb.Trim{All: uint64(session.At(c.index, 1<<20-1))}}})
	})
}

// Exactly once, outgoing, also when the queue gives the message up meanwhile: the
// client may have it, and a new message must not come under its packet id.
func TestQoS2OutgoingAcrossATrim(t *testing.T) {
	for _, stop := range []string{"publish", "pubrec", "no crash"} {
		t.Run(stop, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			s := connect(t, c.nodes[0], 5, "s", persistent)
			s.subscribe(sub("a", 2))
			p := connect(t, c.nodes[1], 5, "p")
			p.publish("a", "once", 2, false)
			m := s.expect(packets.Publish)
			if stop != "publish" {
				s.ack(codec.TypePubrec, m.PacketID, 0)
				s.expect(packets.Pubrel)
			}
			c.trimAll()
			if stop != "no crash" {
				c.crash(c.nodes[0])
				s = connect(t, c.nodes[1], 5, "s", persistent)
			}
			switch stop {
			case "publish":
				again := s.expect(packets.Publish)
				if again.PacketID != m.PacketID || !again.FixedHeader.Dup || again.FixedHeader.Qos != 2 || string(again.Payload) != "once" {
					t.Fatalf("resent as %+v id %d, was id %d", again.FixedHeader, again.PacketID, m.PacketID)
				}
				s.ack(codec.TypePubrec, m.PacketID, 0)
				s.expect(packets.Pubrel)
			case "pubrec":
				if rel := s.expect(packets.Pubrel); rel.PacketID != m.PacketID {
					t.Fatalf("PUBREL of %d, want %d", rel.PacketID, m.PacketID)
				}
			}
			p.publish("a", "next", 2, false)
			if next := s.expect(packets.Publish); next.PacketID == m.PacketID || string(next.Payload) != "next" {
				t.Fatalf("%q came under packet id %d, which is in use", next.Payload, next.PacketID)
			} else {
				s.ack(codec.TypePubrec, next.PacketID, 0)
				s.expect(packets.Pubrel)
				s.ack(codec.TypePubcomp, next.PacketID, 0)
			}
			s.ack(codec.TypePubcomp, m.PacketID, 0)
			s.disconnect()
			s = connect(t, c.nodes[1], 5, "s", persistent)
			s.quiet()
			p.publish("a", "last", 2, false)
			s.wantMessages("a", "last")
			s.quiet()
		})
	}
}

// A client that is far behind goes on with what is left of its queue.
func TestTrimWhileServed(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		c := newCluster(t, 2, Config{MaxQueuedMessages: 10}) // in memory
		s := connect(t, c.nodes[0], 5, "s", persistent, receiveMaximum(1))
		s.subscribe(sub("a", qos))
		p := connect(t, c.nodes[1], 5, "p")
		const n = 2000 // chunks, of which up to one and a half are in memory
		for i := range n {
			p.publish("a", fmt.Sprint(i), qos, false)
		}
		first := s.expect(packets.Publish)
		c.trimAll()
		for i := range 3 {
			p.publish("a", fmt.Sprint(n+i), qos, false)
		}
		last := string(first.Payload)
		for got, m := 1, first; ; got++ {
			if qos == 1 {
				s.ack(codec.TypePuback, m.PacketID, 0)
			} else {
				s.ack(codec.TypePubrec, m.PacketID, 0)
				s.expect(packets.Pubrel)
				s.ack(codec.TypePubcomp, m.PacketID, 0)
			}
			if last == fmt.Sprint(n+2) {
				if got > n/2 {
					t.Fatalf("QoS %d: %d of the messages came that were given up", qos, got)
				}
				break
			}
			m = s.expect(packets.Publish)
			last = string(m.Payload)
		}
		s.quiet()
	}
}
