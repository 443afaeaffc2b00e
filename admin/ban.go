package admin

import (
	"context"
	"slices"
	"strings"
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

// banQuery names whom a ban keeps out.
type banQuery struct {
	Kind  string `path:"kind" doc:"address, user or client"`
	Value string `path:"value" doc:"address or network, name, or client id, percent-encoded"`
}

// banPutQuery is a ban as it is to be.
type banPutQuery struct {
	Kind  string `path:"kind" doc:"address, user or client"`
	Value string `path:"value" doc:"address or network, name, or client id, percent-encoded"`
	As    BanPut `body:""`
}

func (q banQuery) request() BanRequest { return BanRequest{Kind: q.Kind, Value: q.Value} }

func (q banPutQuery) request() BanRequest {
	return BanRequest{Kind: q.Kind, Value: q.Value, Lifetime: q.As.Lifetime, Reason: q.As.Reason}
}

// BanPut is how long a ban lasts from now on, and why there is one.
type BanPut struct {
	Lifetime time.Duration `json:"lifetime_ns,omitempty"` // 0: until it is removed
	Reason   string        `json:"reason,omitempty"`
}

func (s *Server) banResources(m *mux, b Backend) {
	e := b.Bans
	if e == nil {
		return
	}
	key := func(b Ban) string { return b.Kind + " " + b.Value }
	handleResource(s, m, get("/v1/bans", tagAccess, "Bans in force."), listed(func(ctx context.Context) ([]Ban, error) {
		all, err := e.ListBans(ctx)
		slices.SortFunc(all, func(x, y Ban) int { return strings.Compare(key(x), key(y)) })
		return all, err
	}, key, func(b Ban, search string) bool { return contains(b.Value, search) || contains(b.Reason, search) }))
	handleResource(s, m, put("/v1/bans/{kind}/{value}", tagAccess, "Ban an address, a user or a client id in the whole cluster, connected ones included.", RoleAdmin).as(opBanAdd), func(ctx context.Context, q banPutQuery) (Change, error) {
		return e.AddBan(ctx, q.request())
	})
	handleResource(s, m, remove("/v1/bans/{kind}/{value}", tagAccess, "Lift a ban.", RoleAdmin).as(opBanRemove), func(ctx context.Context, q banQuery) (Change, error) {
		return once(e.RemoveBan(ctx, q.request()))
	})
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
