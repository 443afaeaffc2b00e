//go:build linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// away is a session whose client has gone, and how long after that it must still
// be there and must be gone.
type away struct {
	name    string
	connect rawmqtt.Connect
	// leave ends the connection.
	leave       func(c *Client)
	stays, gone time.Duration // 0: not looked at
}

// TestSessionExpiry has sessions end by the log's time, wherever their client
// comes back: by what CONNECT said, by what DISCONNECT changed, by the ceiling of
// the operator, or never.
func TestSessionExpiry(t *testing.T) {
	t.Parallel()
	const ceiling = 6
	c := NewCluster(t, Options{Flags: []string{"--limits.persistent-client-expiration", fmt.Sprint(ceiling, "s")}})
	lose := func(c *Client) { c.Close() }
	v4 := rawmqtt.Connect{Version: 4}
	for _, tt := range []away{
		{"of seconds", persistent("", 3), lose, time.Second, 5 * time.Second},
		{"said goodbye", persistent("", 3), func(c *Client) { c.Disconnect(0) }, time.Second, 5 * time.Second},
		{"shortened by DISCONNECT", persistent("", 5), func(c *Client) { c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 1)) }, 0, 3 * time.Second},
		{"lengthened by DISCONNECT", persistent("", 1), func(c *Client) { c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 6)) }, 3 * time.Second, 0},
		{"ended by DISCONNECT", persistent("", 5), func(c *Client) { c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0)) }, 0, 300 * time.Millisecond},
		{"of the connection", persistent("", 0), lose, 0, 300 * time.Millisecond},
		{"never, but for the ceiling", persistent("", 0xFFFFFFFF), lose, 4 * time.Second, 8 * time.Second},
		{"3.1.1, of the ceiling", v4, lose, 4 * time.Second, 8 * time.Second},
		{"3.1.1, clean", rawmqtt.Connect{Version: 4, CleanStart: true}, lose, 0, 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// All at once: each takes as long as its expiry.
			t.Parallel()
			checkAway(t, c, tt)
		})
	}
	t.Run("CONNACK tells the ceiling", func(t *testing.T) {
		for asked, want := range map[uint32]int64{3: -1, ceiling: -1, 60: ceiling, 0xFFFFFFFF: ceiling} {
			s, ack, err := c.Nodes[0].TryConnect(persistent(fmt.Sprint("ceiling-", asked), asked))
			if err != nil {
				t.Fatal(err)
			}
			told, ok := ack.Int(rawmqtt.SessionExpiry)
			if ok != (want >= 0) || ok && int64(told) != want {
				t.Errorf("asked for %d s, CONNACK says %d (%v), want %d", asked, told, ok, want)
			}
			s.Close()
		}
	})
	t.Run("DISCONNECT may not set one where CONNECT set none", func(t *testing.T) {
		// [MQTT-3.14.2-2], a protocol error.
		s := c.Nodes[0].Connect(persistent("none", 0))
		if err := s.Send(rawmqtt.DisconnectPacket(5, 0, rawmqtt.Int(rawmqtt.SessionExpiry, 60))); err != nil {
			t.Fatal(err)
		}
		got, err := s.AwaitClose(patience)
		if err != nil || len(got) == 0 || got[len(got)-1].Type != rawmqtt.DISCONNECT || got[len(got)-1].Reason != 0x82 {
			t.Errorf("got %v, %v; want DISCONNECT 0x82", got, err)
		}
		if again := c.Nodes[1].Connect(persistent("none", 0)); again.Present {
			t.Error("the session is there")
		}
	})
}

// checkAway has two clients leave; one comes back while its session must be
// there, the other when it must be gone.
func checkAway(t *testing.T, c *Cluster, tt away) {
	for i, look := range []struct {
		after time.Duration
		want  bool
	}{{tt.stays, true}, {tt.gone, false}} {
		if look.after == 0 {
			continue
		}
		o := tt.connect
		o.ClientID = fmt.Sprintf("away-%s-%d", tt.name, i)
		first := c.Nodes[i].Connect(o)
		first.Sub(rawmqtt.Sub("away", 1))
		tt.leave(first)
		left := time.Now()
		o.CleanStart = false
		time.Sleep(time.Until(left.Add(look.after))) // the time that the test is about
		again := c.Nodes[i+1].Connect(o)
		if again.Present != look.want {
			t.Errorf("%v after its client left the session is there: %v, want %v", time.Since(left), again.Present, look.want)
		}
		again.Close()
	}
}

