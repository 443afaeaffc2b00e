package broker

import (
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// persistent sessions across nodes: P2 and P3.

func TestSessionResumesOnAnotherNode(t *testing.T) {
	c := newCluster(t, 3, Config{})
	for _, version := range []byte{4, 5} {
		id := fmt.Sprintf("s%d", version)
		s := connect(t, c.nodes[0], version, id, persistent)
		if s.connack.SessionPresent {
			t.Fatal("a new session is present")
		}
		s.subscribe(sub("q/#", 1))
		s.disconnect()
		p := connect(t, c.nodes[1], version, "pub"+id)
		const n = 700 // several chunks
		for i := range n {
			p.publish("q/a", fmt.Sprint(i), 1, false)
		}
		s = connect(t, c.nodes[2], version, id, persistent)
		if !s.connack.SessionPresent {
			t.Fatal("the session is not present")
		}
		for i := range n {
			if m := s.message(); string(m.Payload) != fmt.Sprint(i) || m.FixedHeader.Dup {
				t.Fatalf("version %d: got %q dup %v, want %d", version, m.Payload, m.FixedHeader.Dup, i)
			}
		}
		p.publish("q/b", "live", 1, false)
		s.wantMessages("q/b", "live")
		s.quiet()
		s.disconnect()
		// What was acknowledged does not come again.
		s = connect(t, c.nodes[0], version, id, persistent)
		s.quiet()
		// A clean start ends the session.
		s.disconnect()
		s = connect(t, c.nodes[1], version, id)
		if s.connack.SessionPresent {
			t.Fatal("the session is present after a clean start")
		}
		p.publish("q/b", "nobody", 1, false)
		s.quiet()
	}
}

func TestTakeover(t *testing.T) {
	c := newCluster(t, 2, Config{})
	for _, at := range []int{0, 1} {
		for _, opts := range [][]option{nil, {persistent}} {
			old := connect(t, c.nodes[0], 5, "same", opts...)
			old3 := connect(t, c.nodes[0], 4, "same3", opts...)
			old.subscribe(sub("t", 1))
			connect(t, c.nodes[at], 5, "same", opts...).disconnect()
			old.closed(reasonTakenOver) // [MQTT-3.1.4-3]
			connect(t, c.nodes[at], 4, "same3", opts...).disconnect()
			old3.closed(0)
		}
	}
	if got := c.nodes[0].broker.n.subscriptions.Load(); got != 0 {
		t.Errorf("%d subscriptions are left", got)
	}
}

func TestInflightOfQoS1IsResentFirst(t *testing.T) {
	c := newCluster(t, 2, Config{})
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 1))
	p := connect(t, c.nodes[0], 5, "p")
	for i := range 5 {
		p.publish("a", fmt.Sprint(i), 1, false)
	}
	var ids []uint16
	for range 5 {
		ids = append(ids, s.expect(packets.Publish).PacketID)
	}
	s.ack(codec.TypePuback, ids[0], 0)
	s.ack(codec.TypePuback, ids[1], 0)
	s.quiet()
	s.disconnect()
	p.publish("a", "5", 1, false)
	s = connect(t, c.nodes[1], 5, "s", persistent)
	for i := 2; i < 5; i++ {
		m := s.expect(packets.Publish)
		if string(m.Payload) != fmt.Sprint(i) || m.PacketID != ids[i] || !m.FixedHeader.Dup {
			t.Fatalf("got %q id %d dup %v, want %d id %d dup", m.Payload, m.PacketID, m.FixedHeader.Dup, i, ids[i])
		}
		s.ack(codec.TypePuback, m.PacketID, 0)
	}
	if m := s.message(); string(m.Payload) != "5" || m.FixedHeader.Dup {
		t.Fatalf("got %q dup %v", m.Payload, m.FixedHeader.Dup)
	}
	s.quiet()
}

