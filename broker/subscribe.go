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

// wantsRetained tells whether retained messages are to be sent [MQTT-3.3.1-9..11],
// [MQTT-4.8.2] none for shared subscriptions.
func (r *request) wantsRetained() bool {
	return r.reason < 0x80 && !r.shared && (r.RetainHandling == 0 || r.RetainHandling == 1 && !r.existed)
}

// feed is a SUBSCRIBE whose retained messages are being read.
type feed struct {
	at      session.Pos // where the subscriptions became active
	view    fsm.View
	reqs    []*request
	reached bool // all before at is queued
	// What came after at and is in no log: it goes after the retained messages.
	zero  fifo[piece]
	queue fifo[message]
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
		c.b.deps.Log.Locked(func(at session.Pos, view func() fsm.View) {
			for _, r := range live {
				r.existed = c.b.place(c, r.Subscription, false)
			}
			feeds = c.begin(feeds, live, at, view)
		})
	}
	if len(logged) > 0 {
		more, err := c.subscribeLogged(logged)
		if err != nil {
			c.drop(feeds)
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
		for _, f := range feeds {
			c.feedOne(f)
		}
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
		known[f.Filter] = c.subs[f.Filter] != nil
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
		case !rights.MaySubscribe(inner):
			// By default not 0x87, which the Eclipse interoperability suite takes for
			// a protocol error, and which tells that the filter is worth guarding.
			r.reason = reasonUnspecified
			if c.b.cfg.RevealDenials {
				r.reason = reasonNotAuthorized
			}
		case !known[f.Filter] && have >= c.b.cfg.MaxSubscriptions:
			r.reason = reasonQuota
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
		for i, r := range reqs {
			c.b.place(c, r.Subscription, true)
			r.existed = i < len(res.Existed) && res.Existed[i]
		}
		feeds = c.begin(feeds, reqs, res.Pos, c.b.deps.Log.View)
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

// begin starts a feed where the subscriptions became active.
func (c *client) begin(feeds []*feed, reqs []*request, at session.Pos, view func() fsm.View) []*feed {
	any := false
	for _, r := range reqs {
		any = any || r.wantsRetained()
	}
	if !any {
		return feeds
	}
	f := &feed{at: at, view: view(), reqs: reqs}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || c.out.closed {
		f.view.Close()
		return feeds
	}
	f.reached = !c.out.behind
	c.out.feeds = append(c.out.feeds, f)
	return append(feeds, f)
}

// drop ends feeds whose SUBSCRIBE failed; the connection is being closed.
func (c *client) drop(feeds []*feed) {
	for _, f := range feeds {
		f.view.Close()
	}
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

// feedOne queues the retained messages of a feed when it is its turn.
func (c *client) feedOne(f *feed) {
	defer f.view.Close()
	c.mu.Lock()
	for !c.out.closing && (c.out.feeds[0] != f || !f.reached) {
		if c.out.feeds[0] == f {
			c.wake() // the writer is to read up to here
		}
		c.cond.Wait()
	}
	c.mu.Unlock()
	for _, r := range f.reqs {
		if !r.wantsRetained() || c.feedSys(r) {
			continue
		}
		err := f.view.Retained(r.Filter, nil, f.at, func(pos session.Pos, m *session.Message) bool {
			return c.feedMessage(pos, m, r)
		})
		if err != nil {
			c.b.log.Error("retained messages cannot be read; the client is sent away", "client", c.id, "err", err)
			c.shut(shutdown{reason: reasonUnspecified, will: true})
			return
		}
	}
	c.endFeed(f)
}

// feedQueue is how many retained messages wait in memory for one client.
const feedQueue = 256

// feedMessage queues one retained message; it waits while the client is slow.
// It reports false when the connection ends.
func (c *client) feedMessage(pos session.Pos, m *session.Message, r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.queue.len() >= feedQueue || o.zero.len() >= feedQueue {
		// The view that is read from holds disk space: not for ever.
		c.feedSince.Store(c.b.tick.Load())
		for !o.closing && (o.queue.len() >= feedQueue || o.zero.len() >= feedQueue) {
			c.cond.Wait()
		}
		c.feedSince.Store(0)
	}
	if o.closing {
		return false
	}
	var ids []uint32
	if r.ID != 0 {
		ids = []uint32{r.ID}
	}
	qos := min(m.QoS, r.QoS)
	if r.NoLocal && m.Publisher == c.id || !c.accepts(m, qos, ids) {
		return true
	}
	c.b.n.retained.Add(1)
	if qos == 0 {
		o.zeroCount++
		o.zeroBytes += m.Size()
		o.zero.push(piece{m: m, n: 1, ids: ids, retain: true})
	} else {
		o.queueBytes += m.Size()
		pos = pos.OfRetained()
		o.queue.push(message{m: m, pos: pos, ids: ids, qos: qos, retain: true, logged: qos == 2 && c.logged && o.keep(pos)})
	}
	c.wake()
	return true
}

// endFeed lets what waited for f go on.
func (c *client) endFeed(f *feed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing {
		return
	}
	o.feeds = o.feeds[1:]
	if len(o.feeds) == 0 {
		o.feeds = nil
	}
	f.zero.moveTo(&o.zero)
	f.queue.moveTo(&o.queue)
	c.cond.Broadcast()
	c.wake()
}

// unsubscribe handles UNSUBSCRIBE.
func (c *client) unsubscribe(p *packets.Packet) error {
	reasons := make([]byte, len(p.Filters))
	u := &logpb.Unsubscribe{Client: c.id, Epoch: c.epoch}
	var at []int // of u's filters in reasons
	for i, f := range p.Filters {
		c.b.subMu.Lock()
		s := c.subs[f.Filter]
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
		}
	}
	if len(u.Filters) > 0 {
		err := c.await(&logpb.Item{Kind: &logpb.Item_Unsubscribe{Unsubscribe: u}}, func(r fsm.Result) {
			for i, f := range u.Filters {
				c.b.displace(c, f)
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
