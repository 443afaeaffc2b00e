package admin

import "context"

// Balance evens out how many clients the nodes have.
type Balance interface {
	// Balance has every node with more clients than its share send the rest away,
	// and returns when that is done, or ctx has ended.
	Balance(ctx context.Context) ([]Share, error)
}

// Share is what became of one node's clients.
type Share struct {
	Node string `json:"node"`
	// Clients is how many the node had, Share how many it should have, and Sent
	// how many it has sent away.
	Clients int `json:"clients"`
	Share   int `json:"share"`
	Sent    int `json:"sent"`
	// Out says why the node takes no part: it is not ready.
	Out bool `json:"out,omitempty"`
}

// Balance is Balance.Balance.
func (c *Client) Balance(ctx context.Context) ([]Share, error) {
	return call[[]Share](ctx, c, opBalance, nothing{})
}
