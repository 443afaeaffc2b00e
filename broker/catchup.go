package broker

import (
	"slices"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// How many messages, and about how many bytes, are read from the log's queue at
// once.
const (
	minChunk   = 1
	firstChunk = 32
	maxChunk   = 256
	chunkBytes = 256 << 10
)

// mayRead tells whether the writer is to read the log's queue: the connection
// is behind, has little in memory, and nothing of a SUBSCRIBE is to go first.
func (c *client) mayRead() bool {
	o := &c.out
	return o.behind && !o.closing && o.queue.len() < max(o.chunk/2, 1) && o.queueBytes <= c.b.cfg.MaxQueuedBytes &&
		(len(o.feeds) == 0 || !o.feeds[0].reached)
}

// reread has the log's queue read again, because it gained messages that no
// event told of.
func (c *client) reread() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.behind = true
	c.wake()
}

// catchUp reads one chunk of the log's queue. It may block on the store.
func (c *client) catchUp() {
	c.mu.Lock()
	after, limit := c.out.read, c.out.chunk
	c.mu.Unlock()
	v := c.b.deps.Log.View()
	at := v.Pos()
	queued, err := v.Queue(nil, c.id, after, limit)
	if cerr := v.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		c.b.log.Error("the queue of a session cannot be read; the client is sent away", "client", c.id, "err", err)
		c.shut(shutdown{reason: reasonUnspecified, will: true})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caughtUp(queued, at, limit)
}

// caughtUp queues what catchUp read in a view at a position.
func (c *client) caughtUp(queued []fsm.Queued, at session.Pos, limit int) {
	o := &c.out
	if o.closing || o.closed {
		return
	}
	// Messages after a SUBSCRIBE wait until its retained ones are queued.
	barrier := session.Pos(0)
	if len(o.feeds) > 0 {
		barrier = o.feeds[0].at
	}
	bytes := 0
	for i := range queued {
		if barrier != 0 && queued[i].Pos > barrier {
			c.reached(barrier)
			return
		}
		bytes += queued[i].Message.Size()
		c.recall(&queued[i])
	}
	if bytes < chunkBytes {
		o.chunk = min(o.chunk*2, maxChunk)
	} else {
		o.chunk = max(o.chunk/2, minChunk)
	}
	switch {
	case len(queued) >= limit:
	case barrier != 0:
		if at >= barrier {
			c.reached(barrier)
		}
	default:
		o.read = max(o.read, at)
		if o.latest <= at {
			o.behind = false
			c.forgetResumed()
		}
		c.moved()
	}
}

// reached lets the first feed begin.
func (c *client) reached(barrier session.Pos) {
	c.out.read = max(c.out.read, barrier)
	c.out.feeds[0].reached = true
	c.cond.Broadcast()
}

// recall queues one message that was read from the log.
func (c *client) recall(q *fsm.Queued) {
	o := &c.out
	o.read = max(o.read, q.Pos)
	msg := message{m: q.Message, pos: q.Pos, owed: true, dup: q.Pos <= c.horizon}
	if r, ok := o.resumed[q.Pos]; ok {
		c.resume(q, r)
		return
	}
	if o.owed.has(q.Pos) {
		return // on its way
	}
	c.take(q.Pos)
	mg := merged{denied: !c.may().MayReceive(q.Message.Topic)}
	for _, s := range q.Subscriptions {
		if !s.NoLocal || q.Message.Publisher != c.id {
			mg.add(s, true)
		}
	}
	msg.qos = min(q.Message.QoS, mg.qos())
	if !mg.any || msg.qos == 0 && !o.waited(q.Pos) || !c.accepts(q.Message, msg.qos, &mg) {
		c.settle(q.Pos)
		return
	}
	msg.dup = msg.dup && msg.qos > 0
	msg.logged, msg.shared = msg.qos == 2, mg.shared
	msg.retain = q.Message.Retain && mg.rap
	msg.ids = mg.ids()
	c.pushQueue(msg)
}

// waited tells whether a message of QoS 0 at pos has waited for this connection.
// Others were offered to whoever was there when they came, or may have been sent
// by a connection whose end nobody saw.
func (o *outgoing) waited(pos session.Pos) bool {
	return slices.ContainsFunc(o.spans, func(s session.Span) bool { return s.Holds(pos) })
}

// passZero notes that a message which the log keeps for others needs nothing more
// here: it was of QoS 0. A connection that is behind comes to it in the log.
func (c *client) passZero(pos session.Pos) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := &c.out; !o.behind && len(o.feeds) == 0 && pos > o.read {
		c.take(pos)
		c.settle(pos)
	}
}

// resume queues a message that an earlier connection sent, under its old packet
// id [MQTT-4.4.0-1]. One that the client has already is passed over.
func (c *client) resume(q *fsm.Queued, r session.Out) {
	o := &c.out
	delete(o.resumed, q.Pos)
	switch r.State {
	case session.OutReceived:
		return
	case session.OutDone:
		// Noted, because the next connection must not send it either.
		c.take(q.Pos)
		c.settle(q.Pos)
		return
	}
	c.take(q.Pos)
	var mg merged
	for _, s := range q.Subscriptions {
		mg.add(s, true)
	}
	msg := message{
		m: q.Message, pos: q.Pos, id: r.PacketID, qos: 1, dup: true,
		retain: q.Message.Retain && mg.rap, ids: mg.ids(), owed: true, shared: mg.shared,
	}
	if r.State == session.OutSent {
		msg.qos, msg.logged = 2, true
	}
	c.pushQueue(msg)
}

// forgetResumed gives up messages that an earlier connection sent and that the
// session is not owed any more.
func (c *client) forgetResumed() {
	o := &c.out
	for pos, r := range o.resumed {
		delete(o.taken, r.PacketID)
		if r.State == session.OutSent {
			o.marks = append(o.marks, &logpb.Out{Pos: uint64(pos), PacketId: uint32(r.PacketID), State: uint32(session.OutDone)})
			c.b.progress.add(c)
		}
	}
	o.resumed = nil
}
