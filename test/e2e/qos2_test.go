//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// handshake is where the handshake of a QoS 2 message stops when the node is
// killed.
type handshake int

const (
	nothing    handshake = iota // PUBLISH has not been sent
	gotPublish                  // PUBLISH is sent (inbound) or was received (outbound)
	gotPubrec
	gotPubrel
	gotPubcomp
)

func (h handshake) String() string {
	return [...]string{"nothing", "PUBLISH", "PUBREC", "PUBREL", "PUBCOMP"}[h]
}

var handshakes = []handshake{nothing, gotPublish, gotPubrec, gotPubrel, gotPubcomp}

// endpoint2 is one side of QoS 2 handshakes, with the memory that the standard
// wants of a client: it outlives the connection.
type endpoint2 struct {
	t       *testing.T
	connect rawmqtt.Connect
	c       *Client
	at      *Node
	stop    handshake // how far handshakes are taken

	// Received: ids whose PUBREL is awaited, and how often each payload came.
	open map[uint16]bool
	seen map[string]int
	rels int
	// Sent: how far each id has come, and what it carries.
	out  map[uint16]handshake
	sent map[uint16]rawmqtt.Publish
}

func newEndpoint2(t *testing.T, id string, version byte, receiveMaximum uint32) *endpoint2 {
	o := persistent(id, 3600)
	o.Version = version
	if receiveMaximum > 0 {
		o.Properties = append(o.Properties, rawmqtt.Int(rawmqtt.ReceiveMaximum, receiveMaximum))
	}
	return &endpoint2{t: t, connect: o, stop: gotPubcomp, open: map[uint16]bool{}, seen: map[string]int{},
		out: map[uint16]handshake{}, sent: map[uint16]rawmqtt.Publish{}}
}

// start makes the session.
func (e *endpoint2) start(n *Node) {
	e.t.Helper()
	e.c = n.Connect(e.connect)
	e.c.AutoAck = false
	e.at = n
	if e.c.Present {
		e.t.Fatalf("%s: the session is there before it was made", e.connect.ClientID)
	}
}

// resume connects to the first of the nodes that takes it; the session must be
// there.
func (e *endpoint2) resume(nodes ...*Node) {
	e.t.Helper()
	deadline := time.Now().Add(patience)
	for i := 0; ; i++ {
		n := nodes[i%len(nodes)]
		c, ack, err := n.TryConnect(e.connect)
		if err == nil && ack.Reason == 0 {
			c.AutoAck = false
			e.c, e.at = c, n
			break
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%s resumes on none of the nodes: %v %v", e.connect.ClientID, ack, err)
		}
		time.Sleep(20 * time.Millisecond) // a client's back-off
	}
	if !e.c.Present {
		e.t.Errorf("%s: the session is gone", e.connect.ClientID)
	}
	for _, id := range slices.Sorted(maps.Keys(e.out)) {
		switch e.out[id] {
		case gotPublish:
			p := e.sent[id]
			p.Dup = true
			e.send(p.Packet(e.connect.Version))
		case gotPubrec, gotPubrel:
			e.send(rawmqtt.AckPacket(e.connect.Version, rawmqtt.PUBREL, id, 0))
		}
	}
}

func (e *endpoint2) send(b []byte) {
	e.t.Helper()
	if err := e.c.Send(b); err != nil {
		e.t.Logf("%s: %v", e.connect.ClientID, err) // the node may be dead already
	}
}

func (e *endpoint2) ack(kind byte, id uint16) {
	e.t.Helper()
	e.send(rawmqtt.AckPacket(e.connect.Version, kind, id, 0))
}

// publish sends a message under an id.
func (e *endpoint2) publish(id uint16, topic, payload string) {
	e.t.Helper()
	p := rawmqtt.Publish{Topic: topic, Payload: []byte(payload), QoS: 2, ID: id}
	e.sent[id], e.out[id] = p, gotPublish
	e.send(p.Packet(e.connect.Version))
}

// handle does what the standard wants of the client, as far as stop allows.
func (e *endpoint2) handle(p *rawmqtt.Packet) {
	e.t.Helper()
	switch p.Type {
	case rawmqtt.PUBLISH:
		if p.QoS != 2 {
			e.t.Errorf("%s: got %v", e.connect.ClientID, p)
		}
		if !e.open[p.ID] {
			e.open[p.ID] = true
			e.seen[string(p.Payload)]++
		}
		if e.stop >= gotPubrec {
			e.ack(rawmqtt.PUBREC, p.ID)
		}
	case rawmqtt.PUBREL:
		delete(e.open, p.ID)
		e.rels++
		if e.stop >= gotPubcomp {
			e.ack(rawmqtt.PUBCOMP, p.ID)
		}
	case rawmqtt.PUBREC:
		if p.Reason >= 0x80 {
			e.t.Errorf("%s: %v", e.connect.ClientID, p)
		}
		e.out[p.ID] = gotPubrec
		if e.stop >= gotPubrel {
			e.out[p.ID] = gotPubrel
			e.ack(rawmqtt.PUBREL, p.ID)
		}
	case rawmqtt.PUBCOMP:
		delete(e.out, p.ID)
		delete(e.sent, p.ID)
	}
}

