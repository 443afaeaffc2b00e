package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// kickReason is MQTT 5's "administrative action".
const kickReason = 0x98

// Bounds of what is counted of a queue.
const (
	queueChunk = 500
	queueCount = 100_000
)

func noSession(client string) error {
	return &admin.Error{Kind: admin.NotFound, Msg: fmt.Sprintf("client %q has no session: mqcluster session list shows who has one", client)}
}

// ShowSession implements admin.SessionRepair.
func (b backend) ShowSession(ctx context.Context, client string) (out admin.SessionDetail, err error) {
	s := b.n.store.Session(client)
	if s == nil {
		return out, noSession(client)
	}
	out.Session = admin.Session{
		Client: s.Client, User: s.User, Node: s.Owner, Address: s.Address,
		Protocol: int(s.Protocol), Subscriptions: len(s.Subscriptions), Expiry: s.Expiry,
	}
	out.Since, out.Inflight = s.Since, len(s.Inflight)
	if s.Owner == "" {
		out.ExpiresAt = s.ExpiresAt
	}
	if s.Will != nil {
		out.WillTopic, out.WillDelay = s.Will.Topic, s.Will.Delay
	}
	out.Filters = []admin.SessionSubscription{}
	for _, f := range s.Subscriptions {
		f := f.Subscription
		out.Filters = append(out.Filters, admin.SessionSubscription{
			Filter: f.Filter, QoS: byte(f.Qos), NoLocal: f.NoLocal, RetainAsPublished: f.RetainAsPublished, ID: f.Id,
		})
	}
	out.Sending, out.Receiving = b.n.store.UnderWay(client)
	out.Queued, out.QueuedBytes, out.More, err = b.countQueue(ctx, client)
	return out, err
}

// countQueue counts what waits for a session, up to a bound.
func (b backend) countQueue(ctx context.Context, client string) (messages int, bytes int64, more bool, err error) {
	view := b.n.store.View()
	defer func() { err = errors.Join(err, view.Close()) }()
	var after session.Pos
	for messages < queueCount {
		got, err := view.Queue(nil, client, after, queueChunk)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return messages, bytes, false, err
		}
		for _, q := range got {
			after = q.Pos
			bytes += int64(q.Message.Size())
		}
		if messages += len(got); len(got) < queueChunk {
			return messages, bytes, false, nil
		}
	}
	return messages, bytes, true, nil
}

// KickClient implements admin.SessionRepair. A client that has gone meanwhile is as
// good.
func (b backend) KickClient(ctx context.Context, client string) (admin.Kicked, error) {
	node, _, err := b.n.kick(ctx, client)
	if err == nil && node == "" {
		err = &admin.Error{Kind: admin.NotFound, Msg: fmt.Sprintf("client %q is not connected: mqcluster session list shows who is", client)}
	}
	return admin.Kicked{Node: node}, err
}

// kick closes the connection of a client on the node that the log names, and tells
// whether it was there; node is empty where the log knows of none.
func (n *Node) kick(ctx context.Context, client string) (node string, was bool, err error) {
	s := n.store.Session(client)
	if s == nil || s.Owner == "" {
		return "", false, nil
	}
	if was, err = askOne(ctx, n, s.Owner, pathKick, kickRequest{client}, n.serveKick); err != nil {
		return s.Owner, false, peerError(s.Owner, err)
	}
	return s.Owner, was, nil
}

type kickRequest struct {
	Client string `json:"client"`
}

// serveKick closes a connection here, and tells whether there was one.
func (n *Node) serveKick(_ context.Context, _ string, r kickRequest) (bool, error) {
	was := n.broker.Kick(r.Client, kickReason)
	if was {
		n.log.Info("a client was sent away at an operator's word", "client", r.Client)
	}
	return was, nil
}

// PurgeSession implements admin.SessionRepair.
func (b backend) PurgeSession(ctx context.Context, client string) (out admin.SessionPurged, err error) {
	s := b.n.store.Session(client)
	if s == nil {
		return out, noSession(client)
	}
	if out.Purged, _, out.More, err = b.countQueue(ctx, client); err != nil {
		return out, err
	}
	// A trim reaches no further than the entry before its own, so that this is
	// everything.
	out.Change, err = b.change(ctx, &logpb.Item{Kind: &logpb.Item_Trim{Trim: &logpb.Trim{
		Sessions: []*logpb.SessionTrim{{Client: client, Incarnation: s.Incarnation, To: 1<<63 - 1}},
	}}})
	return out, err
}
