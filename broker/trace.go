package broker

import (
	"errors"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/session"
)

// Step is one step of a message on its way through this node.
type Step struct {
	Kind StepKind
	// Client is whom the step is about: the publisher until the message is in the log
	// or on the mesh, and a receiver from there on.
	Client    string
	Publisher string
	Topic     string
	QoS       byte
	// Pos is the message's place in the log, PacketID what it has on the connection; 0
	// where there is none.
	Pos      session.Pos
	PacketID uint16
	// Why says more, of a drop its reason.
	Why string
}

// StepKind says what happened.
type StepKind string

// The steps of a message.
const (
	StepAccepted  StepKind = "accepted"     // its publisher may send it, and it was taken
	StepCommitted StepKind = "committed"    // a majority has it on disk
	StepForwarded StepKind = "forwarded"    // it went to the nodes that want it
	StepArrived   StepKind = "arrived"      // it came from another node
	StepQueued    StepKind = "queued"       // it is in a receiver's queue in memory
	StepWaits     StepKind = "waits"        // it is in a receiver's queue in the log
	StepDelivered StepKind = "delivered"    // it was written to the receiver's connection
	StepAcked     StepKind = "acknowledged" // the receiver has acknowledged it
	StepDropped   StepKind = "dropped"
)

// Trace has f called for every step of every message on this node, until it is called
// with nil. f must not block and must not call the Broker: it runs on the goroutines
// that serve, some with locks held, several at once.
func (b *Broker) Trace(f func(*Step)) {
	if f == nil {
		b.tracer.Store(nil)
		return
	}
	b.tracer.Store(&f)
}

// tell has a step traced. Whoever calls it has looked before whether anybody traces,
// so that nothing is made for nobody.
func (b *Broker) tell(s Step) {
	if f := b.tracer.Load(); f != nil {
		(*f)(&s)
	}
}

func (b *Broker) traced() bool { return b.tracer.Load() != nil }

// drop counts a message that c does not get, and has it traced.
func (c *client) drop(reason string, m *session.Message, pos session.Pos) {
	c.b.m.dropped(reason, 1)
	if c.b.traced() {
		c.b.tell(Step{Kind: StepDropped, Client: c.id, Publisher: m.Publisher, Topic: m.Topic, QoS: m.QoS, Pos: pos, Why: reason})
	}
}

// tellMessage tells a step of a message of QoS 1 or 2 to c.
func (c *client) tellMessage(kind StepKind, m *message, why string) {
	if c.b.traced() {
		c.b.tell(Step{Kind: kind, Client: c.id, Publisher: m.m.Publisher, Topic: m.m.Topic, QoS: m.qos, Pos: m.pos, PacketID: m.id, Why: why})
	}
}

// tellPiece tells a step of each message of a piece to c.
func (c *client) tellPiece(kind StepKind, p *piece, why string) {
	if !c.b.traced() {
		return
	}
	if p.m != nil {
		c.b.tell(Step{Kind: kind, Client: c.id, Publisher: p.m.Publisher, Topic: p.m.Topic, Why: why})
		return
	}
	for rest := p.frames; len(rest) > 0; {
		n, _, err := codec.Scan(rest, 0)
		if err != nil || n == 0 {
			return // they are the broker's own, and whole
		}
		var packet codec.PublishPacket
		if codec.ParsePublish(rest[:n], c.version, &packet) == nil {
			c.b.tell(Step{Kind: kind, Client: c.id, Topic: string(packet.Topic), Why: why})
		}
		rest = rest[n:]
	}
}

// tellWaits tells that c reads a message from its queue in the log when it comes to it.
func (c *client) tellWaits(pos session.Pos, mg *merged, m *session.Message) {
	if c.b.traced() {
		c.b.tell(Step{Kind: StepWaits, Client: c.id, Publisher: m.Publisher, Topic: m.Topic, QoS: min(m.QoS, mg.qos()), Pos: pos, Why: "the connection is behind"})
	}
}

// tellArrived tells that a message came by the mesh, or from a publisher here for the
// member of a shared subscription.
func (b *Broker) tellArrived(m *session.Message) {
	if b.traced() {
		b.tell(Step{Kind: StepArrived, Client: m.Publisher, Publisher: m.Publisher, Topic: m.Topic})
	}
}

// tellFlight tells that c has acknowledged a message, or refused it.
func (c *client) tellFlight(id uint16, f *flight, why string) {
	if c.b.traced() {
		c.b.tell(Step{Kind: StepAcked, Client: c.id, QoS: f.qos, Pos: f.pos, PacketID: id, Why: why})
	}
}

// tellOutcome tells what became of a message from c in the log.
func (c *client) tellOutcome(topic string, qos byte, r fsm.Result) {
	if !c.b.traced() {
		return
	}
	kind, why := StepCommitted, ""
	switch {
	case errors.Is(r.Err, fsm.ErrNotProposed):
		kind, why = StepDropped, dropUnproposed
	case r.Err != nil:
		kind, why = StepDropped, "outcome unknown: the connection is closed unacknowledged"
	case r.Duplicate:
		why = "its packet id was accepted before: it counts once"
	case !r.Matched:
		why = "nobody waits for it in the log"
	}
	c.b.tell(Step{Kind: kind, Client: c.id, Publisher: c.id, Topic: topic, QoS: qos, Pos: r.Pos, Why: why})
}

// tellPublish tells a step of a message from c.
func (c *client) tellPublish(kind StepKind, topic string, qos byte, id uint16, pos session.Pos, why string) {
	if c.b.traced() {
		c.b.tell(Step{Kind: kind, Client: c.id, Publisher: c.id, Topic: topic, QoS: qos, PacketID: id, Pos: pos, Why: why})
	}
}
