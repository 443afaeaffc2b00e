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

// A Tracer is told steps of messages. What it calls must not block and must not call
// the Broker: it is on the goroutines that serve, some with locks held, several at once.
type Tracer struct {
	// Wants tells whether a step is to be told that is about a client, of a message of
	// publisher to topic. It is asked at every step of every message.
	Wants func(client, publisher, topic string) bool
	Tell  func(*Step)
}

// Trace has t told the steps on this node that it wants, until it is called with nil.
// Of messages that are under way by then not all is told.
func (b *Broker) Trace(t *Tracer) { b.tracer.Store(t) }

// wants tells whether somebody traces a step. Nothing is made for nobody.
func (b *Broker) wants(client, publisher, topic string) bool {
	t := b.tracer.Load()
	return t != nil && t.Wants(client, publisher, topic)
}

// tell tells a step that is wanted.
func (b *Broker) tell(s Step) {
	if t := b.tracer.Load(); t != nil {
		t.Tell(&s)
	}
}

// drop counts a message that c does not get, and has it traced.
func (c *client) drop(reason string, m *session.Message, pos session.Pos) {
	c.b.m.dropped(reason, 1)
	if c.b.wants(c.id, m.Publisher, m.Topic) {
		c.b.tell(Step{Kind: StepDropped, Client: c.id, Publisher: m.Publisher, Topic: m.Topic, QoS: m.QoS, Pos: pos, Why: reason})
	}
}

// tellMessage tells a step of a message of QoS 1 or 2 to c.
func (c *client) tellMessage(kind StepKind, m *message, why string) {
	if m.traced {
		c.b.tell(Step{Kind: kind, Client: c.id, Publisher: m.m.Publisher, Topic: m.m.Topic, QoS: m.qos, Pos: m.pos, PacketID: m.id, Why: why})
	}
}

// tellPiece tells a step of a piece to c. What is traced is a piece by itself, and no
// frames.
func (c *client) tellPiece(kind StepKind, p *piece, why string) {
	if p.m != nil && c.b.wants(c.id, p.m.Publisher, p.m.Topic) {
		c.b.tell(Step{Kind: kind, Client: c.id, Publisher: p.m.Publisher, Topic: p.m.Topic, Why: why})
	}
}

// tellWaits tells that c reads a message from its queue in the log when it comes to it.
func (c *client) tellWaits(pos session.Pos, mg *merged, m *session.Message) {
	if c.b.wants(c.id, m.Publisher, m.Topic) {
		c.b.tell(Step{Kind: StepWaits, Client: c.id, Publisher: m.Publisher, Topic: m.Topic, QoS: min(m.QoS, mg.qos()), Pos: pos, Why: "the connection is behind"})
	}
}

// tellArrived tells that a message came by the mesh, or from a publisher here for the
// member of a shared subscription.
func (b *Broker) tellArrived(m *session.Message) {
	if b.wants(m.Publisher, m.Publisher, m.Topic) {
		b.tell(Step{Kind: StepArrived, Client: m.Publisher, Publisher: m.Publisher, Topic: m.Topic})
	}
}

// tellFlight tells that c has acknowledged a message, or refused it.
func (c *client) tellFlight(id uint16, f *flight, why string) {
	if f.traced {
		c.b.tell(Step{Kind: StepAcked, Client: c.id, QoS: f.qos, Pos: f.pos, PacketID: id, Why: why})
	}
}

// tellOutcome tells what became of a message from c in the log.
func (c *client) tellOutcome(topic string, qos byte, r fsm.Result) {
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

// tellPublish tells a step of a message from c, and whether that is wanted.
func (c *client) tellPublish(kind StepKind, topic string, p *codec.PublishPacket, why string) (wanted bool) {
	if wanted = c.b.wants(c.id, c.id, topic); wanted {
		c.b.tell(Step{Kind: kind, Client: c.id, Publisher: c.id, Topic: topic, QoS: p.QoS, PacketID: p.PacketID, Why: why})
	}
	return wanted
}
