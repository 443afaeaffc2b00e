package node

import (
	"context"
	"errors"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// AddBan implements admin.Bans.
func (b backend) AddBan(ctx context.Context, r admin.BanRequest) (admin.Change, error) {
	if err := b.n.reached("a ban"); err != nil {
		return admin.Change{}, err
	}
	ban, err := auth.ParseBan(r.Kind, r.Value)
	if err == nil && (r.Lifetime < 0 || r.Lifetime > 100*366*24*time.Hour) {
		err = errors.New("a ban lasts up to 100 years, or, with 0, until it is removed")
	}
	if err != nil {
		return admin.Change{}, invalid(err)
	}
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_BanPut{BanPut: &logpb.BanPut{
		Kind: ban.Kind, Value: ban.Value, Lifetime: r.Lifetime.Milliseconds(), Reason: r.Reason,
	}}})
}

// ListBans implements admin.Bans.
func (b backend) ListBans(context.Context) ([]admin.Ban, error) {
	var out []admin.Ban
	for _, r := range b.n.store.ListBans() {
		ban := admin.Ban{Kind: r.Kind, Value: r.Value, Since: time.UnixMilli(r.Since), Automatic: r.Automatic, Reason: r.Reason}
		if r.ExpiresAt != 0 {
			ban.ExpiresAt = time.UnixMilli(r.ExpiresAt)
		}
		out = append(out, ban)
	}
	return out, nil
}

// RemoveBan implements admin.Bans.
func (b backend) RemoveBan(ctx context.Context, r admin.BanRequest) (admin.Change, error) {
	ban, err := auth.ParseBan(r.Kind, r.Value)
	if err != nil {
		return admin.Change{}, invalid(err)
	}
	for _, have := range b.n.store.ListBans() {
		if have.Kind == ban.Kind && have.Value == ban.Value {
			return b.change(ctx, &logpb.Item{Kind: &logpb.Item_BanRemove{BanRemove: &logpb.BanRemove{Kind: ban.Kind, Value: ban.Value}}})
		}
	}
	return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: "there is no ban of " + ban.Kind + " " + ban.Value + ": see mqcluster ban list"}
}
