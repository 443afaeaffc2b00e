package fsm

import (
	"errors"

	"github.com/mqcluster/mqcluster/session"
)

// What an item's Result may carry as its error.
var (
	// ErrNotProposed: the item provably never reached the log; nothing happened.
	ErrNotProposed = errors.New("the cluster has no quorum, or this node no lease: nothing was changed; try again")
	// ErrUnknown: the item may or may not come to be applied. A connection that
	// waited for it is closed without an acknowledgement.
	ErrUnknown = errors.New("the outcome is unknown: the node lost its place in the cluster while the request was under way")
	// ErrStale: the client's epoch is not the newest, or its session is gone.
	ErrStale = errors.New("the session has a newer connection")
	// ErrForeignSession: the client id has a session of another user.
	ErrForeignSession = errors.New("the client id belongs to a session of another user")
	// ErrRefused: a user, ACL, token or member command whose condition does not
	// hold; wrapped with the reason.
	ErrRefused = errors.New("refused")
)

// Result is what became of an item.
type Result struct {
	Err error
	// Pos is the item's position; 0 if it was never applied.
	Pos session.Pos
	// Matched tells of a Publish whether a session in the log is owed it or a
	// logged subscription matches it.
	Matched bool
	// Duplicate tells of a QoS 2 Publish that its packet id was in use: the
	// message was accepted before and is not accepted twice [MQTT-4.3.3-10].
	Duplicate bool
	// Found tells of a Rel whether the packet id was in use, and of an
	// Unsubscribe, filter by filter, whether there was such a subscription. Of an
	// Outbound it tells, mark by mark, whether it was noted: the message of one that
	// was not has been given up (Trim) and must not be sent.
	Found []bool
	// Existed tells of a Subscribe, filter by filter, whether the client had the
	// subscription already (Retain Handling 1).
	Existed []bool
	// Claim is set for a Claim.
	Claim *Claimed
}

// Claimed is a session as its new connection finds it.
type Claimed struct {
	Present     bool
	Epoch       session.Pos // of this connection
	Incarnation session.Pos
	// Logged tells whether subscriptions of this connection belong into the log
	// (the session outlives the connection, or has some there already).
	Logged        bool
	Subscriptions []session.Subscription
	Replays       []session.Replay // by position and filter
	// Cursor: everything owed at or before it was acknowledged. Horizon:
	// everything at or before it may have been sent before (DUP).
	Cursor, Horizon session.Pos
	// Left is the log index at which the session's connection before this one ended, 0
	// for none: a QoS 0 message that a node sent before it had applied that may have
	// been received by the client already.
	Left uint64
	// Zero is where messages waited that are of QoS 0 for this session; they are
	// to be sent once, and what Queue returns of elsewhere is not owed. By position.
	Zero     []session.Span
	Outbound []session.Out      // by position
	Inflight []session.Inflight // by position
	Received []uint16           // incoming QoS 2 ids under way
}

// EventKind tells which fields of an Event are set.
type EventKind byte

// The kinds of Event.
const (
	// EventResult: Number, Item, Result. An item of this node was applied.
	EventResult EventKind = iota + 1
	// EventMessage: Pos, Message, Picks. A message was published by the log.
	EventMessage
	// EventEnded: Client, Epoch, Reason. The connection that held this epoch on
	// this node has lost its session.
	EventEnded
	// EventPolicy: users, roles or ACLs changed.
	EventPolicy
	// EventMembers: a member was added, changed, came up or went down.
	EventMembers
	// EventAssigned: the client's queue gained messages from the past (a shared
	// subscription's other member went away): read it again.
	EventAssigned
	// EventPackGap: Number is the next pack that apply accepts of this node's
	// current incarnation; a later one arrived and was refused.
	EventPackGap
	// EventRestored: the whole state was replaced by a snapshot.
	EventRestored
	// EventNode: this node's own NodeUp or NodeDown was applied; Pos is the new
	// incarnation or 0.
	EventNode
)

// EndReason says why a connection lost its session.
type EndReason byte

// The reasons of EventEnded.
const (
	EndTakenOver EndReason = iota + 1 // another connection claimed it
	EndByOperator
	EndNodeDown // the node's incarnation ended
)

// Pick is the member that a shared subscription chose for a message.
type Pick struct {
	Client       string
	Node         string // of its connection, empty if it has none
	Subscription session.Subscription
}

// Event is something that Apply did that this node may have to act on. Events
// arrive in log order, after the entry is in the store, on the goroutine that
// applies; the receiver must not block and must not keep the slice.
type Event struct {
	Kind    EventKind
	Reason  EndReason
	Pos     session.Pos
	Number  uint64
	Item    int
	Result  Result
	Message *session.Message
	Picks   []Pick
	// Zero: the message was stored, and may be of QoS 0 for sessions of which it
	// waits: those that have a connection have passed it.
	Zero   bool
	Client string
	Epoch  session.Pos
	// Aside is a place of the observer's beside what the state remembers of Message's
	// topic, so that it need not search for the topic once more. What it puts there is
	// there with a later message of the topic, or nil: the state forgets topics. It is
	// for the call that brings the event, and for one observer.
	Aside *any
}

// Queued is a message that a session is owed.
type Queued struct {
	Pos     session.Pos
	Message *session.Message
	// Subscriptions of the session that it matched, those of QoS 0 too; at least one.
	Subscriptions []session.Subscription
}

// View is the state at one position. It is safe for one goroutine at a time and
// must be closed; it pins disk space until then.
type View interface {
	// Pos is the last position applied.
	Pos() session.Pos
	// Queue appends to dst up to limit messages that the client's session is
	// owed after the given position, in order, each once. Those whose QoS for this
	// session is 0 are owed in some spans only (Claimed.Zero). It reads the store and
	// may block on it.
	Queue(dst []Queued, client string, after session.Pos, limit int) ([]Queued, error)
	// Retained calls yield for each retained message whose topic matches filter
	// and whose position is at or before upTo, in the order of the topics' keys
	// (routing.AppendTopicKey) and from the first that is greater than after,
	// until yield returns false.
	Retained(filter string, after []byte, upTo session.Pos, yield func(session.Pos, *session.Message) bool) error
	Close() error
}
