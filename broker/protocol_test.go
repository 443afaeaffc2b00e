package broker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
)

func TestConnect(t *testing.T) {
	c := newCluster(t, 1, Config{MaxKeepAlive: 60, MaxSessionExpiry: 1000, ReceiveMaximum: 10, TopicAliasMaximum: 7, MaxPacketSize: 5000})
	n := c.nodes[0]
	p := connect(t, n, 5, "", persistent)
	pr := p.connack.Properties
	if pr.AssignedClientID == "" || pr.ServerKeepAlive != 60 || pr.SessionExpiryInterval != 1000 ||
		pr.ReceiveMaximum != 10 || pr.TopicAliasMaximum != 7 || pr.MaximumPacketSize != 5000 {
		t.Errorf("CONNACK %+v", pr)
	}
	for _, v := range []byte{3, 4} {
		a := connect(t, n, v, fmt.Sprint("v", v), persistent)
		a.disconnect()
		if a = connect(t, n, v, fmt.Sprint("v", v), persistent); a.connack.SessionPresent != (v == 4) {
			t.Errorf("version %d: session present %v", v, a.connack.SessionPresent)
		}
	}
	connect(t, n, 4, "") // [MQTT-3.1.3-6]
	if a := connectRaw(t, n, 4, "", persistent).expect(packets.Connack); a.ReasonCode != 2 {
		t.Errorf("no client id, not clean: CONNACK %d", a.ReasonCode)
	}
	p.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: "again", Clean: true}})
	p.closed(reasonProtocolError) // [MQTT-3.1.0-2]
	first := dial(t, n, 5)
	first.write([]byte{0xC0, 0})
	first.closed(0) // [MQTT-3.1.0-1]
	method := connectRaw(t, n, 5, "m", func(p *packets.Packet) { p.Properties.AuthenticationMethod = "none" })
	if a := method.expect(packets.Connack); a.ReasonCode != reasonBadMethod {
		t.Errorf("CONNACK 0x%02X of an unknown method", a.ReasonCode)
	}
}

func TestNotServing(t *testing.T) {
	c := newCluster(t, 1, Config{UnservedTimeout: 10 * time.Millisecond})
	n := c.nodes[0]
	p := connect(t, n, 5, "a")
	n.broker.SetServing(false)
	for _, v := range []struct{ version, want byte }{{3, 3}, {4, 3}, {5, reasonUnavailable}} {
		if a := connectRaw(t, n, v.version, "x").expect(packets.Connack); a.ReasonCode != v.want {
			t.Errorf("version %d: CONNACK 0x%02X", v.version, a.ReasonCode)
		}
	}
	p.closed(reasonShuttingDown)
	n.broker.SetServing(true)
	p = connect(t, n, 5, "a")
	p3 := connect(t, n, 4, "b")
	n.unleased.Store(true)
	p.write(p.frame("a", "x", codec.PublishOptions{QoS: 1, PacketID: 1}))
	if a := p.expect(packets.Puback); a.ReasonCode != reasonQuota {
		t.Errorf("PUBACK 0x%02X", a.ReasonCode)
	}
	p.write(p.frame("a", "x", codec.PublishOptions{QoS: 2, PacketID: 2}))
	if a := p.expect(packets.Pubrec); a.ReasonCode != reasonQuota {
		t.Errorf("PUBREC 0x%02X", a.ReasonCode)
	}
	p3.write(p3.frame("a", "x", codec.PublishOptions{QoS: 1, PacketID: 1}))
	p3.closed(0)
}

