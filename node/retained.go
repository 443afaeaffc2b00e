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
func (b backend) ListRetained(_ context.Context, r admin.RetainedRequest) (out []admin.RetainedMessage, err error) {
	if err := routing.ValidFilter(r.Filter); err != nil {
		return nil, invalid(fmt.Errorf("the filter %q is not valid: %w", r.Filter, err))
	}
	if r.Limit <= 0 {
		r.Limit = retainedLimit
	}
	r.Limit = min(r.Limit, retainedMost)
	var after []byte
	if r.After != "" {
		after = routing.AppendTopicKey(nil, r.After)
	}
	view := b.n.store.View()
	defer func() { err = errors.Join(err, view.Close()) }()
	out, bytes := []admin.RetainedMessage{}, 0
	err = view.Retained(r.Filter, after, view.Pos(), func(_ session.Pos, m *session.Message) bool {
		out = append(out, admin.RetainedMessage{
			Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Publisher: m.Publisher, Stamp: m.Stamp, ExpiresAt: m.ExpiresAt,
		})
		bytes += m.Size()
		return len(out) < r.Limit && bytes < retainedBytes
	})
	return out, err
}

// SetRetained implements admin.Retained.
func (b backend) SetRetained(ctx context.Context, r admin.RetainedSet) (admin.Change, error) {
	if err := routing.ValidTopic(r.Topic); err != nil {
		return admin.Change{}, invalid(fmt.Errorf("the topic %q is not valid: %w", r.Topic, err))
	}
	if r.QoS > 2 {
		return admin.Change{}, invalid(errors.New("the QoS must be 0, 1 or 2"))
	}
	last, err := b.n.publishAs(ctx, func(publish func(*logpb.Publish) error) error {
		p := &logpb.Publish{Topic: r.Topic, Payload: r.Payload, Qos: uint32(r.QoS), Retain: true}
		if r.Expiry > 0 {
			p.Expiry = &r.Expiry
		}
		return publish(p)
	})
	if err != nil {
		return admin.Change{}, adminError(err)
	}
	return b.everywhere(ctx, last.Index())
}

// ClearRetained implements admin.Retained.
func (b backend) ClearRetained(ctx context.Context, filter string) (out admin.RetainedCleared, err error) {
	out.NotApplied = []string{}
	topics, err := b.retainedTopics(filter)
	if err != nil || len(topics) == 0 {
		return out, err
	}
	last, err := b.n.publishAs(ctx, func(publish func(*logpb.Publish) error) error {
		for _, topic := range topics {
			if err := publish(&logpb.Publish{Topic: topic, Qos: 1, Retain: true}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return out, adminError(fmt.Errorf("not all of the %d topics were cleared, run it again: %w", len(topics), err))
	}
	out.Cleared = len(topics)
	out.Change, err = b.everywhere(ctx, last.Index())
	return out, err
}

func (b backend) retainedTopics(filter string) (topics []string, err error) {
	if err := routing.ValidFilter(filter); err != nil {
		return nil, invalid(fmt.Errorf("the filter %q is not valid: %w", filter, err))
	}
	view := b.n.store.View()
	defer func() { err = errors.Join(err, view.Close()) }()
	err = view.Retained(filter, nil, view.Pos(), func(_ session.Pos, m *session.Message) bool {
		topics = append(topics, m.Topic)
		return true
	})
	return topics, err
}

// publishAs lets f publish by the log as a client of its own, which is there for as
// long as f runs. publish does not wait; publishAs returns when all that was published
// is applied here, with the position of the last.
func (n *Node) publishAs(ctx context.Context, f func(publish func(*logpb.Publish) error) error) (last session.Pos, _ error) {
	id := "$operator/" + n.cfg.Node.ID + "/" + randomID()
	r, err := n.proposeResult(ctx, &logpb.Item{Kind: &logpb.Item_Claim{Claim: &logpb.Claim{Client: id, CleanStart: true, Protocol: 5}}})
	if err != nil {
		return 0, err
	}
	epoch := uint64(r.Claim.Epoch)
	results := make(chan fsm.Result, publishWindow)
	under, number := 0, uint32(0)
	var failed error
	settle := func() {
		select {
		case r := <-results:
			under--
			failed = errors.Join(failed, r.Err)
			last = max(last, r.Pos)
		case <-ctx.Done():
			failed, under = errors.Join(failed, ctx.Err()), 0
		}
	}
	err = f(func(p *logpb.Publish) error {
		for under >= publishWindow && failed == nil {
			settle()
		}
		if failed != nil {
			return failed
		}
		number++
		p.Client, p.Epoch = id, epoch
		if p.Qos == 2 {
			p.PacketId = number%65535 + 1
		}
		under++
		// The channel has room for all that are under way: nobody is kept waiting.
		n.consensus.Submit(&logpb.Item{Kind: &logpb.Item_Publish{Publish: p}}, func(r fsm.Result) { results <- r })
		return nil
	})
	for under > 0 {
		settle()
	}
	release := n.propose(context.WithoutCancel(ctx), &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: id, Epoch: epoch}}})
	if errors.Is(release, fsm.ErrStale) {
		release = nil // it was released as one without a connection
	}
	return last, errors.Join(err, failed, release)
}

// publishWindow is how many messages publishAs has under way.
const publishWindow = 1000
