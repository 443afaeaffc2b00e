package admin

import (
	"context"
	"time"
)

// Bans keep addresses, users and clients out of the whole cluster.
type Bans interface {
	// AddBan bans, connected clients included. Of one that is banned already it
	// changes reason and end.
	AddBan(ctx context.Context, r BanRequest) (Change, error)
	ListBans(ctx context.Context) ([]Ban, error)
	RemoveBan(ctx context.Context, r BanRequest) (Change, error)
}

// BanRequest names whom. Lifetime 0 is until it is removed.
type BanRequest struct {
	Kind     string        `json:"kind"` // address, user or client
	Value    string        `json:"value"`
	Lifetime time.Duration `json:"lifetime_ns,omitempty"`
	Reason   string        `json:"reason,omitempty"`
}

// Ban is one in force.
type Ban struct {
	Kind      string    `json:"kind"`
	Value     string    `json:"value"`
	Since     time.Time `json:"since"`               // by the log's clock
	ExpiresAt time.Time `json:"expires_at,omitzero"` // likewise; zero: never
	Automatic bool      `json:"automatic"`           // a node saw abuse
	Reason    string    `json:"reason"`
}

// AddBan is Bans.AddBan.
func (c *Client) AddBan(ctx context.Context, r BanRequest) (Change, error) {
	return call[Change](ctx, c, opBanAdd, r)
}

// ListBans is Bans.ListBans.
func (c *Client) ListBans(ctx context.Context) ([]Ban, error) {
	return call[[]Ban](ctx, c, opBanList, nothing{})
}

// RemoveBan is Bans.RemoveBan.
func (c *Client) RemoveBan(ctx context.Context, r BanRequest) (Change, error) {
	return call[Change](ctx, c, opBanRemove, r)
}