func TestRetained(t *testing.T) {
	c := newCluster(t, 2, Config{})
	p := connect(t, c.nodes[0], 5, "p")
	for qos := range byte(3) {
		p.publish(fmt.Sprintf("r/%d", qos), "old", qos, true)
		p.publish(fmt.Sprintf("r/%d", qos), "new", qos, true)
	}
	p.publish("r/gone", "x", 1, true)
	p.publish("r/gone", "", 1, true) // [MQTT-3.3.1-6]
	c.settle()
	for _, version := range []byte{4, 5} {
		s := connect(t, c.nodes[1], version, "s", persistent)
		s.subscribe(sub("r/#", 2))
		for range 3 {
			if m := s.message(); string(m.Payload) != "new" || !m.FixedHeader.Retain || m.TopicName != fmt.Sprintf("r/%d", m.FixedHeader.Qos) {
				t.Fatalf("got %q on %s, %+v", m.Payload, m.TopicName, m.FixedHeader)
			}
		}
		s.quiet()
		p.publish("r/1", "live", 1, true)
		if m := s.message(); m.FixedHeader.Retain || string(m.Payload) != "live" {
			t.Fatalf("got %q retain %v", m.Payload, m.FixedHeader.Retain)
		}
		p.publish("r/1", "new", 1, true)
		s.message()
		s.quiet()
		s.disconnect()
		connect(t, c.nodes[0], version, "s").disconnect()
	}
}

func TestRetainHandling(t *testing.T) {
	c := newCluster(t, 1, Config{})
	p := connect(t, c.nodes[0], 5, "p")
	p.publish("r", "x", 1, true)
	for _, opts := range [][]option{nil, {persistent}} {
		for handling, want := range map[byte][2]int{0: {1, 1}, 1: {1, 0}, 2: {0, 0}} {
			s := connect(t, c.nodes[0], 5, "s", opts...)
			for i := range 2 {
				s.subscribe(packets.Subscription{Filter: "r", Qos: 1, RetainHandling: handling})
				for range want[i] {
					s.message()
				}
				s.quiet()
			}
			s.subscribe(sub("$share/g/r", 1)) // none for shared ones
			s.quiet()
			s.disconnect()
			connect(t, c.nodes[0], 5, "s").disconnect()
		}
	}
}

// A retained message is never overtaken by what is older, and nothing live is
// lost or comes before it, while others publish (P4).
func TestRetainedOrder(t *testing.T) {
	c := newCluster(t, 2, Config{})
	p := connect(t, c.nodes[0], 5, "p")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				p.publish("r", fmt.Sprint(i), 1, true)
			}
		}
	}()
	for i := range 30 {
		var opts []option
		if i%2 == 0 {
			opts = []option{persistent}
		}
		s := connect(t, c.nodes[i%2], 5, fmt.Sprint("s", i), opts...)
		s.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{sub("r", 1)}})
		last := 0
		for k := range 10 {
			m := s.message()
			var n int
			fmt.Sscan(string(m.Payload), &n)
			if k > 0 && n != last+1 || m.FixedHeader.Retain && k > 0 {
				t.Fatalf("%d (retain %v) came after %d", n, m.FixedHeader.Retain, last)
			}
			last = n
		}
		s.disconnect()
	}
	close(stop)
	<-stopped
}

func TestOverlapAndOptions(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	for _, opts := range [][]option{nil, {persistent}} {
		s := connect(t, n, 5, "s", opts...)
		s.subscribeRaw(1, sub("a/+", 0))
		s.subscribeRaw(2, sub("a/#", 2))
		s.subscribeRaw(3, packets.Subscription{Filter: "n", Qos: 1, NoLocal: true, RetainAsPublished: true})
		p := connect(t, n, 5, "p")
		p.publish("a/b", "x", 2, false)
		m := s.message()
		got := map[int]bool{}
		for _, id := range m.Properties.SubscriptionIdentifier {
			got[id] = true
		}
		if m.FixedHeader.Qos != 2 || !cmp.Equal(got, map[int]bool{1: true, 2: true}) {
			t.Fatalf("got %+v, ids %v", m.FixedHeader, got)
		}
		s.quiet() // one copy
		s.publish("n", "mine", 1, false)
		s.publish("n", "mine", 0, false)
		s.quiet() // [MQTT-3.8.3-3]
		p.publish("n", "its", 1, true)
		if m := s.message(); !m.FixedHeader.Retain || !cmp.Equal(m.Properties.SubscriptionIdentifier, []int{3}) {
			t.Fatalf("got %+v, ids %v", m.FixedHeader, m.Properties.SubscriptionIdentifier)
		}
		// A new SUBSCRIBE replaces the options [MQTT-3.8.4-3].
		s.subscribeRaw(4, packets.Subscription{Filter: "n", Qos: 0, RetainHandling: 2})
		p.publish("n", "", 1, true)
		if m := s.message(); m.FixedHeader.Retain || m.FixedHeader.Qos != 0 || !cmp.Equal(m.Properties.SubscriptionIdentifier, []int{4}) {
			t.Fatalf("got %+v, ids %v", m.FixedHeader, m.Properties.SubscriptionIdentifier)
		}
		s.disconnect()
		connect(t, n, 5, "s").disconnect()
	}
}

