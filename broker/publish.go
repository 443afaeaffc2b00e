package broker

import (
	"errors"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// publish handles PUBLISH.
func (c *client) publish(frame []byte) error {
	var p codec.PublishPacket
	if err := codec.ParsePublish(frame, c.version, &p); err != nil {
		return err
	}
	c.in.counts[p.QoS]++
	if p.QoS > *c.b.cfg.MaxQoS {
		return &codec.Error{Reason: reasonQoSNotSupported, Text: "the QoS is not supported"} // [MQTT-3.2.2-11]
	}
	if p.QoS > 0 {
		c.flush()
		if err := c.admitPublish(&p); err != nil {
			return err
		}
	}
	t, err := c.topicOf(&p)
	if err != nil {
		return err
	}
	if r := c.may(); t.rights != r {
		t.rights, t.may = r, !reserved(t.topic) && r.MayPublish(t.topic)
	}
	if !t.may {
		return c.denied(&p)
	}
	if (p.QoS > 0 || p.Retain) && c.b.deps.Scarce() {
		if refused, err := c.refuseScarce(&p); refused {
			return err
		}
	}
	if p.QoS == 0 && !p.Retain && !c.zeroUnderWay() {
		c.in.batch.add(c, t, &p)
		if len(c.in.batch.msgs) >= maxBatch {
			c.flush()
		}
		return nil
	}
	c.flush()
	c.propose(t, &p)
	return nil
}

// zeroUnderWay tells whether QoS 0 messages of this client are in the log: a
// later one follows them there, so as not to overtake them.
func (c *client) zeroUnderWay() bool {
	if !c.in.zeroLog {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.zeroLog = c.out.zeroLog > 0
	c.in.batch.index = c.out.zeroAt
	return c.in.zeroLog
}

// topicOf resolves the topic alias [MQTT-3.3.2-8..12].
func (c *client) topicOf(p *codec.PublishPacket) (*topicMatch, error) {
	in := &c.in
	if !p.HasAlias {
		return c.checked(in.topics.lookup(p.Topic))
	}
	if p.Alias == 0 || int(p.Alias) > c.b.cfg.TopicAliasMaximum {
		return nil, &codec.Error{Reason: reasonAliasInvalid, Text: "the topic alias is out of range"}
	}
	if len(p.Topic) == 0 {
		topic, ok := in.aliases[p.Alias]
		if !ok {
			return nil, &codec.Error{Reason: reasonProtocolError, Text: "the topic alias is not set"}
		}
		return in.topics.lookupString(topic), nil
	}
	t, err := c.checked(in.topics.lookup(p.Topic))
	if err != nil {
		return nil, err
	}
	if in.aliases == nil {
		in.aliases = map[uint16]string{}
	}
	in.aliases[p.Alias] = t.topic
	return t, nil
}

func (c *client) checked(t *topicMatch) (*topicMatch, error) {
	if !t.valid {
		if routing.ValidTopic(t.topic) != nil {
			return nil, &codec.Error{Reason: reasonTopicInvalid, Text: "the topic is not valid"}
		}
		t.valid = true
	}
	return t, nil
}

// admitPublish counts a QoS 1 or 2 message against our Receive Maximum
// [MQTT-3.3.4-7]. Clients before version 5 know none: they are read no further.
func (c *client) admitPublish(p *codec.PublishPacket) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	again := false
	if p.QoS == 2 {
		_, again = o.double[p.PacketID]
	}
	limit := c.b.cfg.ReceiveMaximum
	if !again {
		if c.version == 5 && o.quota >= limit {
			return &codec.Error{Reason: reasonReceiveMaximum, Text: "more messages are unacknowledged than the Receive Maximum allows"}
		}
		o.quota++
		if p.QoS == 2 {
			if o.double == nil {
				o.double = map[uint16]struct{}{}
			}
			o.double[p.PacketID] = struct{}{}
		}
	}
	c.waitFor(func() bool { return o.acks.len() < limit })
	return nil
}

// waitFor blocks the reader until ok holds or the connection ends. The caller
// holds c.mu.
func (c *client) waitFor(ok func() bool) {
	if ok() {
		return
	}
	c.busy.Store(true)
	for !ok() && !c.out.closing {
		c.cond.Wait()
	}
	c.lastIn.Store(c.b.tick.Load())
	c.busy.Store(false)
}

// denied handles a message that the client may not publish.
func (c *client) denied(p *codec.PublishPacket) error {
	c.b.m.dropped(dropPublishDenied, 1)
	if c.version < 5 && c.b.cfg.DisconnectDenied {
		return errDenied
	}
	if p.QoS == 0 {
		return nil
	}
	reason := reasonNotAuthorized
	if c.version < 5 {
		// There is no way to tell: it is acknowledged and dropped.
		reason = reasonSuccess
	}
	c.settleAck(c.expectAck(p.QoS, p.PacketID), reason)
	return nil
}

// refuseScarce refuses a message that would have to be stored while the disks are
// nearly full. What makes room goes on: a retained message that clears another.
// QoS 0 goes on and is not retained. A QoS 2 message that comes again goes on as
// well, because the first one may have been taken.
func (c *client) refuseScarce(p *codec.PublishPacket) (refused bool, err error) {
	switch {
	case p.Retain && len(p.Payload) == 0, p.QoS == 2 && p.Dup:
		return false, nil
	case p.QoS == 0:
		p.Retain = false
		return false, nil
	}
	c.b.m.dropped(dropScarce, 1)
	if c.version < 5 {
		// There is no way to tell but by no acknowledgement.
		return true, errScarce
	}
	c.settleAck(c.expectAck(p.QoS, p.PacketID), reasonQuota)
	return true, nil
}

var errScarce = errors.New("the disks of the cluster are nearly full: no message is stored")

var errDenied = errors.New("the client published what it may not")

// ack is an acknowledgement that a message or PUBREL of the client waits for.
type ack struct {
	id     uint16
	typ    byte
	reason byte
	ready  bool
}

// expectAck takes the next place in the order in which acknowledgements are
// written [MQTT-4.6.0-2, -3].
func (c *client) expectAck(qos byte, id uint16) uint64 {
	typ := codec.TypePuback
	if qos == 2 {
		typ = codec.TypePubrec
	}
	return c.expect(typ, id)
}

func (c *client) expect(typ byte, id uint16) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	o.acks.push(ack{id: id, typ: typ})
	return o.ackBase + uint64(o.acks.len()) - 1
}

