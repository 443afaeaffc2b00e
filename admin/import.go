package admin

import "context"

// Importer takes over what another broker had, or parts of a backup. Nothing that is
// here already is changed unless the batch says so; the same batch twice is as good
// as once.
type Importer interface {
	// Import takes a batch. The outcomes are in the order of the batch; an error is
	// about the whole of it, after which some of it may have been taken.
	Import(ctx context.Context, b ImportBatch) (ImportResult, error)
}

// ImportBatch is a part of what is taken over, in the order of its fields. As JSON
// it must fit into 16 MiB.
type ImportBatch struct {
	Users    []ImportUser    `json:"users,omitempty"`
	Acls     []Acl           `json:"acls,omitempty"`
	Retained []ImportMessage `json:"retained,omitempty"`
	Sessions []ImportSession `json:"sessions,omitempty"`
	// Overwrite has users, rules and retained messages that are here otherwise become
	// as they are in the batch.
	Overwrite bool `json:"overwrite,omitempty"`
}

// ImportUser is a user with the hash of its password; without one only a
// certificate proves it.
type ImportUser struct {
	Name     string   `json:"name"`
	Hash     string   `json:"hash,omitempty"`
	Disabled bool     `json:"disabled,omitempty"`
	Roles    []string `json:"roles,omitempty"`
}

// ImportMessage is a message, retained or waiting in a session.
type ImportMessage struct {
	Topic      string  `json:"topic"`
	Payload    []byte  `json:"payload"`
	Properties []byte  `json:"properties,omitempty"` // of MQTT 5, as on the wire
	QoS        byte    `json:"qos"`
	Retain     bool    `json:"retain,omitempty"`
	Publisher  string  `json:"publisher,omitempty"`
	Expiry     *uint32 `json:"expiry_s,omitempty"` // seconds left
	// Of a message that the client was sent: its packet id, and 1 where that is all,
	// 2 where a PUBREC came.
	PacketID uint16 `json:"packet_id,omitempty"`
	State    byte   `json:"state,omitempty"`
	// SubscriptionID goes with it to the client; 0 is none.
	SubscriptionID uint32 `json:"subscription_id,omitempty"`
}

// ImportSession is a session, or the part of it whose queue begins after From
// messages. Total is how many its queue has.
type ImportSession struct {
	Client        string               `json:"client"`
	User          string               `json:"user,omitempty"`
	Expiry        uint32               `json:"expiry_s"`
	Remaining     uint32               `json:"remaining_s"` // of Expiry
	Subscriptions []ImportSubscription `json:"subscriptions,omitempty"`
	From          int                  `json:"from,omitempty"`
	Total         int                  `json:"total"`
	Queue         []ImportMessage      `json:"queue,omitempty"`
	// Incoming are QoS 2 messages from the client whose PUBREL is outstanding.
	Incoming []ImportMessage `json:"incoming,omitempty"`
}

// ImportSubscription is one of a session.
type ImportSubscription struct {
	Filter            string `json:"filter"`
	QoS               byte   `json:"qos"`
	ID                uint32 `json:"id,omitempty"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
}

// The states of an ImportOutcome.
const (
	ImportNew    = "new"    // it was taken
	ImportSame   = "same"   // it is here already
	ImportKept   = "kept"   // something else is here, which stays
	ImportFailed = "failed" // it was not taken
	// ImportChanged: something else was here (Overwrite).
	ImportChanged = "changed"
)

// ImportOutcome is what became of one thing.
type ImportOutcome struct {
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

// ImportResult has an outcome for each thing of a batch.
type ImportResult struct {
	Users    []ImportOutcome `json:"users"`
	Acls     []ImportOutcome `json:"acls"`
	Retained []ImportOutcome `json:"retained"`
	Sessions []ImportOutcome `json:"sessions"`
	Change
}

// Import is Importer.Import.
func (c *Client) Import(ctx context.Context, b ImportBatch) (ImportResult, error) {
	return call[ImportResult](ctx, c, opImport, b)
}
