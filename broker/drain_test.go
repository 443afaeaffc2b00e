package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// until waits for a condition.
func until(t *testing.T, is func() bool, what string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		<-tick.C
	}
}

// A balancer that has noticed that the node will drain may cut connections before the
// node sends their clients away: no will fires for those who come back in time.
func TestAnnouncedNodeKeepsWillsBack(t *testing.T) {
	c := newCluster(t, 2, Config{})
	n := c.nodes[0]
	w := connect(t, c.nodes[1], 5, "watch")
	w.subscribe(sub("will", 1))
	cut := func(p *peer) {
		t.Helper()
		p.conn.Close()
		until(t, func() bool { return n.broker.Stats().Connected == 0 }, "the connection does not end")
		c.settle()
	}
	n.broker.Announce(false)
	cut(connect(t, n, 5, "a", persistent, withWill("will", "a is gone", 1, false)))
	if p := connect(t, c.nodes[1], 5, "a", persistent, withWill("will", "a is gone", 1, false)); !p.connack.SessionPresent {
		t.Error("the session is gone")
	}
	cut(connect(t, n, 4, "b", withWill("will", "b is gone", 1, false))) // it is still let in
	w.quiet()
	n.broker.Undrain()
	cut(connect(t, n, 5, "c", persistent, withWill("will", "c is gone", 1, false)))
	w.wantMessages("will", "c is gone")
}

// A node that does not come back says so: MQTT 5, sections 3.2.2.2 and 3.14.2.1.
func TestDrainForGood(t *testing.T) {
	for _, tt := range []struct {
		name, reference string
		forGood         bool
		want            byte
	}{
		{"for a time", "other.example:8883", false, reasonUseAnother},
		{"for good", "other.example:8883", true, reasonMoved},
		{"for good, and nobody knows where to", "", true, reasonShuttingDown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 1, Config{ServerReference: tt.reference})
			n := c.nodes[0]
			p := connect(t, n, 5, "p", persistent)
			n.broker.Announce(tt.forGood)
			if err := n.broker.Drain(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if d := p.expect(packets.Disconnect); d.ReasonCode != tt.want || d.Properties.ServerReference != tt.reference {
				t.Errorf("DISCONNECT 0x%02X %q", d.ReasonCode, d.Properties.ServerReference)
			}
			want := tt.want
			if tt.reference == "" {
				want = reasonUnavailable
			}
			if a := connectRaw(t, n, 5, "q").expect(packets.Connack); a.ReasonCode != want || a.Properties.ServerReference != tt.reference {
				t.Errorf("CONNACK 0x%02X %q", a.ReasonCode, a.Properties.ServerReference)
			}
			// What it announced is over with the drain.
			n.broker.Undrain()
			again := connect(t, n, 5, "p", persistent)
			if n.broker.Shed(t.Context(), 1) != 1 || again.expect(packets.Disconnect).ReasonCode != reasonUseAnother {
				t.Error("a node that stays sends clients away for good")
			}
		})
	}
}

// A drain that is taken back sends nobody away any more.
func TestDrainThatIsCancelled(t *testing.T) {
	for _, rate := range []int{0, 1} {
		c := newCluster(t, 1, Config{})
		n := c.nodes[0]
		p := connect(t, n, 5, "p", persistent)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.broker.Drain(ctx, rate); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled drain: %v", err)
		}
		p.quiet()
		n.broker.Undrain()
		connect(t, n, 5, "q")
	}
}
