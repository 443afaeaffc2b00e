package broker

import (
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/session"
)

// encodings are the packets of one message, each made when it is first needed.
type encodings struct {
	m      *session.Message
	frames [2][3][2][]byte // version 5 or not, QoS, retain
}

func (e *encodings) frame(version, qos byte, retain bool) []byte {
	v, r := 0, 0
	if version == 5 {
		v = 1
	}
	if retain {
		r = 1
	}
	f := &e.frames[v][qos][r]
	if *f == nil {
		o := codec.PublishOptions{QoS: qos, Retain: retain, PacketID: 1}
		*f = codec.AppendPublish(nil, version, e.m, o)
	}
	return *f
}

// deliver gives a message of the log to the clients of this node. It runs on
// the goroutine that applies.
func (b *Broker) deliver(ev *fsm.Event) {
	pos, m, picks := ev.Pos, ev.Message, ev.Picks
	b.tapped(m)
	enc := encodings{m: m}
	match := matchAside(ev.Aside)
	b.delivered.topic, b.delivered.match = m.Topic, match
	for i, ts := 0, b.matchTopic(match, m.Topic); i < len(ts); i++ {
		mg := *ts[i].of(m.Publisher)
		if len(picks) > 0 {
			picks = b.merge(picks, ts[i].c, &mg)
		}
		if mg.any {
			ts[i].c.offer(pos, &mg, &enc)
			if ev.Zero && mg.log > 0 && min(m.QoS, mg.qos()) == 0 {
				ts[i].c.passZero(pos)
			}
		}
	}
	for len(picks) > 0 {
		p := picks[0]
		if p.Node != b.deps.NodeID {
			picks = picks[1:]
			continue
		}
		c := b.find(p.Client)
		if c == nil {
			picks = picks[1:]
			continue
		}
		mg := merged{denied: !c.may().MayReceive(m.Topic)}
		picks = b.merge(picks, c, &mg)
		c.offer(pos, &mg, &enc)
	}
}

// matchAside returns the match that lies in aside; one that it puts there, where none does.
func matchAside(aside *any) *topicMatch {
	m, ok := (*aside).(*topicMatch)
	if !ok {
		m = new(topicMatch)
		*aside = m
	}
	return m
}

// merge moves the picks of c into mg: a client gets one copy, as it does when
// the queue is read from the log.
func (b *Broker) merge(picks []fsm.Pick, c *client, mg *merged) []fsm.Pick {
	mine := false
	for i := range picks {
		mine = mine || picks[i].Client == c.id
	}
	if !mine {
		return picks
	}
	rest := make([]fsm.Pick, 0, len(picks))
	for _, p := range picks {
		if p.Client != c.id {
			rest = append(rest, p)
		} else if p.Node == b.deps.NodeID {
			mg.add(p.Subscription, true)
		}
	}
	return rest
}

// offer queues a message of the log for c, or leaves it in the log.
func (c *client) offer(pos session.Pos, mg *merged, enc *encodings) {
	m := enc.m
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing || o.closed {
		return
	}
	qos := min(m.QoS, mg.qos())
	if qos == 0 {
		if c.accepts(m, 0, mg) {
			c.pushZero(c.piece(m, mg, enc))
			c.wake()
		}
		return
	}
	if mg.log > 1 {
		c.offerOwed(pos, mg, enc)
	}
	if mg.log <= 1 || (o.behind && mg.live > 1) {
		c.offerLive(mg, enc)
	}
	c.wake()
}

// offerOwed is offer for what the log keeps a queue for.
func (c *client) offerOwed(pos session.Pos, mg *merged, enc *encodings) {
	o := &c.out
	if pos <= o.read && !o.behind {
		return // the log's queue was read beyond it
	}
	if o.behind {
		o.latest = max(o.latest, pos)
		c.tellWaits(pos, mg, enc.m)
		return
	}
	if len(o.feeds) > 0 || c.full(enc.m) {
		o.behind, o.latest = true, pos
		c.tellWaits(pos, mg, enc.m)
		return
	}
	c.take(pos)
	if !c.accepts(enc.m, 1, mg) {
		c.settle(pos)
		return
	}
	msg := c.message(mg, enc)
	msg.pos, msg.owed = pos, true
	msg.logged = msg.qos == 2
	c.pushQueue(msg)
}

