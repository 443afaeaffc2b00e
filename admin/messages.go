package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/routing"
)

// Messages reads and publishes messages.
type Messages interface {
	// Publish puts a message into the log. It returns when the cluster has it.
	Publish(ctx context.Context, m Message) (Published, error)
	// Retained returns a page of retained messages, in the order of their topics'
	// levels.
	Retained(ctx context.Context, q RetainedQuery) (Page[RetainedItem], error)
	// RetainedAt returns the retained message of a topic, or a NotFound error.
	RetainedAt(ctx context.Context, topic string) (RetainedItem, error)
	// Tail calls yield with the messages that match a filter, of all nodes, from now
	// on, until ctx ends or yield fails.
	Tail(ctx context.Context, filter string, yield func(TailEvent) error) error
	// Topics returns the levels below a topic, with what clients publish there.
	Topics(ctx context.Context, q TopicQuery) (TopicList, error)
}

// Message is a message to publish.
type Message struct {
	Topic   string  `json:"topic"`
	Payload []byte  `json:"payload,omitempty"` // base64
	Text    string  `json:"text,omitempty"`    // in the place of payload
	QoS     int     `json:"qos,omitempty"`
	Retain  bool    `json:"retain,omitempty"`
	Expiry  *uint32 `json:"expiry_s,omitempty"`
}

// Published is what became of a message.
type Published struct {
	Index   uint64 `json:"index"`   // of the log; 0: it was so already
	Matched bool   `json:"matched"` // a subscription in the log matched
}

// RetainedQuery asks for retained messages.
type RetainedQuery struct {
	Filter string `query:"filter" doc:"topic filter; # if left out"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" doc:"length of a page, 1000 at most; 100 if left out"`
}

// RetainedItem is a message that new subscribers get.
type RetainedItem struct {
	Topic     string    `json:"topic"`
	Payload   []byte    `json:"payload"` // base64
	QoS       int       `json:"qos"`
	Publisher string    `json:"publisher,omitempty"` // client id
	At        time.Time `json:"at"`
	Expires   time.Time `json:"expires,omitzero"`
}

// TailEvent is a message that was published, or how many were left out because they
// came faster than they could be told.
type TailEvent struct {
	Topic     string    `json:"topic,omitempty"`
	Payload   []byte    `json:"payload,omitempty"` // base64; the first TailPayload bytes
	Size      int       `json:"size"`              // of the payload
	QoS       int       `json:"qos"`
	Retain    bool      `json:"retain,omitempty"`
	Publisher string    `json:"publisher,omitempty"`
	At        time.Time `json:"at,omitzero"`
	Missed    int       `json:"missed,omitempty"`
}

// TailPayload is how much of a payload a tail shows, in bytes.
const TailPayload = 4 << 10

// TopicQuery asks for the levels below a topic.
type TopicQuery struct {
	Under string `query:"under" doc:"beginning of the topics whose next level is wanted, up to a slash; all if left out"`
	Limit int    `query:"limit" doc:"how many, 1000 at most; 100 if left out"`
}

// TopicList are the levels below a topic.
type TopicList struct {
	Under string  `json:"under"`
	Items []Topic `json:"items"` // by name
	More  bool    `json:"more"`  // there are others
	// Measured is for how long the nodes have counted, in milliseconds: they do when
	// they are asked, and stop a minute later.
	Measured int64 `json:"measured_ms"`
	// Uncounted messages a second are of topics for which there was no room.
	Uncounted float64 `json:"uncounted_rate"`
}

// Topic is one level of the tree of topics.
type Topic struct {
	Level  string  `json:"level"`
	Topic  string  `json:"topic"` // whole
	Rate   float64 `json:"rate"`  // messages a second, of it and all below
	Bytes  float64 `json:"byte_rate"`
	Below  bool    `json:"below"` // there are topics below it
	Exists bool    `json:"retained"`
	// Payload is the beginning of the retained message of this very topic.
	Payload []byte `json:"payload,omitempty"`
}

// messageQuery is a message to publish.
type messageQuery struct {
	Message Message `body:""`
}

// topicQuery names a topic.
type topicQuery struct {
	Topic string `path:"topic" doc:"topic; percent-encode it, its slashes too"`
}

// retainQuery is a message to retain.
type retainQuery struct {
	Topic string      `path:"topic" doc:"topic; percent-encode it, its slashes too"`
	As    RetainedPut `body:""`
}

