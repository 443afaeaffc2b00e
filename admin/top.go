package admin

import (
	"context"
	"time"
)

// Topper tells what the nodes do at the moment.
type Topper interface {
	// Top returns counts of every node; what happens is the difference of two of
	// them. Clients and topics are counted for as long as it is called, at least every
	// 15 seconds.
	Top(ctx context.Context) (Top, error)
}

// Top are the counts of all nodes.
type Top struct {
	Nodes []TopNode `json:"nodes"`
}

// TopNode are the counts of one node since it started.
type TopNode struct {
	Node    string    `json:"node"`
	Role    string    `json:"role"`
	Error   string    `json:"error,omitempty"` // why there are none
	At      time.Time `json:"at"`              // by the node's clock
	Started time.Time `json:"started"`
	Clients int       `json:"clients"`
	Applied uint64    `json:"applied_index"`
	Memory  uint64    `json:"memory_bytes"`
	// In and Out are PUBLISH packets from and to clients, Dropped messages that a
	// client did not get.
	In      int64 `json:"messages_in"`
	Out     int64 `json:"messages_out"`
	Dropped int64 `json:"dropped"`
	// ByClient and ByTopic are the busiest publishers and topics, of a sample since
	// somebody looks.
	ByClient map[string]int64 `json:"by_client"`
	ByTopic  map[string]int64 `json:"by_topic"`
}

const opTop = "top"

// Top is Topper.Top.
func (c *Client) Top(ctx context.Context) (Top, error) {
	return call[Top](ctx, c, opTop, nothing{})
}
