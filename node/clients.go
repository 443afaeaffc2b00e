package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/fsm"
)

// clientNames names clients of a node.
type clientNames struct {
	Clients []string `json:"clients"`
}

func (n *Node) serveClients(_ context.Context, _ string, r clientNames) ([]broker.ClientState, error) {
	return n.broker.ClientStates(r.Clients), nil
}

// asAdmin tells whether an error is one that an operator can do something about.
func asAdmin(err error) bool {
	_, ok := errors.AsType[*admin.Error](err)
	return ok
}

// holds tells whether text has part in it, whatever the case of its letters; part is
// in lower case.
func holds(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), part)
}

// Connections implements admin.Clients: the log knows who is connected where, and
// each node how its connections are.
func (b backend) Connections(ctx context.Context, q admin.ConnectionQuery) (admin.Page[admin.Connection], error) {
	page := admin.Page[admin.Connection]{Items: []admin.Connection{}}
	part, total, more := strings.ToLower(q.Search), 0, false
	b.n.store.EachSession(func(s fsm.SessionBrief) bool {
		if s.Node == "" || q.Node != "" && s.Node != q.Node || q.User != "" && s.User != q.User ||
			!holds(s.Client, part) && !holds(s.User, part) && !holds(s.Address, part) {
			return true
		}
		total++
		switch {
		case q.Cursor != "" && s.Client <= q.Cursor:
		case len(page.Items) < q.Limit:
			page.Items = append(page.Items, admin.Connection{
				Client: s.Client, User: s.User, Node: s.Node, Address: s.Address, Protocol: int(s.Protocol),
				Since: moment(s.Since), Subscriptions: s.Subscriptions, Persistent: s.Expiry > 0,
			})
		default:
			more = true
		}
		return true
	})
	if more {
		page.Next = page.Items[len(page.Items)-1].Client
	}
	page.Total = &total
	b.n.askTraffic(ctx, page.Items)
	return page, nil
}

// askTraffic has each node tell of its connections.
func (n *Node) askTraffic(ctx context.Context, all []admin.Connection) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	names := map[string][]string{}
	at := map[string]*admin.Connection{}
	for i := range all {
		c := &all[i]
		names[c.Node] = append(names[c.Node], c.Client)
		at[c.Client] = c
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for node, clients := range names {
		wg.Go(func() {
			states, err := askOne(ctx, n, node, pathClients, clientNames{clients}, n.serveClients)
			if err != nil {
				n.log.Debug("a peer did not tell of its clients", "member", node, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, s := range states {
				if c := at[s.Client]; c != nil {
					c.Traffic = trafficOf(s)
				}
			}
		})
	}
	wg.Wait()
}

func trafficOf(s broker.ClientState) admin.Traffic {
	return admin.Traffic{
		Known: true, Listener: s.Listener, InFlight: s.InFlight, Incoming: s.Incoming, Queued: s.Queued, QueuedLen: s.QueuedBytes,
		Behind: s.Behind, KeepAlive: int(s.KeepAlive / 1000), Quiet: s.Quiet,
	}
}

// Disconnect implements admin.Clients. A client that is not connected is as good.
func (b backend) Disconnect(ctx context.Context, client string) (admin.Disconnected, error) {
	node, was, err := b.n.kick(ctx, client)
	if err != nil || !was {
		return admin.Disconnected{}, err
	}
	return admin.Disconnected{Node: node}, nil
}

// SessionPage implements admin.Clients.
func (b backend) SessionPage(_ context.Context, q admin.SessionQuery) (admin.Page[admin.SessionState], error) {
	page := admin.Page[admin.SessionState]{Items: []admin.SessionState{}}
	if q.State != "" && q.State != admin.SessionConnected && q.State != admin.SessionAway {
		return page, invalid(fmt.Errorf("state is %q: write connected or away", q.State))
	}
	part, total, more := strings.ToLower(q.Search), 0, false
	b.n.store.EachSession(func(s fsm.SessionBrief) bool {
		state := sessionState(s)
		if q.State != "" && state.State != q.State || q.User != "" && s.User != q.User || !holds(s.Client, part) && !holds(s.User, part) {
			return true
		}
		total++
		switch {
		case q.Cursor != "" && s.Client <= q.Cursor:
		case len(page.Items) < q.Limit:
			page.Items = append(page.Items, state)
		default:
			more = true
		}
		return true
	})
	if more {
		page.Next = page.Items[len(page.Items)-1].Client
	}
	page.Total = &total
	for i := range page.Items {
		var err error
		if page.Items[i].Waiting, err = b.n.store.Waiting(page.Items[i].Client, admin.MaxWaiting); err != nil {
			return page, err
		}
	}
	return page, nil
}

func sessionState(s fsm.SessionBrief) admin.SessionState {
	out := admin.SessionState{
		Session: admin.Session{
			Client: s.Client, User: s.User, Node: s.Node, Address: s.Address, Protocol: int(s.Protocol),
			Subscriptions: s.Subscriptions, Expiry: s.Expiry,
		},
		State: admin.SessionAway, Since: moment(s.Since), Ends: moment(s.ExpiresAt),
	}
	if s.Node != "" {
		out.State, out.Ends = admin.SessionConnected, time.Time{}
	}
	return out
}

// SessionDetail implements admin.Clients.
func (b backend) SessionDetail(_ context.Context, client string) (admin.SessionReport, error) {
	s := b.n.store.Session(client)
	if s == nil {
		return admin.SessionReport{}, &admin.Error{Kind: admin.NotFound, Msg: fmt.Sprintf("client %q has no session: see GET /v1/sessions", client)}
	}
	d := admin.SessionReport{
		SessionState: sessionState(fsm.SessionBrief{
			Client: s.Client, User: s.User, Node: s.Owner, Address: s.Address, Protocol: s.Protocol, Expiry: s.Expiry,
			Since: s.Since, ExpiresAt: s.ExpiresAt, Subscriptions: len(s.Subscriptions),
		}),
		Will: s.Will.GetTopic(), Subs: []admin.SubscriptionDetail{},
	}
	for _, sub := range s.Subscriptions {
		r := sub.Subscription
		d.Subs = append(d.Subs, admin.SubscriptionDetail{
			Filter: r.GetFilter(), QoS: int(r.GetQos()), NoLocal: r.GetNoLocal(), RetainAsPublished: r.GetRetainAsPublished(),
		})
	}
	var err error
	d.Waiting, err = b.n.store.Waiting(client, admin.MaxWaiting)
	return d, err
}

// comingsAfter asks for what happened to the clients of a node.
type comingsAfter struct {
	After uint64 `json:"after"` // number of the last event that is known; comingsNow: from now on
	Wait  int64  `json:"wait_ms"`
}

type comingsAnswer struct {
	Events []broker.ClientEvent `json:"events"`
	Last   uint64               `json:"last"`
	Missed uint64               `json:"missed"`
}

const (
	comingsNow  = 1 << 63
	comingsPage = 512
	// comingsWait is how long a node waits for something to tell, well within
	// controlTimeout.
	comingsWait = 5 * time.Second
)

func (n *Node) serveComings(ctx context.Context, _ string, r comingsAfter) (a comingsAnswer, _ error) {
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(r.Wait)*time.Millisecond, comingsWait))
	defer cancel()
	a.Events, a.Last, a.Missed = n.broker.ClientEvents(ctx, r.After, comingsPage)
	return a, nil
}

