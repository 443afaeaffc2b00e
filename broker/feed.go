package broker

import (
	"errors"
	"time"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// feed is the retained messages that one SUBSCRIBE asked for. They are read in
// chunks, each in a view of its own, so that a slow client pins nothing: what was
// replaced after at comes by itself, what was cleared is not owed.
type feed struct {
	at      session.Pos // where the subscriptions became active
	parts   []*replay
	reached bool // all before at is queued
	// What came after at and is in no log: it goes after the retained messages.
	zero  fifo[piece]
	queue fifo[message]
}

// retained is one that was read.
type retained struct {
	pos session.Pos
	m   *session.Message
}

const (
	// feedQueue is how many retained messages wait in memory for one client
	// before more are read, and how many are read at once.
	feedQueue = 256
	// feedsPerSecond is how often at least a feed that is held to a rate reads.
	feedsPerSecond = 40
)

// begin starts a feed where the subscriptions became active.
func (c *client) begin(feeds []*feed, reqs []*request, at session.Pos) []*feed {
	f := &feed{at: at}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing || o.closed {
		return feeds
	}
	for _, r := range reqs {
		if !r.wantsRetained() {
			continue
		}
		o.stopReplays(r.Filter)
		p := &replay{Subscription: r.Subscription, at: at, logged: r.logged && r.QoS > 0 && c.expiry > 0}
		f.parts = append(f.parts, p)
		if p.logged {
			o.replays = append(o.replays, p)
		}
	}
	if len(f.parts) == 0 {
		return feeds
	}
	f.reached = !o.behind
	o.feeds = append(o.feeds, f)
	return append(feeds, f)
}

// runFeeds sends the retained messages of feeds, each when it is its turn.
func (c *client) runFeeds(feeds []*feed) {
	for _, f := range feeds {
		if !c.awaitTurn(f) {
			return
		}
		for _, p := range f.parts {
			if err := c.feedPart(p); err != nil {
				c.b.log.Error("retained messages cannot be read; the client is sent away", "client", c.id, "err", err)
				c.shut(shutdown{reason: reasonUnspecified, will: true})
				return
			}
			c.endPart(p)
		}
		c.endFeed(f)
	}
}

// awaitTurn reports false when the connection ends first.
func (c *client) awaitTurn(f *feed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	for !o.closing && (o.feeds[0] != f || !f.reached) {
		// The writer is to read up to here. Where it may not yet, the client's
		// acknowledgements wake it: a writer with nothing to do would wake this one.
		if o.feeds[0] == f && c.mayRead() {
			c.wake()
		}
		c.cond.Wait()
	}
	return !o.closing
}

func (c *client) feedPart(p *replay) error {
	if c.feedSys(p) {
		return nil
	}
	limit := feedQueue
	if r := c.b.cfg.RetainedRate; r > 0 {
		limit = min(max(r/feedsPerSecond, 1), feedQueue)
	}
	for c.awaitRoom(p) {
		got, more, err := c.readRetained(p, limit)
		if err != nil {
			return err
		}
		for _, g := range got {
			if !c.feedMessage(p, g) {
				return nil
			}
		}
		if !more {
			return nil
		}
	}
	return nil
}

// awaitRoom waits until the client has taken most of what was fed, and until the
// rate allows more. It reports false when there is nothing more to feed.
func (c *client) awaitRoom(p *replay) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if wait := time.Until(o.nextFeed); wait > 0 {
		t := time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.cond.Broadcast()
		})
		defer t.Stop()
	}
	for !o.closing && !p.stopped && (o.queue.len() >= feedQueue || o.zero.len() >= feedQueue || time.Now().Before(o.nextFeed)) {
		c.cond.Wait()
	}
	return !o.closing && !p.stopped
}

// readRetained reads at most limit messages, and about chunkBytes. It may block
// on the store. more tells whether there may be others.
func (c *client) readRetained(p *replay, limit int) (got []retained, more bool, err error) {
	v := c.b.deps.Log.View()
	bytes := 0
	err = v.Retained(p.Filter, p.after, p.at, func(pos session.Pos, m *session.Message) bool {
		got = append(got, retained{pos, m})
		bytes += m.Size()
		more = len(got) == limit || bytes >= chunkBytes
		return !more
	})
	if err = errors.Join(err, v.Close()); err != nil {
		return nil, false, err
	}
	if n := len(got); n > 0 {
		p.after = routing.AppendTopicKey(nil, got[n-1].m.Topic)
		c.pace(n)
	}
	return got, more, nil
}

// pace sets when the next messages may be fed.
func (c *client) pace(n int) {
	if r := c.b.cfg.RetainedRate; r > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.out.nextFeed = time.Now().Add(time.Duration(n) * time.Second / time.Duration(r))
	}
}

// feedMessage queues one retained message. It reports false when nothing more is
// to be fed.
func (c *client) feedMessage(p *replay, g retained) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, m, pos := &c.out, g.m, g.pos.OfRetained()
	out, known := session.Out{}, false
	if p.again {
		out, known = o.again[pos]
	}
	qos := min(m.QoS, p.QoS)
	mg := merged{denied: !c.may().MayReceive(m.Topic)}
	mg.add(p.Subscription, p.logged)
	ids := mg.ids()
	logged := qos == 2 && c.logged && !known
	for logged && o.keeps(pos) && !o.closing && !p.stopped {
		// The log has one state for each message: a copy for another filter comes
		// when the first has ended.
		c.cond.Wait()
	}
	switch {
	case o.closing || p.stopped:
		return false
	case known && out.State != 0,
		p.again && qos == 0, // it may have been sent
		p.NoLocal && m.Publisher == c.id,
		!c.accepts(m, qos, &mg):
		c.pass(p, m.Topic, pos)
		return true
	}
	c.b.n.retained.Add(1)
	if qos == 0 {
		o.zeroCount++
		o.zeroBytes += m.Size()
		o.zero.push(piece{m: m, n: 1, ids: ids, retain: true})
		c.pass(p, m.Topic, 0)
	} else {
		if logged {
			o.keep(pos)
		}
		if known {
			delete(o.again, pos)
			qos = 1
		}
		o.queueBytes += m.Size()
		o.queue.push(message{
			m: m, pos: pos, id: out.PacketID, ids: ids, qos: qos, dup: p.again && qos == 1, retain: true,
			logged: logged, traced: c.b.wants(c.id, m.Publisher, m.Topic), topic: p.owe(m.Topic, pos),
		})
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
		o.forgetAgain()
	}
	f.zero.moveTo(&o.zero)
	f.queue.moveTo(&o.queue)
	c.cond.Broadcast()
	c.wake()
}

// forgetAgain gives up retained messages that an earlier connection sent and
// that have gone or were replaced since.
func (o *outgoing) forgetAgain() {
	for _, r := range o.again {
		if r.State == 0 {
			delete(o.taken, r.PacketID)
		}
	}
	o.again = nil
}

// keeps tells whether the log holds the state of the retained message at pos,
// keep that it will.
func (o *outgoing) keeps(pos session.Pos) bool {
	_, ok := o.kept[pos]
	return ok
}

func (o *outgoing) keep(pos session.Pos) {
	if o.kept == nil {
		o.kept = map[session.Pos]struct{}{}
	}
	o.kept[pos] = struct{}{}
}