func TestSubscribeRefused(t *testing.T) {
	c := newCluster(t, 1, Config{MaxSubscriptions: 2})
	n := c.nodes[0]
	n.deny(func(publish bool, topic string) bool { return !publish && topic == "test/nosubscribe" })
	for _, v := range []struct {
		version byte
		want    []byte
	}{
		{4, []byte{0x80, 0x80, 1, 0x80, 0, 0x80}},
		{5, []byte{reasonUnspecified, reasonFilterInvalid, 1, reasonFilterInvalid, 0, reasonQuota}},
	} {
		s := connect(t, n, v.version, "s")
		got := s.subscribeRaw(0, sub("test/nosubscribe", 2), sub("a/#/b", 1), sub("ok", 1), sub("$share/g", 1), sub("ok/2", 0), sub("many", 1))
		if !bytes.Equal(got.ReasonCodes, v.want) {
			t.Errorf("version %d: SUBACK %x, want %x", v.version, got.ReasonCodes, v.want)
		}
		s.disconnect()
	}
}

func TestRights(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 5, "s")
	s.subscribe(sub("#", 1))
	p := connect(t, n, 5, "p")
	p3 := connect(t, n, 4, "p3")
	p.publish("a", "1", 1, false)
	s.wantMessages("a", "1")
	n.deny(func(publish bool, topic string) bool { return publish && topic == "a" || !publish && topic == "b" })
	for qos, typ := range map[byte]byte{1: packets.Puback, 2: packets.Pubrec} {
		p.write(p.frame("a", "x", codec.PublishOptions{QoS: qos, PacketID: 3}))
		if a := p.expect(typ); a.ReasonCode != reasonNotAuthorized {
			t.Errorf("QoS %d: 0x%02X", qos, a.ReasonCode)
		}
	}
	p.write(p.frame("$SYS/x", "x", codec.PublishOptions{QoS: 1, PacketID: 3}))
	if a := p.expect(packets.Puback); a.ReasonCode != reasonNotAuthorized {
		t.Errorf("$SYS: 0x%02X", a.ReasonCode)
	}
	p3.publish("a", "x", 1, false)
	p3.publish("a", "x", 2, false)
	p3.publish("a", "x", 0, false)
	p3.publish("b", "x", 0, false)
	p3.publish("b", "x", 1, false)
	p3.quiet()
	s.quiet()
	p3.publish("c", "x", 1, false)
	s.wantMessages("c", "x")
}