// WatchClients implements admin.Clients: every member is asked what happened, again
// and again.
func (b backend) WatchClients(ctx context.Context, yield func(admin.ClientEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := make(chan admin.ClientEvent, comingsPage)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	asked := map[string]bool{}
	tick := time.NewTicker(comingsWait)
	defer tick.Stop()
	for {
		for _, m := range b.n.store.Members() {
			if !asked[m.Node] {
				asked[m.Node] = true
				wg.Go(func() { b.n.followComings(ctx, m.Node, out) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case e := <-out:
			if err := yield(e); err != nil {
				return err
			}
		}
	}
}

// comingsPause is how long a member is left alone that did not answer.
const comingsPause = time.Second

// followComings passes on what a member tells until ctx ends.
func (n *Node) followComings(ctx context.Context, member string, out chan<- admin.ClientEvent) {
	after := uint64(comingsNow)
	for ctx.Err() == nil {
		a, err := askOne(ctx, n, member, pathComings, comingsAfter{after, comingsWait.Milliseconds()}, n.serveComings)
		if err != nil {
			after = comingsNow // it may be another process when it answers again
			select {
			case <-ctx.Done():
			case <-time.After(comingsPause):
			}
			continue
		}
		after = a.Last
		if a.Missed > 0 && !offer(ctx, out, admin.ClientEvent{At: time.Now(), Kind: admin.ClientMissed, Node: member}) {
			return
		}
		for _, e := range a.Events {
			if !offer(ctx, out, clientEvent(member, e)) {
				return
			}
		}
	}
}

func offer(ctx context.Context, out chan<- admin.ClientEvent, e admin.ClientEvent) bool {
	select {
	case out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func clientEvent(node string, e broker.ClientEvent) admin.ClientEvent {
	out := admin.ClientEvent{
		At: e.At, Kind: admin.ClientDisconnected, Node: node, Client: e.Client, User: e.User, Address: e.Remote.String(), Reason: e.Reason,
	}
	if e.Connected {
		out.Kind = admin.ClientConnected
	}
	return out
}
