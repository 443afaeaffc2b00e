package e2e

import (
	"fmt"
	"testing"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestOrderAcrossQoS: a persistent session that subscribes with QoS 2 receives
// messages of QoS 1 and 2 in the order of the log, which one with QoS 1 shows.
func TestOrderAcrossQoS(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	subs := map[byte]*Client{}
	for _, qos := range []byte{1, 2} {
		subs[qos] = c.Nodes[qos].Connect(persistent(fmt.Sprint("sub", qos), 3600))
		subs[qos].Sub(rawmqtt.Sub("o", qos))
	}
	const each = 300
	for k, n := range c.Nodes {
		pub := n.Connect(clean(fmt.Sprint("pub", k)))
		for i := range each {
			p := rawmqtt.Publish{Topic: "o", QoS: byte(1 + i%2), ID: uint16(i + 1), Payload: fmt.Append(nil, k, "-", i)}
			if err := pub.Publish(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(s *Client) (got []string) {
		for len(got) < each*len(c.Nodes) {
			p, err := s.Read(patience)
			if err != nil {
				t.Fatalf("after %d messages: %v", len(got), err)
			}
			if p.Type == rawmqtt.PUBLISH {
				got = append(got, string(p.Payload))
			}
			if err := s.Ack(p); err != nil {
				t.Fatal(err)
			}
		}
		return got
	}
	want, got := read(subs[1]), read(subs[2])
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("message %d was %s with QoS 2, %s with QoS 1", i, got[i], want[i])
		}
	}
}