func TestReceiveMaximumOfTheServer(t *testing.T) {
	c := newCluster(t, 1, Config{ReceiveMaximum: 3})
	n := c.nodes[0]
	p := connect(t, n, 5, "p")
	for i := uint16(1); i <= 3; i++ {
		p.write(p.frame("a", "x", codec.PublishOptions{QoS: 2, PacketID: i}))
		p.expect(packets.Pubrec)
	}
	p.write(p.frame("a", "x", codec.PublishOptions{QoS: 2, PacketID: 3, Dup: true})) // counted once
	p.expect(packets.Pubrec)
	p.ack(codec.TypePubrel, 1, 0)
	p.expect(packets.Pubcomp)
	for range 10 {
		p.write(p.frame("a", "x", codec.PublishOptions{QoS: 1, PacketID: 9}))
		p.expect(packets.Puback)
	}
	p.write(p.frame("a", "x", codec.PublishOptions{QoS: 2, PacketID: 4}))
	p.expect(packets.Pubrec)
	p.write(p.frame("a", "x", codec.PublishOptions{QoS: 1, PacketID: 5}))
	p.closed(reasonReceiveMaximum)
	// Clients before version 5 are only read no further.
	p3 := connect(t, n, 4, "p3")
	var b []byte
	for i := uint16(1); i <= 500; i++ {
		b = append(b, p3.frame("a", "x", codec.PublishOptions{QoS: 1, PacketID: i})...)
	}
	p3.write(b)
	for i := uint16(1); i <= 500; i++ {
		if a := p3.expect(packets.Puback); a.PacketID != i { // [MQTT-4.6.0-2]
			t.Fatalf("PUBACK of %d, want %d", a.PacketID, i)
		}
	}
}

func TestReceiveMaximumOfTheClient(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	for _, opts := range [][]option{nil, {persistent}} {
		s := connect(t, n, 5, "s", append(opts, receiveMaximum(2))...)
		s.subscribe(sub("a", 2))
		p := connect(t, n, 5, "p")
		for i := range 6 {
			p.publish("a", fmt.Sprint(i), byte(1+i%2), false)
		}
		p.publish("a", "zero", 0, false)
		p.quiet()
		var held []*packets.Packet
		for len(held) < 3 { // two, and QoS 0, which nothing holds back
			held = append(held, s.skipTo(packets.Publish))
		}
		s.quiet()
		n := 2
		for _, m := range held {
			if m.FixedHeader.Qos == 0 {
				continue
			}
			answer(s, m)
			n += 0
		}
		for range 4 {
			s.message()
		}
		s.quiet()
		s.disconnect()
		connect(t, c.nodes[0], 5, "s").disconnect()
	}
}

func answer(s *peer, m *packets.Packet) {
	if m.FixedHeader.Qos == 1 {
		s.ack(codec.TypePuback, m.PacketID, 0)
		return
	}
	s.ack(codec.TypePubrec, m.PacketID, 0)
	s.skipTo(packets.Pubrel)
	s.ack(codec.TypePubcomp, m.PacketID, 0)
}

func TestTopicAliases(t *testing.T) {
	c := newCluster(t, 1, Config{TopicAliasMaximum: 2})
	n := c.nodes[0]
	s := connect(t, n, 5, "s", func(p *packets.Packet) { p.Properties.TopicAliasMaximum = 1 })
	s.subscribe(sub("#", 1))
	p := connect(t, n, 5, "p")
	p.write(p.frame("a", "1", codec.PublishOptions{Alias: 1}))
	p.write(p.frame("a", "2", codec.PublishOptions{Alias: 1, OmitTopic: true}))
	p.write(p.frame("a", "3", codec.PublishOptions{Alias: 1, OmitTopic: true, QoS: 1, PacketID: 1}))
	p.skipTo(packets.Puback)
	p.write(p.frame("b", "4", codec.PublishOptions{Alias: 1}))
	p.write(p.frame("b", "5", codec.PublishOptions{Alias: 1, OmitTopic: true}))
	type got struct {
		topic string
		alias uint16
	}
	var all []got
	for range 5 {
		m := s.message()
		all = append(all, got{m.TopicName, m.Properties.TopicAlias})
	}
	want := []got{{"a", 1}, {"", 1}, {"", 1}, {"b", 0}, {"b", 0}}
	if !cmp.Equal(all, want, cmp.AllowUnexported(got{})) {
		t.Errorf("got %v, want %v", all, want)
	}
	p.write(p.frame("b", "x", codec.PublishOptions{Alias: 3}))
	p.closed(reasonAliasInvalid)
	p = connect(t, n, 5, "p")
	p.write(p.frame("b", "x", codec.PublishOptions{Alias: 1, OmitTopic: true}))
	p.closed(reasonProtocolError) // aliases do not outlive a connection
}