func TestNothingIsLostWhenANodeCrashes(t *testing.T) {
	c := newCluster(t, 2, Config{})
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 2))
	p := connect(t, c.nodes[1], 5, "p")
	for i := range 20 {
		p.publish("a", fmt.Sprint(i), 1, false)
	}
	for range 10 {
		s.message()
	}
	c.crash(c.nodes[0])
	s = connect(t, c.nodes[1], 5, "s", persistent)
	if !s.connack.SessionPresent {
		t.Fatal("the session is gone")
	}
	got := map[string]bool{}
	last := -1
	for !got["19"] {
		m := s.message()
		var i int
		fmt.Sscan(string(m.Payload), &i)
		if i <= last {
			t.Fatalf("%d came after %d", i, last)
		}
		last = i
		got[string(m.Payload)] = true
	}
	for i := 10; i < 20; i++ {
		if !got[fmt.Sprint(i)] {
			t.Errorf("%d was lost", i)
		}
	}
}

// Exactly once, outgoing: the state goes with the session, wherever it stopped.
func TestQoS2OutgoingAcrossACrash(t *testing.T) {
	for _, stop := range []string{"publish", "pubrec", "pubrel", "pubcomp"} {
		t.Run(stop, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			s := connect(t, c.nodes[0], 5, "s", persistent)
			s.subscribe(sub("a", 2))
			p := connect(t, c.nodes[1], 5, "p")
			p.publish("a", "once", 2, false)
			m := s.expect(packets.Publish)
			if stop != "publish" {
				s.ack(codec.TypePubrec, m.PacketID, 0)
				s.expect(packets.Pubrel) // it is in the log by now
			}
			if stop == "pubcomp" {
				s.ack(codec.TypePubcomp, m.PacketID, 0)
				c.nodes[0].broker.find("s").waitMarks()
				c.settle()
			}
			c.crash(c.nodes[0])
			s = connect(t, c.nodes[1], 5, "s", persistent)
			switch stop {
			case "publish":
				again := s.expect(packets.Publish)
				if again.PacketID != m.PacketID || !again.FixedHeader.Dup || again.FixedHeader.Qos != 2 {
					t.Fatalf("resent as %+v id %d, was id %d", again.FixedHeader, again.PacketID, m.PacketID)
				}
				s.ack(codec.TypePubrec, m.PacketID, 0)
				s.expect(packets.Pubrel)
				s.ack(codec.TypePubcomp, m.PacketID, 0)
			case "pubrec", "pubrel":
				if rel := s.expect(packets.Pubrel); rel.PacketID != m.PacketID {
					t.Fatalf("PUBREL of %d, want %d", rel.PacketID, m.PacketID)
				}
				s.ack(codec.TypePubcomp, m.PacketID, 0)
			}
			s.quiet()
			p.publish("a", "next", 2, false)
			s.wantMessages("a", "next")
			s.quiet()
		})
	}
}

// waitMarks submits what is pending now instead of some time later.
func (c *client) waitMarks() {
	for {
		c.mu.Lock()
		n := len(c.out.marks)
		c.mu.Unlock()
		if n > 0 {
			c.submitMarks()
			return
		}
	}
}

// Exactly once, incoming: the packet id is in the log with the message.
func TestQoS2IncomingAcrossACrash(t *testing.T) {
	c := newCluster(t, 2, Config{})
	s := connect(t, c.nodes[1], 5, "s")
	s.subscribe(sub("a", 2))
	p := connect(t, c.nodes[0], 5, "p", persistent)
	p.write(p.frame("a", "once", codec.PublishOptions{QoS: 2, PacketID: 5}))
	p.expect(packets.Pubrec)
	c.crash(c.nodes[0])
	p = connect(t, c.nodes[1], 5, "p", persistent)
	p.write(p.frame("a", "once", codec.PublishOptions{QoS: 2, PacketID: 5, Dup: true}))
	p.expect(packets.Pubrec)
	p.ack(codec.TypePubrel, 5, 0)
	if got := p.expect(packets.Pubcomp); got.ReasonCode != 0 {
		t.Fatalf("PUBCOMP 0x%02X", got.ReasonCode)
	}
	p.ack(codec.TypePubrel, 5, 0)
	if got := p.expect(packets.Pubcomp); got.ReasonCode != reasonIDNotFound {
		t.Fatalf("PUBCOMP of an unknown id: 0x%02X", got.ReasonCode)
	}
	s.wantMessages("a", "once")
	s.quiet()
}