// until handles packets until the condition holds.
func (e *endpoint2) until(what string, done func() bool) {
	e.t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		p, err := e.c.Read(time.Until(deadline))
		if err != nil {
			e.t.Fatalf("%s on %s waits until %s: %v (seen %d, open %v, out %v)", e.connect.ClientID, e.at.ID, what, err, len(e.seen), e.open, e.out)
		}
		e.handle(p)
	}
}

// rest handles packets until none comes for a while.
func (e *endpoint2) rest() {
	e.t.Helper()
	for {
		p, err := e.c.Read(quiet)
		if errors.Is(err, rawmqtt.ErrTimeout) {
			return
		}
		if err != nil {
			e.t.Errorf("%s: %v", e.connect.ClientID, err)
			return
		}
		e.handle(p)
	}
}

// exactly fails unless each of the payloads came once and no other did.
func (e *endpoint2) exactly(want []string) {
	e.t.Helper()
	exactlyOnce(e.t, e.connect.ClientID, want, maps.Clone(e.seen))
	if len(e.open)+len(e.out) > 0 {
		e.t.Errorf("%s: handshakes are open: %v %v", e.connect.ClientID, e.open, e.out)
	}
}

// case2 is one session whose handshakes stand at one stage when a node dies.
type case2 struct {
	*endpoint2
	inbound bool
	stage   handshake
	count   int
	topic   string
	want    []string
}

// case2s are all stages in both directions, each with one message and a Receive
// Maximum of 1 and with many and 65,535.
func case2s(t *testing.T, round string) (all []*case2) {
	for _, inbound := range []bool{true, false} {
		for _, stage := range handshakes {
			for _, rm := range []uint32{1, 65535} {
				version := byte(5)
				if rm == 65535 && stage%2 == 0 {
					version = 4 // its clients have no Receive Maximum
				}
				name := fmt.Sprintf("%s-in%v-%v-%d", round, inbound, stage, rm)
				c := &case2{endpoint2: newEndpoint2(t, name, version, rm), inbound: inbound, stage: stage, count: 1, topic: "out/" + name}
				if rm > 1 {
					c.count = scaled(40)
				}
				if inbound {
					c.topic = "in/" + round
				}
				for i := range c.count {
					c.want = append(c.want, fmt.Sprintf("%s-%d", name, i))
				}
				all = append(all, c)
			}
		}
	}
	return all
}

// advance brings the handshakes to their stage and leaves them there. Nothing
// waits for what the last packet sent may bring about.
func (c *case2) advance(publisher *Client) {
	c.t.Helper()
	c.stop = c.stage
	if c.inbound {
		for i, payload := range c.want {
			if c.stage == nothing {
				return
			}
			c.publish(uint16(i+1), c.topic, payload)
		}
		switch c.stage {
		case gotPubrec, gotPubrel:
			c.until("all are received", func() bool {
				for _, h := range c.out {
					if h < c.stage {
						return false
					}
				}
				return true
			})
		case gotPubcomp:
			c.until("all are complete", func() bool { return len(c.out) == 0 })
		}
		return
	}
	for _, payload := range c.want {
		publisher.Pub(c.topic, 2, false, payload)
	}
	switch c.stage {
	case gotPublish, gotPubrec:
		c.until("all have come", func() bool { return len(c.seen) == c.count })
	case gotPubrel, gotPubcomp:
		c.until("all are released", func() bool { return c.rels >= c.count })
	}
}

// finish takes every handshake to its end and starts another with the same ids.
func (c *case2) finish() {
	c.t.Helper()
	c.stop = gotPubcomp
	if !c.inbound {
		c.until("all have come", func() bool { return len(c.seen) == c.count && len(c.open) == 0 })
		return
	}
	if c.stage == nothing {
		for i, payload := range c.want {
			c.publish(uint16(i+1), c.topic, payload)
		}
	}
	c.until("all are complete", func() bool { return len(c.out) == 0 })
	for i := range c.count {
		payload := fmt.Sprintf("%s-again-%d", c.connect.ClientID, i)
		c.want = append(c.want, payload)
		c.publish(uint16(i+1), c.topic, payload)
	}
	c.until("the same ids are complete again", func() bool { return len(c.out) == 0 })
}