// RetainedPut is what a topic is to have.
type RetainedPut struct {
	Payload []byte  `json:"payload,omitempty"` // base64
	Text    string  `json:"text,omitempty"`    // in the place of payload
	QoS     int     `json:"qos,omitempty"`
	Expiry  *uint32 `json:"expiry_s,omitempty"`
}

// tailQuery says what to watch.
type tailQuery struct {
	Filter string `query:"filter" doc:"topic filter that is watched; needed"`
}

func (q tailQuery) check() error {
	if err := routing.ValidFilter(q.Filter); err != nil {
		return &Error{Invalid, fmt.Sprintf("filter %q cannot be watched: the %v", q.Filter, err)}
	}
	if _, _, shared := routing.SplitShared(q.Filter); shared {
		return &Error{Invalid, "a shared subscription cannot be watched: write its filter alone"}
	}
	return nil
}

func (s *Server) messageResources(m *mux, b Backend) {
	d := b.Messages
	if d == nil {
		return
	}
	repeated(s, m, post("/v1/publish", tagMessages, "Publish a message. With an Idempotency-Key the same request again within ten minutes, at the same node, publishes nothing more.", RoleOperator),
		func(ctx context.Context, q messageQuery) (Published, error) { return d.Publish(ctx, q.Message) })
	handleResource(s, m, get("/v1/retained", tagMessages, "Retained messages."), limited(d.Retained, func(q *RetainedQuery) *int { return &q.Limit }))
	handleResource(s, m, get("/v1/retained/{topic...}", tagMessages, "The retained message of a topic."),
		func(ctx context.Context, q topicQuery) (RetainedItem, error) { return d.RetainedAt(ctx, q.Topic) })
	handleResource(s, m, put("/v1/retained/{topic...}", tagMessages, "Have a topic retain a message; what it has already is not published again.", RoleOperator).as(opRetainedSet),
		func(ctx context.Context, q retainQuery) (Published, error) { return retain(ctx, d, q) })
	handleResource(s, m, remove("/v1/retained/{topic...}", tagMessages, "Clear the retained message of a topic.", RoleOperator).as(opRetainedClear),
		func(ctx context.Context, q topicQuery) (Published, error) { return clearRetained(ctx, d, q.Topic) })
	handleResource(s, m, get("/v1/topics", tagMessages, "The levels below a topic, with rates and retained messages."), limited(d.Topics, func(q *TopicQuery) *int { return &q.Limit }))
	watch[tailQuery, TailEvent](s, m, get("/v1/watch/messages", tagMessages, "Messages that match a filter, as they are published."), func(ctx context.Context, q tailQuery, out *events) error {
		return d.Tail(ctx, q.Filter, func(e TailEvent) error { return out.send("message", "", e) })
	})
}

// body is the payload of a message that may be given as text.
func body(payload []byte, text string) ([]byte, error) {
	if text == "" {
		return payload, nil
	}
	if len(payload) > 0 {
		return nil, &Error{Invalid, "payload and text are both there: give one"}
	}
	return []byte(text), nil
}

func retain(ctx context.Context, d Messages, q retainQuery) (Published, error) {
	payload, err := body(q.As.Payload, q.As.Text)
	if err != nil {
		return Published{}, err
	}
	if len(payload) == 0 {
		return Published{}, &Error{Invalid, "an empty message cannot be retained: give payload or text, or clear the topic with DELETE"}
	}
	if q.As.Expiry == nil {
		old, err := d.RetainedAt(ctx, q.Topic)
		if err == nil && string(old.Payload) == string(payload) && old.QoS == q.As.QoS && old.Expires.IsZero() {
			return Published{}, nil
		}
	}
	return d.Publish(ctx, Message{Topic: q.Topic, Payload: payload, QoS: q.As.QoS, Retain: true, Expiry: q.As.Expiry})
}

func clearRetained(ctx context.Context, d Messages, topic string) (Published, error) {
	_, err := d.RetainedAt(ctx, topic)
	if e := asErrorOrNil(err); e != nil {
		if e.Kind == NotFound {
			return Published{}, nil
		}
		return Published{}, e
	}
	return d.Publish(ctx, Message{Topic: topic, Retain: true})
}

// CheckMessage says in one sentence what is wrong with a message, but for its topic.
func CheckMessage(m Message, most int) error {
	switch {
	case m.QoS < 0 || m.QoS > 2:
		return &Error{Invalid, fmt.Sprintf("qos is %d: write 0, 1 or 2", m.QoS)}
	case len(m.Payload) > most:
		return &Error{Invalid, fmt.Sprintf("the payload has %d bytes: limits.max_packet_size allows %d", len(m.Payload), most)}
	}
	return nil
}