func TestWills(t *testing.T) {
	c := newCluster(t, 2, Config{})
	w := connect(t, c.nodes[1], 5, "watch")
	w.subscribe(sub("will/#", 1))
	t.Run("lost connection", func(t *testing.T) {
		connect(t, c.nodes[0], 4, "a", withWill("will/a", "gone", 1, false)).conn.Close()
		w.wantMessages("will/a", "gone")
	})
	t.Run("DISCONNECT 0x00", func(t *testing.T) {
		connect(t, c.nodes[0], 5, "b", withWill("will/b", "gone", 1, false)).disconnect()
		c.settle()
		w.quiet()
	})
	t.Run("DISCONNECT 0x04", func(t *testing.T) {
		p := connect(t, c.nodes[0], 5, "c", withWill("will/c", "gone", 1, false))
		p.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: 4})
		w.wantMessages("will/c", "gone")
	})
	t.Run("protocol error", func(t *testing.T) {
		p := connect(t, c.nodes[0], 5, "d", withWill("will/d", "gone", 2, false))
		p.write([]byte{0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF})
		w.wantMessages("will/d", "gone")
	})
	t.Run("crash", func(t *testing.T) {
		connect(t, c.nodes[0], 5, "e", withWill("will/e", "gone", 1, false))
		c.crash(c.nodes[0])
		w.wantMessages("will/e", "gone")
		w.quiet()
	})
}

func TestWillRights(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	n.deny(func(publish bool, topic string) bool { return publish && topic == "no" })
	for _, topic := range []string{"no", "$SYS/x"} {
		if p := connectRaw(t, n, 5, "a", withWill(topic, "x", 0, false)).expect(packets.Connack); p.ReasonCode != reasonNotAuthorized {
			t.Errorf("%s: CONNACK 0x%02X", topic, p.ReasonCode)
		}
		if p := connectRaw(t, n, 4, "a", withWill(topic, "x", 0, false)).expect(packets.Connack); p.ReasonCode != 5 {
			t.Errorf("%s: CONNACK %d", topic, p.ReasonCode)
		}
	}
}

func TestDrainKeepsWillsBack(t *testing.T) {
	c := newCluster(t, 2, Config{ServerReference: "other.example:8883"})
	w := connect(t, c.nodes[1], 5, "watch")
	w.subscribe(sub("will", 1))
	p := connect(t, c.nodes[0], 5, "p", persistent, withWill("will", "gone", 1, false))
	p3 := connect(t, c.nodes[0], 4, "p3", persistent, withWill("will", "gone", 1, false))
	if err := c.nodes[0].broker.Drain(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if d := p.expect(packets.Disconnect); d.ReasonCode != reasonUseAnother || d.Properties.ServerReference != "other.example:8883" {
		t.Fatalf("DISCONNECT 0x%02X %q", d.ReasonCode, d.Properties.ServerReference)
	}
	p3.closed(0)
	if a := connectRaw(t, c.nodes[0], 5, "p").expect(packets.Connack); a.ReasonCode != reasonUseAnother {
		t.Fatalf("CONNACK 0x%02X while draining", a.ReasonCode)
	}
	for _, id := range []string{"p", "p3"} {
		if a := connect(t, c.nodes[1], 5, id, persistent); !a.connack.SessionPresent {
			t.Fatalf("the session of %s is gone", id)
		}
	}
	c.settle()
	w.quiet()
	c.nodes[0].broker.Undrain()
	connect(t, c.nodes[0], 5, "again")
}

func TestShed(t *testing.T) {
	c := newCluster(t, 2, Config{})
	w := connect(t, c.nodes[1], 5, "watch")
	w.subscribe(sub("will", 1))
	var all []*peer
	for i := range 4 {
		all = append(all, connect(t, c.nodes[0], 5, fmt.Sprintf("p%d", i), persistent, withWill("will", "gone", 1, false)))
	}
	if n := c.nodes[0].broker.Shed(t.Context(), 9); n != len(all) {
		t.Fatalf("%d clients were sent away, want %d", n, len(all))
	}
	for i, p := range all {
		if d := p.expect(packets.Disconnect); d.ReasonCode != reasonUseAnother {
			t.Fatalf("DISCONNECT 0x%02X", d.ReasonCode)
		}
		// The node goes on: the balancer may send a client back to it.
		if a := connect(t, c.nodes[i%2], 5, fmt.Sprintf("p%d", i), persistent); !a.connack.SessionPresent {
			t.Fatalf("the session of p%d is gone", i)
		}
	}
	c.settle()
	w.quiet()
	if n := c.nodes[0].broker.Shed(t.Context(), 1); n != 1 {
		t.Errorf("%d clients were sent away, want 1", n)
	}
}

func TestSharedSubscriptions(t *testing.T) {
	c := newCluster(t, 3, Config{})
	var members []*peer
	for i, n := range c.nodes {
		m := connect(t, n, 5, fmt.Sprintf("m%d", i))
		m.subscribe(sub("$share/g/a/+", 1))
		members = append(members, m)
	}
	plain := connect(t, c.nodes[2], 4, "plain")
	plain.subscribe(sub("a/b", 1))
	p := connect(t, c.nodes[0], 5, "p")
	const each = 60
	for i := range each {
		p.publish("a/b", fmt.Sprintf("one %d", i), 1, false)
		p.publish("a/b", fmt.Sprintf("zero %d", i), 0, false)
	}
	p.quiet()
	for range 2 * each {
		plain.message()
	}
	plain.quiet()
	seen := map[string]int{}
	for i, m := range members {
		n := 0
		for {
			m.write([]byte{0xC0, 0})
			got := m.next()
			if got.FixedHeader.Type == packets.Pingresp {
				break
			}
			m.pending = append([]*packets.Packet{got}, m.pending...)
			seen[string(m.message().Payload)]++
			m.skipTo(packets.Pingresp)
			n++
		}
		if n == 0 {
			t.Errorf("member %d got nothing", i)
		}
	}
	if len(seen) != 2*each {
		t.Errorf("%d messages came, want %d", len(seen), 2*each)
	}
	for k, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", k, n)
		}
	}
}

