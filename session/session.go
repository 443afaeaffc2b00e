// Package session holds the vocabulary of durable MQTT state: positions in the
// log, messages, subscriptions and sessions. It is pure: no clock, no I/O,
// standard library only. How the state changes is the business of package fsm,
// how it reaches a client that of package broker.
package session

import "math"

// Pos is a place in the replicated log: the raft index of the entry and the
// number of the item in it. Positions order everything that has a promise.
type Pos uint64

// posBits is how many bits of a Pos number the items of one entry.
const posBits = 20

// At returns the position of item n of the entry at index.
func At(index uint64, n int) Pos { return Pos(index<<posBits | uint64(n)) }

// Index returns the raft index of the entry.
func (p Pos) Index() uint64 { return uint64(p) >> posBits }

// Item returns the number of the item in its entry.
func (p Pos) Item() int { return int(p & (1<<posBits - 1)) }

// retainedBit is above the 63 bits that a position in a log can have.
const retainedBit Pos = 1 << 63

// OfRetained returns the key of the delivery state of a retained message at p: the
// session may be owed a queued message of the same position besides.
func (p Pos) OfRetained() Pos { return p | retainedBit }

// Retained tells whether p came from OfRetained.
func (p Pos) Retained() bool { return p&retainedBit != 0 }

// Message returns the position of the message itself.
func (p Pos) Message() Pos { return p &^ retainedBit }

// Never is the session expiry interval that means "does not expire",
// in seconds [MQTT-3.1.2.11.2].
const Never uint32 = math.MaxUint32

// Message is an application message as a publisher sent it. It is immutable
// once made and shared by all its receivers.
type Message struct {
	Topic   string
	Payload []byte
	// Properties are the MQTT 5 properties that travel with the message
	// (payload format, content type, response topic, correlation data, user
	// properties), in wire form and order, without the leading length, without
	// message expiry, topic alias and subscription identifiers.
	Properties []byte
	QoS        byte
	Retain     bool
	// Publisher is the client id of the sender, for No Local.
	Publisher string
	// Stamp is when the message was accepted, in milliseconds of log time
	// (of the accepting node's clock for a message of the mesh).
	Stamp int64
	// ExpiresAt is when the message is no longer to be delivered, on the clock
	// of Stamp, in milliseconds; 0 means never.
	ExpiresAt int64
}

// Size returns the bytes that limits count for m.
func (m *Message) Size() int {
	return len(m.Topic) + len(m.Payload) + len(m.Properties) + 64
}

// Subscription is one filter of one client.
type Subscription struct {
	// Filter is as the client wrote it, "$share/group/filter" included.
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	// ID is the subscription identifier, 0 if none.
	ID uint32
}

// WantsRetained tells whether a SUBSCRIBE with this subscription is answered with
// retained messages; existed says whether it replaced one of the same filter
// [MQTT-3.3.1-9..11]. Shared subscriptions get none [MQTT-4.8.2].
func (s *Subscription) WantsRetained(existed bool) bool {
	return s.RetainHandling == 0 || s.RetainHandling == 1 && !existed
}

// Replay is what a subscription is still owed of the retained messages that were
// there when it was made.
type Replay struct {
	Subscription Subscription
	// At is where the subscription was made: what is newer comes by the queue.
	At Pos
	// After is the key (routing.AppendTopicKey) of the last topic whose message was
	// acknowledged, with all before it; empty means none.
	After []byte
}

// Will is the message that a session's connection leaves behind.
type Will struct {
	Message Message
	// Delay is how long after the loss of the connection the will fires, in
	// seconds; it fires at the end of the session at the latest
	// [MQTT-3.1.3-9].
	Delay uint32
	// Expiry is the message expiry interval, in seconds, that starts to run
	// when the will fires; HasExpiry tells whether there is one.
	Expiry    uint32
	HasExpiry bool
}

// OutState is how far an outgoing QoS 2 message has come.
type OutState byte

// The states of an outgoing QoS 2 message, in order.
const (
	OutSent     OutState = 1 // id chosen, PUBLISH may have been sent
	OutReceived OutState = 2 // PUBREC came, PUBREL may have been sent
	OutDone     OutState = 3 // PUBCOMP came; kept until the cursor passes it
)

// Out is an outgoing QoS 2 message that has a packet id.
type Out struct {
	// Pos is that of a queued message, or OfRetained.
	Pos      Pos
	PacketID uint16
	State    OutState
	// Message is nil where the store holds the message at Pos.
	Message *Message
}

// Span is what lies after From and before To.
type Span struct{ From, To Pos }

// Holds tells whether p is in the span.
func (s Span) Holds(p Pos) bool { return s.From < p && p < s.To }

// Inflight is an outgoing QoS 1 message that was sent and not acknowledged
// when its connection ended in an orderly way.
type Inflight struct {
	Pos      Pos // as in Out
	PacketID uint16
}
