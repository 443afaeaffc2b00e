package broker

import (
	"errors"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

func isShared(filter string) bool {
	_, _, shared := routing.SplitShared(filter)
	return shared
}

// request is one filter of a SUBSCRIBE.
type request struct {
	session.Subscription
	shared  bool
	logged  bool
	existed bool
	reason  byte // >= 0x80: refused
}

func (r *request) wantsRetained() bool {
	return r.reason < 0x80 && !r.shared && r.WantsRetained(r.existed)
}

// subscribe handles SUBSCRIBE. The reader waits until the subscriptions are
// active here, so that what the client publishes next reaches it; the rest is
// done by a goroutine of its own.
func (c *client) subscribe(p *packets.Packet) error {
	reqs := c.requests(p)
	var logged, live []*request
	for i := range reqs {
		r := &reqs[i]
		switch {
		case r.reason >= 0x80:
		case r.logged:
			logged = append(logged, r)
		default:
			live = append(live, r)
		}
	}
	var feeds []*feed
	if len(live) > 0 {
		c.b.deps.Log.Locked(func(at session.Pos, _ func() fsm.View) {
			for i, existed := range c.b.place(c, subscriptions(live), false) {
				live[i].existed = existed
			}
			feeds = c.begin(feeds, live, at)
		})
	}
	if len(logged) > 0 {
		more, err := c.subscribeLogged(logged)
		if err != nil {
			return err
		}
		feeds = append(feeds, more...)
	}
	synced := c.b.deps.Routes.Synced()
	c.wg.Go(func() {
		defer c.recovered()
		select {
		case <-synced:
		case <-c.b.ctx.Done():
		}
		c.suback(p.PacketID, reqs)
		c.runFeeds(feeds)
	})
	return nil
}

// requests decides what is to become of each filter.
func (c *client) requests(p *packets.Packet) []request {
	var id uint32
	if ids := p.Properties.SubscriptionIdentifier; len(ids) > 0 {
		id = uint32(ids[0])
	}
	c.b.subMu.Lock()
	have := len(c.subs)
	known := make(map[string]bool, len(p.Filters))
	for _, f := range p.Filters {
		known[f.Filter] = c.subscription(c.b.trie.Load(), f.Filter) != nil
	}
	c.b.subMu.Unlock()
	rights := c.may()
	reqs := make([]request, 0, len(p.Filters))
	for _, f := range p.Filters {
		r := request{Subscription: session.Subscription{
			Filter: f.Filter, QoS: min(f.Qos, *c.b.cfg.MaxQoS), NoLocal: f.NoLocal,
			RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling, ID: id,
		}}
		_, inner, shared := routing.SplitShared(f.Filter)
		if !shared {
			inner = f.Filter
		}
		r.shared, r.logged = shared, shared || c.logged
		switch {
		case routing.ValidFilter(f.Filter) != nil:
			r.reason = reasonFilterInvalid
		case c.tooDeep(inner):
			r.reason = reasonFilterInvalid
			c.refused(refusedLevels, "filter", shown(f.Filter))
		case !rights.MaySubscribe(inner):
			// By default not 0x87, which the Eclipse interoperability suite takes for
			// a protocol error, and which tells that the filter is worth guarding.
			r.reason = reasonUnspecified
			if c.b.cfg.RevealDenials {
				r.reason = reasonNotAuthorized
			}
			c.refused(refusedSubscribe, "filter", shown(f.Filter))
		case !known[f.Filter] && have >= rights.bounds.subscriptions:
			r.reason = reasonQuota
			c.refused(refusedSubscribes, "filter", shown(f.Filter))
		default:
			if !known[f.Filter] {
				known[f.Filter] = true
				have++
			}
			r.reason = r.QoS
		}
		reqs = append(reqs, r)
	}
	return reqs
}

// subscriptions are those of requests.
func subscriptions(reqs []*request) []session.Subscription {
	subs := make([]session.Subscription, len(reqs))
	for i, r := range reqs {
		subs[i] = r.Subscription
	}
	return subs
}

// subscribeLogged puts subscriptions into the log and waits until they are
// applied.
func (c *client) subscribeLogged(reqs []*request) ([]*feed, error) {
	s := &logpb.Subscribe{Client: c.id, Epoch: c.epoch}
	for _, r := range reqs {
		s.Subscriptions = append(s.Subscriptions, &logpb.Subscription{
			Filter: r.Filter, Qos: uint32(r.QoS), NoLocal: r.NoLocal,
			RetainAsPublished: r.RetainAsPublished, RetainHandling: uint32(r.RetainHandling), Id: r.ID,
		})
	}
	var feeds []*feed
	err := c.await(&logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: s}}, func(res fsm.Result) {
		c.b.place(c, subscriptions(reqs), true)
		for i, r := range reqs {
			r.existed = i < len(res.Existed) && res.Existed[i]
		}
		feeds = c.begin(feeds, reqs, res.Pos)
	})
	if errors.Is(err, fsm.ErrNotProposed) && c.version == 5 {
		for _, r := range reqs {
			r.reason = reasonQuota
		}
		return nil, nil
	}
	return feeds, err
}

