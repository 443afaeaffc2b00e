// Package history writes down what MQTT clients did and saw during a run and
// judges it afterwards by the broker's promises.
//
// A Recorder keeps the events, Publisher and Subscriber are clients that record,
// and Check is a pure function over what they recorded. It knows nothing of the
// broker but what the clients saw, so it can judge any broker; README.md lists
// what it can find.
package history

import "time"

// Kind says what an event is.
type Kind string

// The kinds of Event. An event of something sent is recorded before it is
// written, an event of something that came after it was read: so if a's At is
// before b's, and a is something that came and b something sent, then a really
// happened before b.
const (
	ConnectSent      Kind = "connect sent"     // Clean, Expiry, Version, Node, Quota; a will: Message, Topic, QoS, Retain, Sum, Delay
	Connected        Kind = "connected"        // Present
	Refused          Kind = "refused"          // Reason of the CONNACK
	SubscribeSent    Kind = "subscribe sent"   // Filter, QoS
	Subscribed       Kind = "subscribed"       // Filter, QoS as granted, or Reason
	UnsubscribeSent  Kind = "unsubscribe sent" // Filter
	Unsubscribed     Kind = "unsubscribed"     // Filter
	PublishSent      Kind = "publish sent"     // Message, Seq, Topic, QoS, PacketID, Dup, Retain, Sum, Clear, Due
	PublishAcked     Kind = "publish acked"    // PUBACK or PUBREC: Message, Reason
	PublishCompleted Kind = "publish completed"
	PublishUnknown   Kind = "publish unknown" // given up: the session is gone
	Received         Kind = "received"        // a PUBLISH: Message, Topic, QoS, PacketID, Dup, Retain, Sum, Clear
	Released         Kind = "released"        // a PUBREL: PacketID
	ReceiveAcked     Kind = "receive acked"   // PUBACK, PUBREC or PUBCOMP was written: PacketID, Message of a PUBLISH
	Disconnected     Kind = "disconnected"    // by the client itself; Expiry as of then, Reason
	Lost             Kind = "lost"            // by anything else; Reason of a DISCONNECT
	Cut              Kind = "cut"             // by the client itself, without a DISCONNECT
	// Missed: a publisher with a rate could not send as many messages as it was
	// to: Seq is how many it has sent, Count how many more were due between Due and
	// this event.
	Missed Kind = "missed"
	// Drained: whoever runs the test says that by now everything owed must have
	// arrived. What a client did not receive before it counts as not delivered.
	Drained Kind = "drained"
	// Killed, Restarted and Mark are of no client: what was done to Node.
	Killed    Kind = "killed"
	Restarted Kind = "restarted"
	Mark      Kind = "mark"
	// Draining: Node was told to stop in good order.
	Draining Kind = "draining"
	// Reset: every client's connection to Node was broken.
	Reset Kind = "reset"
	// FaultBegin and FaultEnd bound the time in which something, which Note names,
	// was wrong with Node, or with all nodes if it is empty. A fault of several
	// nodes has a FaultBegin for each and one FaultEnd.
	FaultBegin Kind = "fault begins"
	FaultEnd   Kind = "fault ends"
)

// The kinds of Event of a register: something that is read and written whole.
const (
	// ReadDone: a reader of the retained message of Topic, subscribed on this
	// connection, has waited until nothing more can come: Message is the value,
	// empty for none.
	ReadDone Kind = "read done"
	// UserAsked and UserDone are a change of User: Note is the verb, Secret the new
	// password; a Reason other than 0 means that the outcome is unknown. LoginAsked
	// and LoginDone are a CONNECT with Secret at Node and the reason of its CONNACK.
	// Seq pairs those of one history.
	UserAsked  Kind = "user asked"
	UserDone   Kind = "user done"
	LoginAsked Kind = "login asked"
	LoginDone  Kind = "login done"
)

// Never is an Expiry that does not come.
const Never uint32 = 1<<32 - 1

// TakenOver is the reason of a connection whose client id connected again
// [MQTT-3.1.4-3].
const TakenOver byte = 0x8e

// Event is something that one client did or saw. Which fields are set depends on
// its kind.
type Event struct {
	At   time.Duration `json:"at"` // monotonic, since the start of the recorder
	Kind Kind          `json:"kind"`
	// History is the name of the recorded client; Client its MQTT client id. Two
	// histories may share a client id (takeovers). Conn numbers the connections
	// of one history from 1.
	History string `json:"history,omitempty"`
	Client  string `json:"client,omitempty"`
	Conn    int    `json:"conn,omitempty"`
	Node    string `json:"node,omitempty"`

	Version byte   `json:"version,omitempty"`
	Clean   bool   `json:"clean,omitempty"`
	Expiry  uint32 `json:"expiry,omitempty"` // seconds the session outlives its connection
	Present bool   `json:"present,omitempty"`
	Reason  byte   `json:"reason,omitempty"`

	Filter  string `json:"filter,omitempty"`
	NoLocal bool   `json:"no_local,omitempty"`

	Message  string `json:"message,omitempty"` // unique in the run
	Seq      int    `json:"seq,omitempty"`     // number among its publisher's, from 1
	Topic    string `json:"topic,omitempty"`
	QoS      byte   `json:"qos,omitempty"`
	PacketID uint16 `json:"packet_id,omitempty"`
	Dup      bool   `json:"dup,omitempty"`
	Retain   bool   `json:"retain,omitempty"`
	Sum      uint32 `json:"sum,omitempty"` // CRC-32 of the payload
	// Clear: the payload is empty, and so a retained message is removed.
	// Message is empty in a Received whose message did not bring its name.
	Clear bool          `json:"clear,omitempty"`
	Due   time.Duration `json:"due,omitempty"`   // when a publisher with a rate was to send it
	Count int           `json:"count,omitempty"` // of Missed
	Delay uint32        `json:"delay,omitempty"` // of a will, in seconds
	Quota uint16        `json:"quota,omitempty"` // Receive Maximum of the client; 0 for any

	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`

	Note string `json:"note,omitempty"`
}