func TestExpiry(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 5, "s", persistent)
	s.subscribe(sub("a", 1))
	s.disconnect()
	p := connect(t, n, 5, "p")
	put := func(payload string, expiry uint32, qos byte) {
		p.write(p.frame("a", payload, codec.PublishOptions{QoS: qos, PacketID: 1, Expiry: expiry, HasExpiry: true}))
		if qos > 0 {
			p.skipTo(packets.Puback)
		}
	}
	put("short", 5, 1)
	put("long", 100, 1)
	c.skew.Store(60_000)
	p.publish("other", "", 1, false) // moves log time
	s = connect(t, n, 5, "s", persistent)
	m := s.message() // [MQTT-3.3.2-5], [MQTT-3.3.2-6]
	if string(m.Payload) != "long" || m.Properties.MessageExpiryInterval < 35 || m.Properties.MessageExpiryInterval > 41 {
		t.Errorf("got %q, expiry %d", m.Payload, m.Properties.MessageExpiryInterval)
	}
	put("now", 7, 0)
	if m := s.message(); m.Properties.MessageExpiryInterval != 7 {
		t.Errorf("got %q, expiry %d", m.Payload, m.Properties.MessageExpiryInterval)
	}
	s.quiet()
}

func TestMaximumPacketSize(t *testing.T) {
	c := newCluster(t, 1, Config{MaxPacketSize: 2000})
	n := c.nodes[0]
	s := connect(t, n, 5, "s", persistent, func(p *packets.Packet) { p.Properties.MaximumPacketSize = 100 })
	s.subscribe(sub("a", 2))
	p := connect(t, n, 5, "p")
	for qos := range byte(3) {
		p.publish("a", strings.Repeat("x", 200), qos, false)
		p.publish("a", "ok", qos, false)
		s.wantMessages("a", "ok") // [MQTT-3.1.2-25]
	}
	s.quiet()
	p.write(p.frame("a", strings.Repeat("x", 2000), codec.PublishOptions{}))
	p.closed(reasonTooLarge)
}

func TestSys(t *testing.T) {
	c := newCluster(t, 1, Config{})
	b := c.nodes[0].broker
	b.SetSys("$SYS/broker/version", []byte("1"))
	s := connect(t, c.nodes[0], 4, "s")
	s.subscribe(sub("#", 1), sub("$SYS/broker/#", 1))
	if m := s.message(); m.TopicName != "$SYS/broker/version" || !m.FixedHeader.Retain {
		t.Errorf("got %s, %+v", m.TopicName, m.FixedHeader)
	}
	b.SetSys("$SYS/broker/version", []byte("2"))
	s.wantMessages("$SYS/broker/version", "2")
	s.quiet()
}

func TestNobodySubscribes(t *testing.T) {
	c := newCluster(t, 2, Config{})
	p := connect(t, c.nodes[0], 5, "p")
	ask := func(want byte) {
		t.Helper()
		p.write(p.frame("a", "x", codec.PublishOptions{QoS: 1, PacketID: 1}))
		if a := p.expect(packets.Puback); a.ReasonCode != want {
			t.Errorf("PUBACK 0x%02X, want 0x%02X", a.ReasonCode, want)
		}
	}
	ask(reasonNoMatch)
	s := connect(t, c.nodes[1], 5, "s")
	s.subscribe(sub("a", 0))
	ask(0)
	s.disconnect()
	s = connect(t, c.nodes[1], 5, "s", persistent)
	s.subscribe(sub("a", 1))
	s.disconnect()
	ask(0)
}

