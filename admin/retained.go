package admin

import "context"

// Retained are the retained messages of the cluster.
type Retained interface {
	// ListRetained returns retained messages in the order of their topics.
	ListRetained(ctx context.Context, r RetainedRequest) ([]RetainedMessage, error)
	// SetRetained publishes a message as a client would, with the retain flag:
	// subscribers get it too. An empty payload clears the topic.
	SetRetained(ctx context.Context, r RetainedSet) (Change, error)
	// ClearRetained clears every topic that matches a filter.
	ClearRetained(ctx context.Context, filter string) (RetainedCleared, error)
}

// RetainedRequest asks for the messages whose topics match Filter. Limit 0 is 1000;
// an answer has at most 8 MiB of payloads.
type RetainedRequest struct {
	Filter string `json:"filter"`
	// After leaves out the topics up to this one, the last of an earlier answer.
	After string `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// RetainedMessage is one retained message.
type RetainedMessage struct {
	Topic     string `json:"topic"`
	Payload   []byte `json:"payload"`
	QoS       byte   `json:"qos"`
	Publisher string `json:"publisher"` // client id
	// Stamp is when it was accepted, ExpiresAt when it expires, 0 if never; both in
	// milliseconds of the cluster's clock.
	Stamp     int64 `json:"stamp_ms"`
	ExpiresAt int64 `json:"expires_at_ms,omitempty"`
}

// RetainedSet is a retained message to set. Expiry is in seconds, 0 for never.
type RetainedSet struct {
	Topic   string `json:"topic"`
	Payload []byte `json:"payload,omitempty"`
	QoS     byte   `json:"qos"`
	Expiry  uint32 `json:"expiry_s,omitempty"`
}

// RetainedCleared counts the topics that had a message.
type RetainedCleared struct {
	Change
	Cleared int `json:"cleared"`
}

const (
	opRetainedList  = "retained/list"
	opRetainedSet   = "retained/set"
	opRetainedClear = "retained/clear"
)

// ListRetained is Retained.ListRetained.
func (c *Client) ListRetained(ctx context.Context, r RetainedRequest) ([]RetainedMessage, error) {
	return call[[]RetainedMessage](ctx, c, opRetainedList, r)
}

// SetRetained is Retained.SetRetained.
func (c *Client) SetRetained(ctx context.Context, r RetainedSet) (Change, error) {
	return call[Change](ctx, c, opRetainedSet, r)
}

// ClearRetained is Retained.ClearRetained.
func (c *Client) ClearRetained(ctx context.Context, filter string) (RetainedCleared, error) {
	return call[RetainedCleared](ctx, c, opRetainedClear, named{filter})
}