// TestNothingExpiresWhileAllAreOff has every node off for longer than a session's
// and a message's expiry, as in a power loss: no leader counted that time, so the
// session, its queue and its will's delay go on where they were.
func TestNothingExpiresWhileAllAreOff(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	const expiry, off = 8, 12 * time.Second
	s := c.Nodes[0].Connect(persistent("powerless", expiry))
	s.Sub(rawmqtt.Sub("powerless", 1))
	c.Nodes[1].Connect(persistent("connected", expiry)).Sub(rawmqtt.Sub("powerless", 1))
	s.Close()
	p := c.Nodes[2].Connect(clean("publisher"))
	ack, err := p.PublishAcked(rawmqtt.Publish{Topic: "powerless", QoS: 1, ID: 1, Payload: []byte("kept"),
		Properties: []rawmqtt.Property{rawmqtt.Int(rawmqtt.MessageExpiry, expiry)}})
	if err != nil || ack.Reason >= 0x80 {
		t.Fatalf("publish: %v %v", ack, err)
	}
	for _, n := range c.Nodes {
		n.Kill()
	}
	time.Sleep(off) // the time that the test is about
	for _, n := range c.Nodes {
		n.Start()
	}
	for i, id := range []string{"powerless", "connected"} {
		n := c.Nodes[i+1]
		var again *Client
		await(t, patience, func() bool {
			back, ack, err := n.TryConnect(persistent(id, expiry))
			again = back
			return err == nil && ack.Reason == 0
		}, func() string { return id + " cannot connect" })
		if !again.Present {
			t.Errorf("the session %s has expired while all nodes were off", id)
		}
		m := again.Messages(1, patience)[0]
		left, ok := m.Int(rawmqtt.MessageExpiry)
		if string(m.Payload) != "kept" || !ok || left > expiry {
			t.Errorf("got %v with expiry %d", m, left)
		}
	}
}

// TestLateWordOfAFormerSession ends a session while its client has messages under
// way, and lets what the old connection still says come late: the new session of
// the same name is owed all of its own.
func TestLateWordOfAFormerSession(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			c.In(t)
			id := fmt.Sprint("former-", qos)
			p := c.Nodes[2].Connect(clean(id + "-publisher"))
			old := c.Nodes[0].Connect(persistent(id, 3600))
			old.AutoAck = false
			old.Sub(rawmqtt.Sub(id, qos))
			p.Pub(id, qos, false, "old")
			m := old.Messages(1, patience)[0]
			fresh := persistent(id, 3600)
			fresh.CleanStart = true
			s := c.Nodes[1].Connect(fresh)
			s.AutoAck = false
			if s.Present {
				t.Error("the session outlived a clean start")
			}
			s.Sub(rawmqtt.Sub(id, qos))
			// The old connection does not know yet that it is over.
			kind := rawmqtt.PUBACK
			if qos == 2 {
				kind = rawmqtt.PUBREC
			}
			for range 3 {
				_ = old.Send(rawmqtt.AckPacket(5, kind, m.ID, 0)) // the node may have closed it
			}
			old.Close()
			p.Pub(id, qos, false, "new")
			got := s.Messages(1, patience)[0]
			s.Close()
			s = c.Nodes[2].Connect(persistent(id, 3600))
			again := s.Messages(1, patience)[0]
			if !s.Present || string(got.Payload) != "new" || string(again.Payload) != "new" || !again.Dup || qos == 2 && again.ID != got.ID {
				t.Errorf("got %v, and after a reconnect %v", got, again)
			}
			s.Quiet(quiet)
			s.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
		})
	}
}

// TestRetainedGoOnAfterKill kills the node of a session while it is sent the
// retained messages that it subscribed to: the rest comes from another node, and
// at QoS 2 nothing comes twice.
func TestRetainedGoOnAfterKill(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	victim, others := c.Followers()[0], c.Followers()[1:]
	others = append(others, c.Leader())
	count := scaled(400)
	p := others[0].Connect(clean("keeper"))
	var want []string
	for i := range count {
		want = append(want, fmt.Sprint(i))
		p.Pub(fmt.Sprintf("kept/%05d", i), 2, true, want[i])
	}
	twice := newEndpoint2(t, "kept-2", 5, 20)
	once := newEndpoint2(t, "kept-1", 4, 0)
	all := []*endpoint2{twice, once}
	for i, e := range all {
		e.start(victim)
		e.c.Sub(rawmqtt.Sub("kept/#", byte(2-i)))
	}
	twice.until("a part has come", func() bool { return len(twice.seen) >= count/3 })
	acked := map[string]bool{}
	for _, m := range once.c.Messages(count/3, patience) {
		acked[string(m.Payload)] = true
		once.ack(rawmqtt.PUBACK, m.ID)
	}
	victim.Kill()
	for _, e := range all {
		e.c.Close()
		e.resume(others...)
	}
	p = others[0].Connect(clean("keeper-after"))
	p.Pub("kept/00000", 2, true, "newer") // comes by the queue, after them
	want = append(want, "newer")
	twice.until("all have come", func() bool { return len(twice.seen) == len(want) && len(twice.open) == 0 })
	twice.rest()
	twice.exactly(want)
	repeated := 0
	for !acked["newer"] {
		m := once.c.Messages(1, patience)[0]
		once.ack(rawmqtt.PUBACK, m.ID)
		if acked[string(m.Payload)] {
			repeated++
		}
		acked[string(m.Payload)] = true
	}
	for _, s := range want {
		if !acked[s] {
			t.Errorf("QoS 1: %s did not come", s)
		}
	}
	t.Logf("%d retained messages, at QoS 1 %d came again", count, repeated)
}
