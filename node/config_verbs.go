package node

import "time"

// InitResult is what init made, or found already made.
type InitResult struct {
	Already     bool      `json:"already"` // the node was initialised before
	ClusterID   string    `json:"cluster_id"`
	ClusterName string    `json:"cluster_name"`
	Node        string    `json:"node"`
	MeshAddress string    `json:"mesh_address"`
	CAFile      string    `json:"ca_file"`
	JoinCommand string    `json:"join_command,omitempty"`
	Token       string    `json:"-"` // that of JoinCommand
	TokenUntil  time.Time `json:"token_until,omitzero"`
}

// JoinOptions is what join needs besides the configuration.
type JoinOptions struct {
	Address string // host:port of a member's mesh port
	Token   string
	// Replace names the member whose voter this node takes the place of; empty:
	// none.
	Replace string
	// ServingOnly has this node serve clients and never vote.
	ServingOnly bool
}

// JoinResult is what join did, or found already done.
type JoinResult struct {
	Already   bool   `json:"already"`
	ClusterID string `json:"cluster_id"`
	Node      string `json:"node"`
	CAFile    string `json:"ca_file"`
}
