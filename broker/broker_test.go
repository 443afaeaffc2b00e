package broker

import (
	"testing"
)

func TestPublishEveryQoSEveryVersion(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	for _, version := range []byte{3, 4, 5} {
		for _, opts := range [][]option{nil, {persistent}} {
			s := connect(t, n, version, "sub", opts...)
			p := connect(t, n, version, "pub")
			s.subscribe(sub("a/+", 2))
			for qos := range byte(3) {
				p.publish("a/b", "x", qos, false)
				if m := s.message(); string(m.Payload) != "x" || m.FixedHeader.Qos != qos || m.FixedHeader.Dup || m.FixedHeader.Retain {
					t.Fatalf("version %d: got %+v at QoS %d", version, m.FixedHeader, qos)
				}
			}
			s.quiet()
			if got := s.unsubscribe("a/+", "none"); version == 5 && (got.ReasonCodes[0] != 0 || got.ReasonCodes[1] != 0x11) {
				t.Fatalf("UNSUBACK %x", got.ReasonCodes)
			}
			p.publish("a/b", "x", 1, false)
			s.quiet()
			s.disconnect()
			p.disconnect()
			connect(t, n, version, "sub").disconnect()
		}
	}
}