// What a member did not acknowledge goes to another one when it goes away
// [MQTT-4.8.2-4].
func TestSharedIsHandedOn(t *testing.T) {
	c := newCluster(t, 2, Config{})
	m0 := connect(t, c.nodes[0], 5, "m0")
	m1 := connect(t, c.nodes[1], 5, "m1")
	m0.subscribe(sub("$share/g/a", 1))
	m1.subscribe(sub("$share/g/a", 1))
	p := connect(t, c.nodes[0], 5, "p")
	const n = 40
	for i := range n {
		p.publish("a", fmt.Sprint(i), 1, false)
	}
	m0.conn.Close() // nothing acknowledged
	seen := map[string]bool{}
	for len(seen) < n {
		seen[string(m1.message().Payload)] = true
	}
	m1.quiet()
}

func TestForeignSession(t *testing.T) {
	c := newCluster(t, 1, Config{})
	user := func(u, pw string) option {
		return func(p *packets.Packet) {
			p.Connect.UsernameFlag, p.Connect.Username = true, []byte(u)
			p.Connect.PasswordFlag, p.Connect.Password = true, []byte(pw)
		}
	}
	n := c.nodes[0]
	connect(t, n, 5, "x", persistent, user("a", "ok"))
	for _, v := range []struct{ version, want byte }{{4, 2}, {5, reasonClientID}} {
		if p := connectRaw(t, n, v.version, "x", user("b", "ok")).expect(packets.Connack); p.ReasonCode != v.want {
			t.Errorf("version %d: CONNACK 0x%02X", v.version, p.ReasonCode)
		}
	}
	for _, v := range []struct {
		version, want byte
		password      string
	}{{4, 4, "wrong"}, {5, reasonBadCredentials, "wrong"}, {3, 3, "late"}, {5, reasonBusy, "late"}} {
		if p := connectRaw(t, n, v.version, "y", user("b", v.password)).expect(packets.Connack); p.ReasonCode != v.want {
			t.Errorf("version %d: CONNACK 0x%02X", v.version, p.ReasonCode)
		}
	}
}

func TestOperatorEndsASession(t *testing.T) {
	c := newCluster(t, 1, Config{})
	p := connect(t, c.nodes[0], 5, "x", persistent)
	c.nodes[0].Submit(&logpb.Item{Kind: &logpb.Item_SessionEnd{SessionEnd: &logpb.SessionEnd{Client: "x"}}}, ignore)
	p.closed(reasonAdministrative)
	p = connect(t, c.nodes[0], 5, "y")
	if !c.nodes[0].broker.Kick("y", reasonNotAuthorized) {
		t.Fatal("not found")
	}
	p.closed(reasonNotAuthorized)
}
