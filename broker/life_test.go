package broker

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"github.com/mqcluster/mqcluster/broker/codec"
)

// Whatever state its clients are in, Close ends all goroutines.
func TestCloseLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("cluster", func(t *testing.T) {
		c := newCluster(t, 2, Config{})
		n := c.nodes[0]
		p := connect(t, n, 5, "p")
		for i := range 600 {
			p.publish(fmt.Sprint("r/", i), "x", byte(i%3), true)
		}
		dial(t, n, 4)
		half := dial(t, n, 4)
		half.write([]byte{0x10, 0x80})
		s := connect(t, n, 5, "s", persistent, receiveMaximum(1))
		s.subscribe(sub("r/#", 2)) // more retained messages than it takes
		dialRaw(t, n, "raw")
		connect(t, c.nodes[1], 4, "t", persistent).subscribe(sub("#", 1))
		p.publish("x", "y", 2, false)
	})
}

func TestPanicEndsOneConnection(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	w := connect(t, n, 5, "w")
	w.subscribe(sub("#", 1))
	p := connect(t, n, 5, "p", withWill("will", "gone", 1, false))
	n.deny(func(publish bool, topic string) bool {
		if publish && topic == "panic" {
			panic("of a test")
		}
		return false
	})
	p.write(p.frame("panic", "x", codec.PublishOptions{}))
	p.closed(0)
	w.wantMessages("will", "gone")
	if got := counterValue(t, n.broker.m.panics); got != 1 {
		t.Errorf("%v panics counted", got)
	}
}

// A release that did not get through is made up for.
func TestReleaseIsRetried(t *testing.T) {
	c := newCluster(t, 2, Config{})
	w := connect(t, c.nodes[1], 5, "w")
	w.subscribe(sub("will", 1))
	p := connect(t, c.nodes[0], 5, "p", withWill("will", "gone", 1, false))
	c.nodes[0].unleased.Store(true)
	p.conn.Close()
	for c.nodes[0].broker.find("p") != nil {
		w.quiet()
	}
	c.nodes[0].unleased.Store(false)
	w.wantMessages("will", "gone")
	w.quiet()
}

// A client that leaves a node and comes to another at once may be claimed there
// before its release is in the log: its will does not fire. That of one which
// did not leave does.
func TestWillOfTheOvertaken(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*peer)
		want bool
	}{
		{"DISCONNECT", (*peer).disconnect, false},
		{"lost", func(p *peer) { p.conn.Close() }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			w := connect(t, c.nodes[1], 5, "w")
			w.subscribe(sub("will", 1))
			p := connect(t, c.nodes[0], 5, "p", withWill("will", "gone", 1, false))
			c.nodes[0].unleased.Store(true) // what it submits waits
			test.end(p)
			for c.nodes[0].broker.find("p") != nil {
				w.quiet()
			}
			connect(t, c.nodes[1], 5, "p")
			w.quiet()
			c.nodes[0].unleased.Store(false)
			if test.want {
				w.wantMessages("will", "gone")
			}
			for kept := 1; kept > 0; w.quiet() {
				kept = c.nodes[0].broker.progress.waiting()
			}
			c.settle()
			w.quiet()
		})
	}
	t.Run("connected", func(t *testing.T) {
		c := newCluster(t, 2, Config{})
		w := connect(t, c.nodes[1], 5, "w")
		w.subscribe(sub("will", 1))
		p := connect(t, c.nodes[0], 5, "p", withWill("will", "gone", 1, false))
		connect(t, c.nodes[1], 5, "p")
		p.closed(reasonTakenOver)
		w.wantMessages("will", "gone")
		w.quiet()
	})
}

type challenge struct{}

func (challenge) Begin(Credentials) Exchange { return new(exchange) }

type exchange struct{ asked bool }

func (e *exchange) Next(_ context.Context, data []byte) ([]byte, string, bool, error) {
	switch {
	case !e.asked:
		e.asked = true
		return []byte("who?"), "", false, nil
	case string(data) == "bad":
		return nil, "", false, errors.New("bad answer")
	}
	return []byte("hello"), string(data), true, nil
}

func TestEnhancedAuthentication(t *testing.T) {
	c := newCluster(t, 1, Config{})
	n := c.nodes[0]
	n.broker.deps.Enhanced = map[string]Enhanced{"ask": challenge{}}
	auth := func(p *peer, reason byte, data string) {
		a := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ReasonCode: reason}
		a.Properties.AuthenticationMethod, a.Properties.AuthenticationData = "ask", []byte(data)
		p.send(a)
	}
	method := func(p *packets.Packet) { p.Properties.AuthenticationMethod = "ask" }
	p := connectRaw(t, n, 5, "a", method)
	if a := p.expect(packets.Auth); a.ReasonCode != reasonContinue || string(a.Properties.AuthenticationData) != "who?" {
		t.Fatalf("AUTH 0x%02X %q", a.ReasonCode, a.Properties.AuthenticationData)
	}
	auth(p, reasonContinue, "me")
	if a := p.expect(packets.Connack); a.ReasonCode != 0 || string(a.Properties.AuthenticationData) != "hello" || a.Properties.AuthenticationMethod != "ask" {
		t.Fatalf("CONNACK 0x%02X %+v", a.ReasonCode, a.Properties)
	}
	auth(p, reasonReauthenticate, "")
	p.expect(packets.Auth)
	auth(p, reasonContinue, "me")
	if a := p.expect(packets.Auth); a.ReasonCode != 0 {
		t.Fatalf("AUTH 0x%02X", a.ReasonCode)
	}
	auth(p, reasonReauthenticate, "")
	p.expect(packets.Auth)
	auth(p, reasonContinue, "somebody else")
	p.closed(reasonNotAuthorized)
	p = connectRaw(t, n, 5, "b", method)
	p.expect(packets.Auth)
	auth(p, reasonContinue, "bad")
	if a := p.expect(packets.Connack); a.ReasonCode != reasonNotAuthorized {
		t.Fatalf("CONNACK 0x%02X", a.ReasonCode)
	}
}

// waiting is how many releases wait to be submitted again.
func (p *progress) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.kept)
}
