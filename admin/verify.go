package admin

import "context"

// Verifier compares what the nodes have stored.
type Verifier interface {
	// Verify has every node hash its state at one log index and compares them. It
	// blocks for as long as that takes; the nodes go on serving. Differences are no
	// error.
	Verify(ctx context.Context) (Verification, error)
}

// Verification is how the states of the nodes compare at one log index.
type Verification struct {
	Index uint64         `json:"index"`
	Nodes []VerifiedNode `json:"nodes"`
	// Differences are records that not all nodes have alike, at most some hundred.
	Differences []Difference `json:"differences"`
	// More tells that there are others besides.
	More bool `json:"more,omitempty"`
}

// Agree tells whether all nodes were compared, two at least or the only one, and none
// has a difference or a fault.
func (v Verification) Agree() bool {
	for _, n := range v.Nodes {
		if n.Error != "" || !n.Same || len(n.Faults) > 0 {
			return false
		}
	}
	return len(v.Nodes) > 0 && len(v.Differences) == 0
}

// VerifiedNode is one node of a Verification.
type VerifiedNode struct {
	Node    string  `json:"node"`
	Records uint64  `json:"records"`
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds"` // that it took
	// Same tells that its state is that of most nodes.
	Same bool `json:"same"`
	// Faults are where its state contradicts itself.
	Faults []string `json:"faults,omitempty"`
	// Error is why it was not compared.
	Error string `json:"error,omitempty"`
}

// Difference is a record that not all nodes have alike.
type Difference struct {
	Kind string `json:"kind"` // such as "retained message"
	Name string `json:"name"` // such as its topic
	Key  []byte `json:"key"`  // in the store
	// Nodes have it otherwise than most, or not at all; all nodes where no majority
	// has it alike.
	Nodes []string `json:"nodes"`
	// Sums are the hashes by node; one that does not have it has none.
	Sums map[string]string `json:"sums"`
}

const opVerify = "verify"

// Verify is Verifier.Verify.
func (c *Client) Verify(ctx context.Context) (Verification, error) {
	return call[Verification](ctx, c, opVerify, nothing{})
}
