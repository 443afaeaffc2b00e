package admin

import (
	"context"
	"time"
)

// Authority is the cluster's CA, of which a rotation has two.
type Authority interface {
	// CAStatus tells which CAs there are, and how every node stands to them.
	CAStatus(ctx context.Context) (CAStatus, error)
	// RotateCA makes a new CA that every node trusts beside the old one. It returns
	// when all do; NotApplied names those that do not yet.
	RotateCA(ctx context.Context, r CARequest) (CAResult, error)
	// RetireCA gives the nodes certificates of the new CA and then ends the old one,
	// with all certificates that it issued. NotApplied names the nodes that are not
	// done; what is left happens by itself when they are back.
	RetireCA(ctx context.Context, r CARequest) (CAResult, error)
}

// CARequest begins or ends a rotation. Force goes on where nodes do not answer or
// clients have certificates of the old CA only.
type CARequest struct {
	Force bool `json:"force,omitempty"`
}

// The stages of a rotation.
const (
	CASettled   = "settled"   // there is one CA
	CAOverlap   = "overlap"   // two are trusted, and nodes have certificates of the old one
	CASwitching = "switching" // nodes get certificates of the new one
)

// CAResult is the outcome of a step. Already: there was nothing to do.
type CAResult struct {
	Change
	Stage   string `json:"stage"`
	Already bool   `json:"already,omitempty"`
}

// CAStatus is the cluster's CAs.
type CAStatus struct {
	Stage string   `json:"stage"`
	CAs   []CAInfo `json:"cas"` // the oldest first
	Nodes []CANode `json:"nodes"`
	// OldClients are the clients' certificates in force that end with the old CA.
	OldClients []Cert `json:"old_clients"`
}

// CAInfo is one CA.
type CAInfo struct {
	Subject      string    `json:"subject"`
	Pin          string    `json:"pin"`    // as in join tokens
	SHA256       string    `json:"sha256"` // of the certificate, hex
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
	SignsNodes   bool      `json:"signs_nodes"`
	SignsClients bool      `json:"signs_clients"`
}

// CANode is how one node stands to the CAs, which it knows by their pins.
type CANode struct {
	Node     string    `json:"node"`
	Error    string    `json:"error,omitempty"` // it did not answer
	Trusted  []string  `json:"trusted"`
	Signer   string    `json:"signer"` // of its certificate
	NotAfter time.Time `json:"not_after"`
	Holds    []string  `json:"holds"`  // whose keys it has
	Sealed   bool      `json:"sealed"` // those are encrypted on its disk
}

// CAStatus is Authority.CAStatus.
func (c *Client) CAStatus(ctx context.Context) (CAStatus, error) {
	return call[CAStatus](ctx, c, opCAStatus, nothing{})
}

// RotateCA is Authority.RotateCA.
func (c *Client) RotateCA(ctx context.Context, r CARequest) (CAResult, error) {
	return call[CAResult](ctx, c, opCARotate, r)
}

// RetireCA is Authority.RetireCA.
func (c *Client) RetireCA(ctx context.Context, r CARequest) (CAResult, error) {
	return call[CAResult](ctx, c, opCARetire, r)
}
