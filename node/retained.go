package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// Bounds of one listing of retained messages.
const (
	retainedLimit = 1000
	retainedMost  = 100_000
	retainedBytes = 8 << 20
)

// ListRetained implements admin.Retained.
func (b backend) ListRetained(_ context.Context, r admin.RetainedRequest) (_ []admin.RetainedMessage, err error) {
	if r.Limit <= 0 {
		r.Limit = retainedLimit
	}
	r.Limit = min(r.Limit, retainedMost)
	var after []byte
	if r.After != "" {
		after = routing.AppendTopicKey(nil, r.After)
	}
	out, bytes := []admin.RetainedMessage{}, 0
	err = b.n.eachRetained(r.Filter, after, func(m *session.Message) bool {
		out = append(out, admin.RetainedMessage{
			Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Publisher: m.Publisher, Stamp: m.Stamp, ExpiresAt: m.ExpiresAt,
		})
		bytes += m.Size()
		return len(out) < r.Limit && bytes < retainedBytes
	})
	return out, err
}

// eachRetained calls yield with the retained messages whose topics match a filter, from
// after a topic's key on and in their order, until it returns false.
func (n *Node) eachRetained(filter string, after []byte, yield func(*session.Message) bool) error {
	if err := routing.ValidFilter(filter); err != nil {
		return invalid(fmt.Errorf("the filter %.80q cannot be used: the %w", filter, err))
	}
	view := n.store.View()
	err := view.Retained(filter, after, view.Pos(), func(_ session.Pos, m *session.Message) bool { return yield(m) })
	return errors.Join(err, view.Close())
}

// SetRetained implements admin.Retained.
func (b backend) SetRetained(ctx context.Context, r admin.RetainedSet) (admin.Change, error) {
	m := admin.Message{Topic: r.Topic, Payload: r.Payload, QoS: int(r.QoS), Retain: true}
	if r.Expiry > 0 {
		m.Expiry = &r.Expiry
	}
	out, err := b.Publish(ctx, m)
	if err != nil {
		return admin.Change{}, err
	}
	return b.everywhere(ctx, out.Index)
}

// ClearRetained implements admin.Retained.
func (b backend) ClearRetained(ctx context.Context, filter string) (out admin.RetainedCleared, err error) {
	out.NotApplied = []string{}
	if err := b.n.everyoneAt(fsm.LevelAPI, "a message of an operator"); err != nil {
		return out, err
	}
	var clearing []*logpb.Item
	err = b.n.eachRetained(filter, nil, func(m *session.Message) bool {
		// Of QoS 1, so that subscribers learn of it who are away.
		clearing = append(clearing, publishItem(admin.Message{Topic: m.Topic, QoS: 1, Retain: true}))
		return true
	})
	if err != nil || len(clearing) == 0 {
		return out, err
	}
	last, err := b.n.proposeAll(ctx, clearing)
	if err != nil {
		return out, adminError(fmt.Errorf("not all of the %d topics were cleared, run it again: %w", len(clearing), err))
	}
	out.Cleared = len(clearing)
	out.Change, err = b.everywhere(ctx, last)
	return out, err
}