// TestQoS2KillNode kills a node while the handshakes of many sessions stand
// between any two of their packets, in both directions. The clients resume on
// another node and finish: everything came exactly once, and the ids are free.
func TestQoS2KillNode(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: []string{"--limits.max-inflight", "65535", "--limits.receive-maximum", "65535"}})
	for _, tt := range []struct {
		name   string
		victim func(leader, own, other *Node) *Node
	}{
		{"leader", func(l, _, _ *Node) *Node { return l }},
		{"own", func(_, o, _ *Node) *Node { return o }},
		{"other", func(_, _, o *Node) *Node { return o }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			start := time.Now()
			leader, followers := c.Leader(), c.Followers()
			own, other := followers[0], followers[1]
			victim := tt.victim(leader, own, other)
			var left []*Node
			for _, n := range []*Node{other, leader, own} {
				if n != victim {
					left = append(left, n)
				}
			}
			sessions := killQoS2(t, tt.name, own, victim, left)
			t.Logf("%d sessions in %v", sessions, time.Since(start).Round(time.Millisecond))
			victim.Restart()
			c.WaitWhole()
		})
	}
}

// killQoS2 is one round: sessions on own, a victim, and the nodes that are left.
func killQoS2(t *testing.T, round string, own, victim *Node, left []*Node) int {
	witness := newEndpoint2(t, "witness-"+round, 5, 0)
	witness.start(left[0])
	witness.c.Sub(rawmqtt.Sub("in/"+round, 2))
	witness.c.Disconnect(0)
	publisher := own.Connect(clean("publisher-" + round))
	all := case2s(t, round)
	for _, c := range all {
		c.start(own)
		if !c.inbound {
			c.c.Sub(rawmqtt.Sub(c.topic, 2))
		}
	}
	for _, c := range all {
		c.advance(publisher)
	}
	victim.Kill()
	for _, c := range all {
		c.c.Close()
	}
	var sent []string
	for _, c := range all {
		c.resume(left...)
		c.finish()
		if c.inbound {
			sent = append(sent, c.want...)
		}
	}
	publisher = left[1].Connect(clean("publisher-after-" + round))
	for _, c := range all {
		if !c.inbound {
			for i := range 3 {
				payload := fmt.Sprintf("%s-after-%d", c.connect.ClientID, i)
				c.want = append(c.want, payload)
				publisher.Pub(c.topic, 2, false, payload)
			}
			c.until("what was published after has come", func() bool { return len(c.seen) == len(c.want) && len(c.open) == 0 })
		}
	}
	var resting sync.WaitGroup
	for _, c := range all {
		resting.Go(func() {
			c.rest()
			if !c.inbound {
				c.exactly(c.want)
			}
			c.c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
		})
	}
	resting.Wait()
	witness.resume(left...)
	witness.until("the witness has all", func() bool { return len(witness.seen) >= len(sent) && len(witness.open) == 0 })
	witness.rest()
	witness.exactly(sent)
	witness.c.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
	return len(all)
}

// TestQoS2Roams has a session change its node between any two packets of a
// handshake, sometimes with its old connection still open: everything comes
// exactly once.
func TestQoS2Roams(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, version := range []byte{4, 5} {
		for _, takeover := range []bool{false, true} {
			t.Run(fmt.Sprintf("version %d, takeover %v", version, takeover), func(t *testing.T) {
				c.In(t)
				roamQoS2(t, c, version, takeover)
			})
		}
	}
}

func roamQoS2(t *testing.T, c *Cluster, version byte, takeover bool) {
	name := fmt.Sprintf("roam-%d-%v", version, takeover)
	e := newEndpoint2(t, name, version, 0)
	e.start(c.Nodes[0])
	e.c.Sub(rawmqtt.Sub(name+"/out", 2))
	witness := newEndpoint2(t, name+"-witness", version, 0)
	witness.start(c.Nodes[1])
	witness.c.Sub(rawmqtt.Sub(name+"/in", 2))
	publisher := c.Nodes[2].Connect(clean(name + "-publisher"))
	turn := 0
	move := func() {
		old := e.c
		if !takeover {
			old.Close()
		}
		turn++
		e.resume(c.Nodes[turn%len(c.Nodes)])
		old.Close()
	}
	var in, out []string
	for round := range scaled(6) {
		in, out = append(in, fmt.Sprint("in ", round)), append(out, fmt.Sprint("out ", round))
		publisher.Pub(name+"/out", 2, false, out[round])
		e.stop = gotPublish
		e.publish(1, name+"/in", in[round])
		move()
		e.until("it has come", func() bool { return len(e.seen) == len(out) && e.out[1] == gotPubrec })
		move()
		e.stop = gotPubrec
		for id := range e.open {
			e.ack(rawmqtt.PUBREC, id)
		}
		e.ack(rawmqtt.PUBREL, 1)
		move()
		rels := e.rels
		e.stop = gotPubrel
		e.until("it is released", func() bool { return e.rels > rels && len(e.open) == 0 })
		move()
		e.stop = gotPubcomp
		e.until("both are complete", func() bool { return len(e.out) == 0 && len(e.open) == 0 })
	}
	e.rest()
	e.exactly(out)
	witness.until("the witness has all", func() bool { return len(witness.seen) == len(in) })
	witness.rest()
	witness.exactly(in)
	t.Logf("%d messages each way, %d changes of the node", len(in), turn)
}
