package admin

import (
	"context"
	"time"
)

// Clients tells of the clients of all nodes.
type Clients interface {
	// Connections returns a page of connected clients, by client id.
	Connections(ctx context.Context, q ConnectionQuery) (Page[Connection], error)
	// Disconnect closes a client's connection, on whatever node it is.
	Disconnect(ctx context.Context, client string) (Disconnected, error)
	// SessionPage returns a page of sessions, by client id.
	SessionPage(ctx context.Context, q SessionQuery) (Page[SessionState], error)
	// SessionDetail returns one session, or a NotFound error.
	SessionDetail(ctx context.Context, client string) (SessionReport, error)
	// WatchClients calls yield with what happens to clients from now on, until ctx
	// ends or yield fails.
	WatchClients(ctx context.Context, yield func(ClientEvent) error) error
}

// ConnectionQuery asks for connected clients.
type ConnectionQuery struct {
	Search string `query:"q" doc:"only clients with this in their id, user or address"`
	Node   string `query:"node" doc:"only clients of this node"`
	User   string `query:"user" doc:"only clients of this user"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" doc:"length of a page, 1000 at most; 100 if left out"`
}

// Connection is a connected client. What its node tells of it is missing (Known is
// false) where that node does not answer.
type Connection struct {
	Client        string    `json:"client"`
	User          string    `json:"user"`
	Node          string    `json:"node"`
	Address       string    `json:"address"`
	Protocol      int       `json:"protocol"` // 3, 4 or 5: MQTT 3.1, 3.1.1, 5
	Since         time.Time `json:"since"`
	Subscriptions int       `json:"subscriptions"`
	Persistent    bool      `json:"persistent"` // its session outlives the connection
	Traffic
}

// Traffic is what the node of a connection tells of it.
type Traffic struct {
	Known     bool   `json:"known"`
	Listener  string `json:"listener,omitempty"`
	InFlight  int    `json:"in_flight"`    // sent to it and not acknowledged
	Incoming  int    `json:"incoming"`     // from it and not acknowledged
	Queued    int    `json:"queued"`       // in memory, to be sent
	QueuedLen int    `json:"queued_bytes"` // bytes of them
	Behind    bool   `json:"behind"`       // more waits in the log
	KeepAlive int    `json:"keep_alive_s"` // 0: none
	Quiet     int64  `json:"quiet_ms"`     // since it sent anything
}

// Disconnected is what became of a disconnect.
type Disconnected struct {
	Node string `json:"node"` // where it was connected; empty: nowhere
}

// The states of a session.
const (
	SessionConnected = "connected"
	SessionAway      = "away"
)

// SessionQuery asks for sessions.
type SessionQuery struct {
	Search string `query:"q" doc:"only sessions with this in their client id or user"`
	State  string `query:"state" doc:"connected or away"`
	User   string `query:"user" doc:"only sessions of this user"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" doc:"length of a page, 1000 at most; 100 if left out"`
}

// SessionState is a session as a list has it.
type SessionState struct {
	Session
	State string `json:"state"`
	// Since is when its client came or went.
	Since time.Time `json:"since"`
	// Ends is when it ends if its client does not come; zero: never, or it is there.
	Ends time.Time `json:"ends,omitzero"`
	// Waiting are messages that are owed to it and not acknowledged, at least;
	// MaxWaiting stands for that many or more.
	Waiting int `json:"waiting"`
}

// MaxWaiting is how far a list counts the messages that wait in a session.
const MaxWaiting = 10_000

// SessionReport is a session with its subscriptions.
type SessionReport struct {
	SessionState
	Will string               `json:"will_topic,omitempty"`
	Subs []SubscriptionDetail `json:"subscription_list"`
}

// SubscriptionDetail is a subscription of a session in the log.
type SubscriptionDetail struct {
	Filter            string `json:"filter"`
	QoS               int    `json:"qos"`
	NoLocal           bool   `json:"no_local"`
	RetainAsPublished bool   `json:"retain_as_published"`
}

// The kinds of ClientEvent.
const (
	ClientConnected    = "connected"
	ClientDisconnected = "disconnected"
	// ClientMissed stands for events that came faster than they could be told.
	ClientMissed = "missed"
)

// ClientEvent is a client that came or went.
type ClientEvent struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`
	Node    string    `json:"node"`
	Client  string    `json:"client,omitempty"`
	User    string    `json:"user,omitempty"`
	Address string    `json:"address,omitempty"`
	Reason  string    `json:"reason,omitempty"` // of an end
}