// settleAck makes an acknowledgement ready, and writes all that are now at the
// head of the order.
func (c *client) settleAck(number uint64, reason byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing || o.closed {
		return
	}
	a := o.acks.at(int(number - o.ackBase))
	a.ready, a.reason = true, reason
	was := o.acks.len()
	for o.acks.len() > 0 && o.acks.at(0).ready {
		a := o.acks.pop()
		o.ackBase++
		o.free(&a)
		o.control = codec.AppendAck(o.control, c.version, a.typ, a.id, a.reason)
	}
	if o.acks.len() < was {
		if c.busy.Load() {
			c.cond.Broadcast()
		}
		c.wake()
	}
}

// free gives quota back for an acknowledgement that ends a delivery.
func (o *outgoing) free(a *ack) {
	switch {
	case a.typ == codec.TypePuback:
		o.quota = max(o.quota-1, 0)
	case a.typ == codec.TypePubcomp, a.typ == codec.TypePubrec && a.reason >= 0x80:
		if _, ok := o.double[a.id]; ok {
			delete(o.double, a.id)
			o.quota = max(o.quota-1, 0)
		}
	}
}

// submission is a Publish on its way through the log. It is used again after
// done, so that a message costs few allocations.
type submission struct {
	b      *Broker
	item   logpb.Item
	kind   logpb.Item_Publish
	pub    logpb.Publish
	expiry uint32
	done   func(fsm.Result)

	c      *client
	number uint64 // of the ack; unused at QoS 0
}

func newSubmission(b *Broker) *submission {
	s := &submission{b: b}
	s.item.Kind = &s.kind
	s.kind.Publish = &s.pub
	s.done = s.finish
	return s
}

// propose puts a message into the log. It may block while the node's queue of
// proposals is full.
func (c *client) propose(t *topicMatch, p *codec.PublishPacket) {
	s := c.b.pubs.Get().(*submission)
	s.c = c
	own := make([]byte, len(p.Payload)+len(p.Properties))
	n := copy(own, p.Payload)
	copy(own[n:], p.Properties)
	s.pub.Client, s.pub.Epoch, s.pub.Topic = c.id, c.epoch, t.topic
	s.pub.Payload, s.pub.Properties = own[:n:n], own[n:]
	s.pub.Qos, s.pub.Retain, s.pub.PacketId = uint32(p.QoS), p.Retain, 0
	s.pub.Expiry = nil
	if p.HasExpiry {
		s.expiry = p.Expiry
		s.pub.Expiry = &s.expiry
	}
	switch p.QoS {
	case 0:
		c.mu.Lock()
		c.out.zeroLog++
		c.in.zeroLog = true
		c.waitFor(func() bool { return c.out.zeroLog <= c.b.cfg.ReceiveMaximum })
		c.mu.Unlock()
	case 2:
		s.pub.PacketId = uint32(p.PacketID)
		fallthrough
	default:
		s.number = c.expectAck(p.QoS, p.PacketID)
	}
	c.b.deps.Log.Submit(&s.item, s.done)
}

