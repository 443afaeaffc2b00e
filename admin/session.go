package admin

import "context"

// SessionRepair looks into one session and mends it.
type SessionRepair interface {
	// ShowSession returns all that the cluster knows of a session, or a NotFound
	// error.
	ShowSession(ctx context.Context, client string) (SessionDetail, error)
	// KickClient closes the connection of a client, wherever it is; its session
	// stays, its will fires. It returns the node, or a NotFound error where the client
	// has no connection.
	KickClient(ctx context.Context, client string) (Kicked, error)
	// PurgeSession has a session give up all that waits for it; its subscriptions
	// stay, and what is on its way to its client is not called back.
	PurgeSession(ctx context.Context, client string) (SessionPurged, error)
}

// SessionDetail is a session with what it holds.
type SessionDetail struct {
	Session
	// Since is when its connection, or the loss of it, was; in milliseconds of the
	// cluster's clock, as are the other moments.
	Since     int64                 `json:"since_ms,omitempty"`
	ExpiresAt int64                 `json:"expires_at_ms,omitempty"` // of a session without a connection
	Filters   []SessionSubscription `json:"filters"`
	// Queued messages wait, QueuedBytes of them; More tells that there are others,
	// which were not counted.
	Queued      int   `json:"queued_messages"`
	QueuedBytes int64 `json:"queued_bytes"`
	More        bool  `json:"queued_more,omitempty"`
	// Inflight are QoS 1 messages that an earlier connection sent; Sending and
	// Receiving QoS 2 messages under way to the client and from it.
	Inflight  int    `json:"inflight"`
	Sending   int    `json:"qos2_sending"`
	Receiving int    `json:"qos2_receiving"`
	WillTopic string `json:"will_topic,omitempty"`
	WillDelay uint32 `json:"will_delay_s,omitempty"`
}

// SessionSubscription is one of a session.
type SessionSubscription struct {
	Filter            string `json:"filter"`
	QoS               byte   `json:"qos"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
	ID                uint32 `json:"id,omitempty"`
}

// Kicked says from which node a client was sent away.
type Kicked struct {
	Node string `json:"node"`
}

// SessionPurged counts what was given up, as far as it was counted.
type SessionPurged struct {
	Change
	Purged int  `json:"purged_messages"`
	More   bool `json:"purged_more,omitempty"`
}

const (
	opSessionShow  = "session/show"
	opSessionKick  = "session/kick"
	opSessionPurge = "session/purge"
)

// ShowSession is SessionRepair.ShowSession.
func (c *Client) ShowSession(ctx context.Context, client string) (SessionDetail, error) {
	return call[SessionDetail](ctx, c, opSessionShow, named{client})
}

// KickClient is SessionRepair.KickClient.
func (c *Client) KickClient(ctx context.Context, client string) (Kicked, error) {
	return call[Kicked](ctx, c, opSessionKick, named{client})
}

// PurgeSession is SessionRepair.PurgeSession.
func (c *Client) PurgeSession(ctx context.Context, client string) (SessionPurged, error) {
	return call[SessionPurged](ctx, c, opSessionPurge, named{client})
}