// offerLive is offer for what nobody keeps but this connection.
func (c *client) offerLive(mg *merged, enc *encodings) {
	if !c.accepts(enc.m, 1, mg) {
		return
	}
	if c.full(enc.m) {
		c.drop(dropQueueFull, enc.m, 0)
		return
	}
	c.pushQueue(c.message(mg, enc))
}

// accepts tells whether m may go to the client at all; what may not is counted.
func (c *client) accepts(m *session.Message, qos byte, mg *merged) bool {
	if m.ExpiresAt != 0 && m.ExpiresAt <= c.b.clock.millis() {
		c.drop(dropExpired, m, 0)
		return false
	}
	if mg.denied {
		c.drop(dropDenied, m, 0)
		return false
	}
	if !c.fits(m, qos, mg.ids()) {
		c.drop(dropTooLarge, m, 0)
		return false
	}
	return true
}

// plain tells whether the client takes the shared encoding of m.
func (c *client) plain(m *session.Message, ids []uint32) bool {
	return c.version < 5 || (len(ids) == 0 && c.aliasMax == 0 && m.ExpiresAt == 0)
}

// piece is m at QoS 0.
func (c *client) piece(m *session.Message, mg *merged, enc *encodings) piece {
	retain := m.Retain && mg.rap
	if c.plain(m, mg.ids()) && m.ExpiresAt == 0 && !c.b.wants(c.id, m.Publisher, m.Topic) {
		return piece{frames: enc.frame(c.version, 0, retain), n: 1}
	}
	return piece{m: m, n: 1, ids: mg.ids(), retain: retain}
}

// message is m at QoS 1 or 2.
func (c *client) message(mg *merged, enc *encodings) message {
	m := enc.m
	msg := message{m: m, qos: min(m.QoS, mg.qos()), retain: m.Retain && mg.rap, ids: mg.ids(), shared: mg.shared}
	if c.plain(m, mg.ids()) {
		msg.frame = enc.frame(c.version, msg.qos, msg.retain)
	}
	return msg
}

// DeliverRemote gives a QoS 0 message of another node, which had applied the log up to
// asOf when it sent it, to the clients of this one that subscribe to it. A client that
// came later, from another connection, does not get it: that other one may have. It
// does not block. aside is a place beside the topic that the caller keeps for the
// Broker; nobody else looks at it meanwhile.
func (b *Broker) DeliverRemote(m *session.Message, asOf uint64, aside *any) {
	m = b.rebase(m)
	enc := encodings{m: m}
	b.tellArrived(m)
	b.tapped(m)
	ts := b.matchTopic(matchAside(aside), m.Topic)
	for i := range ts {
		mg := ts[i].of(m.Publisher)
		switch {
		case !mg.any:
		case ts[i].c.left > asOf:
			ts[i].c.drop(dropMoved, m, 0)
		default:
			ts[i].c.offerZero(mg, &enc)
		}
	}
}

// DeliverRemoteTo gives a QoS 0 message of another node to the client that a
// shared subscription chose.
func (b *Broker) DeliverRemoteTo(client string, m *session.Message, sub session.Subscription) {
	if c := b.find(client); c != nil {
		b.tellArrived(m)
		mg := merged{denied: !c.may().MayReceive(m.Topic)}
		mg.add(sub, false)
		enc := encodings{m: b.rebase(m)}
		c.offerZero(&mg, &enc)
	}
}

// rebase puts the expiry of a message of the mesh, whose clock is another
// node's, on this node's.
func (b *Broker) rebase(m *session.Message) *session.Message {
	if m.ExpiresAt == 0 {
		return m
	}
	n := *m
	n.Stamp = b.clock.millis()
	n.ExpiresAt = n.Stamp + m.ExpiresAt - m.Stamp
	return &n
}

// deliverZero queues one QoS 0 message for all targets.
func (b *Broker) deliverZero(ts []target, m *session.Message) {
	enc := encodings{m: m}
	for i := range ts {
		if mg := ts[i].of(m.Publisher); mg.any {
			ts[i].c.offerZero(mg, &enc)
		}
	}
}

func (c *client) offerZero(mg *merged, enc *encodings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.out.closing && !c.out.closed && c.accepts(enc.m, 0, mg) {
		c.pushZero(c.piece(enc.m, mg, enc))
		c.wake()
	}
}