// finish acknowledges what the log took.
func (s *submission) finish(r fsm.Result) {
	c, number, qos, topic := s.c, s.number, s.pub.Qos, s.pub.Topic
	s.c, s.pub.Payload, s.pub.Properties, s.pub.Expiry = nil, nil, nil, nil
	s.b.pubs.Put(s)
	if qos == 0 {
		c.zeroDone(r)
		return
	}
	switch {
	case errors.Is(r.Err, fsm.ErrNotProposed):
		if c.version < 5 {
			c.shut(shutdown{will: true})
			return
		}
		c.settleAck(number, reasonQuota)
	case r.Err != nil:
		c.shut(c.b.sendAway())
	case c.version == 5 && !r.Matched && !r.Duplicate && c.b.nobody(topic):
		c.settleAck(number, reasonNoMatch)
	default:
		c.settleAck(number, reasonSuccess)
	}
}

// nobody tells whether it is certain that no client anywhere has a live
// subscription that matches topic. It runs on the goroutine that applies.
func (b *Broker) nobody(topic string) bool {
	return b.wanter != nil && len(b.match(b.applied.lookupString(topic))) == 0 && !b.wanter.Wants(topic)
}

// zeroDone notes that a QoS 0 message came through the log, or was lost.
func (c *client) zeroDone(r fsm.Result) {
	if r.Err != nil {
		c.b.m.dropped(dropUnproposed, 1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.zeroLog--
	c.out.zeroAt = max(c.out.zeroAt, r.Pos.Index())
	if c.busy.Load() {
		c.cond.Broadcast()
	}
}

// released handles a PUBREL of the client.
func (c *client) released(id uint16) error {
	c.flush()
	c.mu.Lock()
	c.waitFor(func() bool { return c.out.acks.len() < 2*c.b.cfg.ReceiveMaximum })
	c.mu.Unlock()
	number := c.expect(codec.TypePubcomp, id)
	item := &logpb.Item{Kind: &logpb.Item_Rel{Rel: &logpb.Rel{Client: c.id, Epoch: c.epoch, PacketId: uint32(id)}}}
	c.b.deps.Log.Submit(item, func(r fsm.Result) {
		switch {
		case r.Err != nil:
			// Without PUBCOMP the client asks again.
			c.shut(c.b.sendAway())
		case len(r.Found) > 0 && !r.Found[0] && c.version == 5:
			c.settleAck(number, reasonIDNotFound)
		default:
			c.settleAck(number, reasonSuccess)
		}
	})
	return nil
}

// batch gathers the QoS 0 messages of one read, so that each receiver is locked
// and woken once for all of them. Until flush they alias the read buffer.
type batch struct {
	msgs  []session.Message
	runs  []run
	bytes int
	index uint64 // what a peer must have applied before it delivers them
}

// run is a number of messages to one topic, one after the other.
type run struct {
	t        *topicMatch
	from, to int
	bytes    int
	expiring bool
}

// maxBatch bounds a batch.
const maxBatch = 512

func (b *batch) add(c *client, t *topicMatch, p *codec.PublishPacket) {
	b.msgs = append(b.msgs, session.Message{
		Topic: t.topic, Payload: p.Payload, Properties: p.Properties, Publisher: c.id,
	})
	n := len(b.msgs)
	if last := len(b.runs) - 1; last < 0 || b.runs[last].t != t {
		b.runs = append(b.runs, run{t: t, from: n - 1})
	}
	r := &b.runs[len(b.runs)-1]
	r.to = n
	size := len(t.topic) + len(p.Payload) + len(p.Properties) + 16
	r.bytes += size
	b.bytes += size
	if p.HasExpiry {
		m := &b.msgs[n-1]
		m.Stamp = c.b.clock.millis()
		m.ExpiresAt = m.Stamp + int64(p.Expiry)*1000
		r.expiring = true
	}
}

// flush delivers the batch, and has PUBRECs of the same read logged.
func (c *client) flush() {
	for q, n := range c.in.counts {
		if n > 0 {
			c.b.n.in[q].Add(n)
		}
	}
	c.in.counts = [3]int64{}
	if bt := &c.in.batch; len(bt.msgs) > 0 {
		if c.b.fanOut(bt) {
			bt.msgs = nil // receivers hold them
		}
		clear(bt.msgs)
		clear(bt.runs)
		bt.msgs, bt.runs, bt.bytes = bt.msgs[:0], bt.runs[:0], 0
		if c.in.pooled == nil {
			bt.msgs, bt.runs = nil, nil
		}
	}
	if c.in.marks {
		c.in.marks = false
		c.submitMarks()
	}
}

// fanOut delivers a batch here, to the members that shared subscriptions choose,
// and to peers. It reports whether the messages were kept for any of them.
func (b *Broker) fanOut(bt *batch) (kept bool) {
	for i := range bt.runs {
		r := &bt.runs[i]
		targets := b.match(r.t)
		if len(targets) > 0 {
			b.fanOutRun(bt, r, targets, &kept)
		}
		for j := r.from; j < r.to; j++ {
			if picks := b.deps.Log.Shared(r.t.topic); len(picks) > 0 {
				bt.keep(&kept)
				b.deliverPicks(picks, &bt.msgs[j])
			}
		}
	}
	b.forward(bt, &kept)
	return kept
}

// keep copies what the messages alias, so that they may outlive the read
// buffer.
func (bt *batch) keep(kept *bool) {
	if *kept {
		return
	}
	*kept = true
	msgs := append([]session.Message(nil), bt.msgs...)
	own := make([]byte, 0, bt.bytes)
	for i := range msgs {
		m := &msgs[i]
		at := len(own)
		own = append(own, m.Payload...)
		m.Payload = own[at:len(own):len(own)]
		at = len(own)
		own = append(own, m.Properties...)
		m.Properties = own[at:len(own):len(own)]
	}
	bt.msgs = msgs
}

func (b *Broker) deliverPicks(picks []fsm.Pick, m *session.Message) {
	for _, p := range picks {
		if p.Node == b.deps.NodeID {
			b.DeliverRemoteTo(p.Client, m, p.Subscription)
		} else if p.Node != "" {
			b.deps.Routes.ForwardTo(p.Node, p.Client, m, p.Subscription)
		}
	}
}

func (b *Broker) forward(bt *batch, kept *bool) {
	var msgs []*session.Message
	for i := range bt.runs {
		r := &bt.runs[i]
		if b.wanter != nil && !b.wanter.Wants(r.t.topic) {
			continue
		}
		bt.keep(kept)
		if msgs == nil {
			msgs = make([]*session.Message, 0, len(bt.msgs))
		}
		for j := r.from; j < r.to; j++ {
			msgs = append(msgs, &bt.msgs[j])
		}
	}
	if len(msgs) > 0 {
		b.deps.Routes.Forward(msgs, bt.index)
	}
}

// frames are the packets of a run, for one kind of receiver.
type frames struct {
	bytes   []byte
	largest int
}

// fanOutRun gives a run to all its local receivers.
func (b *Broker) fanOutRun(bt *batch, r *run, targets []target, kept *bool) {
	var all [2]frames // version 5 or not
	publisher := bt.msgs[r.from].Publisher
	for i := range targets {
		t := &targets[i]
		mg := t.of(publisher)
		if !mg.any {
			continue
		}
		c := t.c
		if r.expiring || (c.version == 5 && (len(mg.ids) > 0 || c.aliasMax > 0)) {
			bt.keep(kept)
			c.offerEach(bt.msgs[r.from:r.to], mg)
			continue
		}
		f := &all[0]
		if c.version == 5 {
			f = &all[1]
		}
		if f.bytes == nil {
			f.encode(c.version, bt.msgs[r.from:r.to], r.bytes)
		}
		if c.maxPacket != 0 && f.largest > c.maxPacket {
			bt.keep(kept)
			c.offerEach(bt.msgs[r.from:r.to], mg)
			continue
		}
		c.offerFrames(r.t.topic, f.bytes, r.to-r.from)
	}
}

func (f *frames) encode(version byte, msgs []session.Message, size int) {
	f.bytes = make([]byte, 0, size)
	for i := range msgs {
		at := len(f.bytes)
		f.bytes = codec.AppendPublish(f.bytes, version, &msgs[i], codec.PublishOptions{})
		f.largest = max(f.largest, len(f.bytes)-at)
	}
}

// offerFrames queues encoded QoS 0 messages of one topic.
func (c *client) offerFrames(topic string, frames []byte, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || c.out.closed {
		return
	}
	if !c.mayReceive(topic) {
		c.b.m.dropped(dropDenied, n)
		return
	}
	c.pushZero(piece{frames: frames, n: n})
	c.wake()
}

// offerEach queues QoS 0 messages of one topic that this receiver gets in a
// form of its own.
func (c *client) offerEach(msgs []session.Message, mg *merged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || c.out.closed {
		return
	}
	for i := range msgs {
		if c.accepts(&msgs[i], 0, mg.ids) {
			c.pushZero(piece{m: &msgs[i], n: 1, ids: mg.ids})
		}
	}
	c.wake()
}
