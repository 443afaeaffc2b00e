package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	dto "github.com/prometheus/client_model/go"

	"github.com/mqcluster/mqcluster/auth"
)

// limit sets what every user may use, as a change of the policy does.
func (n *node) limit(q auth.Quota) {
	n.quota.Store(&q)
	n.version.Add(1)
}

func (n *node) refusals(reason string) int {
	var m dto.Metric
	if err := n.broker.m.refusals[reason].Write(&m); err != nil {
		n.c.t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

func TestUserQuota(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	n.limit(auth.Quota{Connections: 2, Subscriptions: 1, PacketSize: 200, Inflight: 3, TopicLevels: 3})
	one := connectRaw(t, n, 5, "one")
	ack := one.expect(packets.Connack)
	if ack.ReasonCode != 0 || ack.Properties.MaximumPacketSize != 200 || ack.Properties.ReceiveMaximum != 3 {
		t.Fatalf("CONNACK 0x%02X says %+v", ack.ReasonCode, ack.Properties)
	}
	two := connectRaw(t, n, 5, "two")
	two.expect(packets.Connack)
	if ack := connectRaw(t, n, 5, "three").expect(packets.Connack); ack.ReasonCode != reasonQuota {
		t.Errorf("the third connection is answered 0x%02X", ack.ReasonCode)
	}
	ask := func(filters ...string) []byte {
		var subs []packets.Subscription
		for _, f := range filters {
			subs = append(subs, sub(f, 0))
		}
		return one.subscribeRaw(0, subs...).ReasonCodes
	}
	if r := ask("a/b/c/d", "a", "b"); r[0] != reasonFilterInvalid || r[1] != 0 || r[2] != reasonQuota {
		t.Errorf("SUBACK %x", r)
	}
	pub := func(p *peer, topic string, size int) {
		p.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, TopicName: topic, PacketID: 1, Payload: []byte(strings.Repeat("x", size))})
	}
	pub(one, "a/b/c/d", 1)
	if a := one.skipTo(packets.Puback); a.ReasonCode != reasonTopicInvalid {
		t.Errorf("a topic of four levels is answered 0x%02X", a.ReasonCode)
	}
	pub(one, "a/b/c", 1)
	if a := one.skipTo(packets.Puback); a.ReasonCode >= 0x80 {
		t.Errorf("a topic of three levels is answered 0x%02X", a.ReasonCode)
	}
	pub(two, "a", 300)
	two.closed(reasonTooLarge)
	for reason, want := range map[string]int{refusedConnections: 1, refusedLevels: 2, refusedSubscribes: 1, refusedSize: 1} {
		if got := n.refusals(reason); got != want {
			t.Errorf("%d refusals are counted as %s, want %d", got, reason, want)
		}
	}
	// Its place is free again, and a limit that is lifted is.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		n.broker.accounts.mu.Lock()
		conns := n.broker.accounts.byUser[""].conns
		n.broker.accounts.mu.Unlock()
		if conns == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the user has %d connections", conns)
		}
	}
	n.limit(auth.Quota{})
	if r := ask("b", "a/b/c/d"); r[0] != 0 || r[1] != 0 {
		t.Errorf("SUBACK %x without limits", r)
	}
}

// TestMessageRate: a client that sends too fast is read no faster, and loses
// nothing.
func TestMessageRate(t *testing.T) {
	c := newCluster(t, 1, Config{MessageRate: 100})
	n := c.nodes[0]
	s := connectRaw(t, n, 5, "sub")
	s.expect(packets.Connack)
	s.subscribe(sub("#", 0))
	p := connectRaw(t, n, 5, "pub")
	p.expect(packets.Connack)
	start := time.Now()
	for range 150 { // the burst, and half a second
		p.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "a", Payload: []byte("x")})
	}
	for range 150 {
		s.expect(packets.Publish)
	}
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("150 messages at 100 a second came within %v", took)
	}
	if n.refusals(refusedRate) == 0 {
		t.Error("nothing is counted")
	}
	// The rate of a user is that of all its clients.
	n.limit(auth.Quota{MessageRate: 20})
	q := connectRaw(t, n, 5, "pub2")
	q.expect(packets.Connack)
	start = time.Now()
	for i := range 30 {
		to := p
		if i%2 == 1 {
			to = q
		}
		to.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "a", Payload: []byte("x")})
	}
	for range 30 {
		s.expect(packets.Publish)
	}
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("30 messages of two clients of a user with 20 a second came within %v", took)
	}
}
