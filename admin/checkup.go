package admin

import (
	"context"
	"time"
)

// Doctor tells what only the running node knows of itself, for mqcluster doctor.
type Doctor interface {
	// Checkup looks at the node and asks its peers; it changes nothing, but a
	// listener takes certificate files over that are good and changed.
	Checkup(ctx context.Context) (Checkup, error)
}

// Checkup is what the node found.
type Checkup struct {
	// Files are the descriptors of the process: how many it may have, has, and
	// would need for as many clients as are configured (0: no limit is).
	FilesLimit  uint64 `json:"files_limit"`
	FilesOpen   uint64 `json:"files_open"`
	FilesWanted uint64 `json:"files_wanted"`
	// Now is the node's clock.
	Now       time.Time         `json:"now"`
	Clocks    []PeerClock       `json:"clocks"`
	Listeners []ListenerCheckup `json:"listeners"`
}

// PeerClock is how far a peer's clock is ahead of the node's, give or take
// Uncertain.
type PeerClock struct {
	Node      string        `json:"node"`
	Ahead     time.Duration `json:"ahead_ns"`
	Uncertain time.Duration `json:"uncertain_ns"`
	Error     string        `json:"error,omitempty"` // it did not answer, or is too old to tell
}

// ListenerCheckup is the certificate that a listener serves.
type ListenerCheckup struct {
	Name     string    `json:"name"`
	Address  string    `json:"address"`
	Names    []string  `json:"names"` // in its certificate
	NotAfter time.Time `json:"not_after"`
	// Problem is why its files, as they are now, would not be used; the listener
	// goes on with what it has.
	Problem string `json:"problem,omitempty"`
}

// Checkup is Doctor.Checkup.
func (c *Client) Checkup(ctx context.Context) (Checkup, error) {
	return call[Checkup](ctx, c, opCheckup, nothing{})
}
