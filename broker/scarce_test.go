package broker

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
)

// While the disks are nearly full nothing is stored, and what makes room or
// needs none goes on.
func TestScarce(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 5, "sub", persistent)
	s.subscribe(sub("#", 2))
	p := connect(t, n, 5, "pub")
	p.publish("r/1", "kept", 1, true)
	s.wantMessages("r/1", "kept")
	// Taken before, unacknowledged as far as the client knows.
	p.write(p.frame("x", "twice", codec.PublishOptions{QoS: 2, PacketID: 7}))
	p.expect(packets.Pubrec)
	s.wantMessages("x", "twice")

	n.scarce.Store(true)
	for qos, typ := range []byte{1: packets.Puback, 2: packets.Pubrec} {
		if qos == 0 {
			continue
		}
		for _, retain := range []bool{false, true} {
			p.write(p.frame("x", "no", codec.PublishOptions{QoS: byte(qos), PacketID: uint16(qos), Retain: retain}))
			if a := p.expect(typ); a.ReasonCode != reasonQuota {
				t.Errorf("QoS %d, retain %v: reason 0x%02X", qos, retain, a.ReasonCode)
			}
		}
	}
	p.write(p.frame("x", "twice", codec.PublishOptions{QoS: 2, PacketID: 7, Dup: true}))
	if a := p.expect(packets.Pubrec); a.ReasonCode >= 0x80 {
		t.Errorf("a repeated QoS 2 message: reason 0x%02X", a.ReasonCode)
	}
	p.ack(packets.Pubrel, 7, 0)
	p.expect(packets.Pubcomp)
	p.write(p.frame("x", "live", codec.PublishOptions{}))
	s.wantMessages("x", "live")
	p.write(p.frame("r/2", "live", codec.PublishOptions{Retain: true}))
	s.wantMessages("r/2", "live")
	p.write(p.frame("r/1", "", codec.PublishOptions{QoS: 1, PacketID: 9, Retain: true}))
	if a := p.expect(packets.Puback); a.ReasonCode >= 0x80 {
		t.Errorf("a clear: reason 0x%02X", a.ReasonCode)
	}
	s.wantMessages("r/1", "")
	s.unsubscribe("#")
	other := connect(t, n, 5, "other", persistent)
	other.subscribe(sub("r/+", 1))
	other.quiet() // nothing is retained

	old := connect(t, n, 4, "old")
	old.write(old.frame("x", "no", codec.PublishOptions{QoS: 1, PacketID: 1}))
	old.closed(0)
	n.scarce.Store(false)
	p.write(p.frame("x", "yes", codec.PublishOptions{QoS: 1, PacketID: 2}))
	if a := p.expect(packets.Puback); a.ReasonCode >= 0x80 {
		t.Errorf("afterwards: reason 0x%02X", a.ReasonCode)
	}
}