// QoS 0 messages do not overtake retained ones of their publisher.
func TestZeroFollowsRetained(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 4, "s")
	s.subscribe(sub("a", 0))
	p := connect(t, n, 4, "p")
	var b []byte
	var want []string
	for i := range 200 {
		b = append(b, p.frame("a", fmt.Sprint(i), codec.PublishOptions{Retain: i%10 == 0})...)
		want = append(want, fmt.Sprint(i))
	}
	p.write(b)
	s.wantMessages("a", want...)
}

// A subscriber that stops reading costs the others nothing, and loses nothing
// that it is owed.
func TestSlowReader(t *testing.T) {
	c := newCluster(t, 1, Config{MaxQueuedMessages: 50, MaxQueuedBytes: 100_000})
	n := c.nodes[0]
	slow := connect(t, n, 5, "slow", persistent, receiveMaximum(10))
	slow.subscribe(sub("a", 1))
	clean := connect(t, n, 4, "clean")
	clean.subscribe(sub("a", 1))
	fast := connect(t, n, 5, "fast")
	fast.subscribe(sub("a", 1))
	p := connect(t, n, 5, "p")
	const count = 2000
	var want []string
	for i := range count {
		p.publish("a", fmt.Sprint(i), 1, false)
		fast.wantMessages("a", fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	slow.wantMessages("a", want...)
	slow.quiet()
	if d := n.broker.Stats().Dropped; d == 0 || d > count {
		t.Errorf("%d dropped for the slow clean client", d)
	}
}

func TestStalledSocketIsClosed(t *testing.T) {
	c := newCluster(t, 1, Config{StallTimeout: 300 * time.Millisecond, MaxQueuedBytes: 64 << 20})
	n := c.nodes[0]
	s := connect(t, n, 5, "s")
	s.in = make(chan *packets.Packet) // its reader blocks for good
	s.write(s.frame("x", "", codec.PublishOptions{}))
	raw := dialRaw(t, n, "stall")
	defer raw.Close()
	p := connect(t, n, 5, "p")
	big := strings.Repeat("x", 500_000)
	for n.broker.find("stall") != nil {
		p.publish("stall", big, 0, false)
		p.quiet()
	}
}

func TestKeepAlive(t *testing.T) {
	c := newCluster(t, 1, Config{})
	s := connect(t, c.nodes[0], 5, "s", func(p *packets.Packet) { p.Connect.Keepalive = 1 })
	start := time.Now()
	s.closed(reasonKeepAlive)
	if d := time.Since(start); d < 1400*time.Millisecond {
		t.Errorf("closed after %s", d)
	}
}

func TestRestoredSendsEverybodyAway(t *testing.T) {
	c := newCluster(t, 1, Config{})
	p := connect(t, c.nodes[0], 5, "p", persistent)
	c.do(func() { c.nodes[0].broker.Apply(fsm.Event{Kind: fsm.EventRestored}) })
	p.closed(reasonShuttingDown)
	if p = connect(t, c.nodes[0], 5, "p", persistent); !p.connack.SessionPresent {
		t.Error("the session is gone")
	}
}

// Mutated streams end their own connection at most.
func TestMutatedStreams(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	s := connect(t, n, 5, "s")
	s.subscribe(sub("watch", 1))
	w := connect(t, n, 5, "w")
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		version := []byte{3, 4, 5}[i%3]
		m := dial(t, n, version)
		b := streamOf(version, fmt.Sprint("m", i%5))
		for range 1 + rnd.IntN(4) {
			b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
		}
		m.t = quietT{t}
		m.write(b[:rnd.IntN(len(b)+1)])
		if i%2 == 0 {
			m.conn.Close()
		}
		if i%50 == 0 {
			w.publish("watch", fmt.Sprint(i), 1, false)
			s.wantMessages("watch", fmt.Sprint(i))
		}
	}
	if got := n.broker.Stats(); got.Connected == 0 {
		t.Error("nobody is connected")
	}
	var v float64 = counterValue(t, n.broker.m.panics)
	if v != 0 {
		t.Errorf("%v panics", v)
	}
}
