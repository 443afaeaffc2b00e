package broker

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
)

// A node without a lease may have been given up, and its members' messages given to
// others: it sends none of a shared subscription until it knows.
func TestSharedWaitsForTheLease(t *testing.T) {
	for name, opts := range map[string][]option{"persistent": {persistent}, "clean": nil} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			n := c.nodes[0]
			s := connect(t, n, 5, "s", append(opts, receiveMaximum(1))...)
			s.subscribe(sub("$share/g/a", 1), sub("b", 1))
			p := connect(t, c.nodes[1], 5, "p")
			p.publish("a", "1", 1, false)
			p.publish("a", "2", 1, false)
			first := s.skipTo(packets.Publish)
			n.unleased.Store(true)
			s.ack(codec.TypePuback, first.PacketID, 0) // makes room for the second
			p.publish("a", "3", 1, false)
			p.publish("b", "4", 1, false)
			s.quiet()
			n.unleased.Store(false)
			s.wantMessages("a", "2", "3")
			s.wantMessages("b", "4")
			s.quiet()
		})
	}
}