// await submits item and waits for what becomes of it. applied runs where it is
// applied.
func (c *client) await(item *logpb.Item, applied func(fsm.Result)) error {
	c.busy.Store(true)
	defer func() {
		c.lastIn.Store(c.b.tick.Load())
		c.busy.Store(false)
	}()
	var wg sync.WaitGroup
	wg.Add(1)
	var err error
	c.b.deps.Log.Submit(item, func(r fsm.Result) {
		defer wg.Done()
		if err = r.Err; err == nil {
			applied(r)
		}
	})
	wg.Wait()
	return err
}

func (c *client) suback(id uint16, reqs []request) {
	p := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Suback}, ProtocolVersion: c.version, PacketID: id,
	}
	for i := range reqs {
		reason := reqs[i].reason
		if reason >= 0x80 && c.version < 5 {
			reason = 0x80
		}
		p.ReasonCodes = append(p.ReasonCodes, reason)
	}
	c.replyPacket(p)
}

func (c *client) replyPacket(p *packets.Packet) {
	p.Mods.MaxSize = uint32(c.maxPacket)
	b, err := codec.AppendPacket(nil, p)
	if err != nil {
		c.shut(shutdown{reason: reasonTooLarge, will: true})
		return
	}
	c.reply(func(dst []byte) []byte { return append(dst, b...) })
}

// unsubscribe handles UNSUBSCRIBE.
func (c *client) unsubscribe(p *packets.Packet) error {
	reasons := make([]byte, len(p.Filters))
	u := &logpb.Unsubscribe{Client: c.id, Epoch: c.epoch}
	var at []int // of u's filters in reasons
	for i, f := range p.Filters {
		c.b.subMu.Lock()
		s := c.subscription(c.b.trie.Load(), f.Filter)
		logged := s != nil && s.logged
		c.b.subMu.Unlock()
		switch {
		case s == nil:
			reasons[i] = reasonNoSubscription
		case logged:
			u.Filters = append(u.Filters, f.Filter)
			at = append(at, i)
		default:
			c.b.displace(c, f.Filter)
			c.stopFeeding(f.Filter)
		}
	}
	if len(u.Filters) > 0 {
		err := c.await(&logpb.Item{Kind: &logpb.Item_Unsubscribe{Unsubscribe: u}}, func(r fsm.Result) {
			for i, f := range u.Filters {
				c.b.displace(c, f)
				c.stopFeeding(f)
				if i < len(r.Found) && !r.Found[i] {
					reasons[at[i]] = reasonNoSubscription
				}
			}
		})
		switch {
		case errors.Is(err, fsm.ErrNotProposed) && c.version == 5:
			for _, i := range at {
				reasons[i] = reasonUnspecified
			}
		case err != nil:
			return err
		}
	}
	c.replyPacket(&packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Unsuback}, ProtocolVersion: c.version,
		PacketID: p.PacketID, ReasonCodes: reasons,
	})
	return nil
}

// stopFeeding lets no more retained messages follow UNSUBACK [MQTT-3.10.4-2].
func (c *client) stopFeeding(filter string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out.feeds) > 0 || len(c.out.replays) > 0 {
		c.out.stopReplays(filter)
		c.cond.Broadcast()
	}
}
