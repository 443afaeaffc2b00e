package fsm

import (
	"cmp"
	"slices"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

func (a *applier) publishItem(c *logpb.Publish, topic *routing.Topic[matching], r *Result) {
	s := a.held(c.Client, c.Epoch, r)
	if s == nil {
		return
	}
	if c.Qos == 2 && planted != skipReceived {
		id := uint16(c.PacketId)
		if _, dup := s.received[id]; dup {
			r.Duplicate = true
			return
		}
		if s.received == nil {
			s.received = map[uint16]struct{}{}
		}
		s.received[id] = struct{}{}
		a.set(receivedKey(c.Client, id), nil)
	}
	m := &session.Message{
		Topic: c.Topic, Payload: c.Payload, Properties: c.Properties,
		QoS: byte(c.Qos), Retain: c.Retain, Publisher: c.Client, Stamp: a.stamp,
	}
	if c.Expiry != nil {
		m.ExpiresAt = a.stamp + int64(*c.Expiry)*1000
	}
	if topic == nil {
		topic = a.topics.Get(m.Topic)
	}
	r.Matched = a.publishTo(topic, r.Pos, m)
}

// publish is publishTo the topic of m.
func (a *applier) publish(p session.Pos, m *session.Message) bool {
	return a.publishTo(a.topics.Get(m.Topic), p, m)
}

// publishTo matches m against the subscriptions of this moment, stores what
// sessions are owed and tells the node. It reports whether anything in the log
// matched.
func (a *applier) publishTo(topic *routing.Topic[matching], p session.Pos, m *session.Message) bool {
	if m.Retain {
		a.retain(p, m)
	}
	plain, shared := a.match(topic)
	owed := a.owed[:0]
	zero := false
	for _, f := range plain {
		if m.QoS > 0 && f.queueing > 0 || a.limits.QueueQoS0 && f.away.Load() > 0 {
			owed = append(owed, f)
			zero = zero || m.QoS == 0 || f.zeros > 0
		}
	}
	var picks []Pick
	for _, groups := range shared {
		for _, g := range groups {
			to, ok := choose(g.list(), uint64(p), nil)
			if !ok {
				continue
			}
			if planted == localMember {
				to = local(g.list(), a.node, to)
			}
			pick := Pick{Client: to.sess.rec.Client, Node: to.sess.rec.Owner, Subscription: to.sub.Subscription}
			picks = append(picks, pick)
			if m.QoS > 0 && to.sub.QoS > 0 {
				owed = append(owed, to.sub.filter)
			}
		}
	}
	a.owed = owed
	if len(owed) > 0 {
		a.post(p, m, owed)
	}
	a.emit(Event{Kind: EventMessage, Pos: p, Message: m, Picks: picks, Zero: zero, Aside: &topic.Value.aside})
	return len(plain)+len(picks) > 0
}

// posting is a key of the store.
type posting struct {
	filter uint64
	pos    session.Pos
}

// unreadPosting is a shared posting of the current batch.
type unreadPosting struct {
	pos session.Pos
	msg *logpb.Message
}

// post stores a message, once, and a posting for each filter that is owed it.
// It keeps neither owed nor its order.
func (a *applier) post(p session.Pos, m *session.Message, owed []*filter) {
	// A trie gives its matches in no order that two nodes would agree on.
	slices.SortFunc(owed, func(a, b *filter) int { return cmp.Compare(a.id, b.id) })
	size, alone := uint64(m.Size()), uint64(0)
	if len(owed) == 1 {
		alone = size
	}
	for _, f := range owed {
		n, sum := f.posted.Load()+1, f.bytes.Load()+size
		a.posting(f.id, p, n, sum, alone)
		f.posted.Store(n)
		f.bytes.Store(sum)
		f.last.Store(uint64(p))
	}
	a.message(p, sizeRecord(m, owed), func(dst []byte) []byte { return appendRecord(dst, m, owed) })
	a.state.stored.post(size, len(owed))
	a.posted = append(a.posted, newFresh(p, size, owed))
	a.noteUnread(p, m, owed)
}

// noteUnread remembers a message that a shared subscription is owed until reads
// of the store see it.
func (a *applier) noteUnread(p session.Pos, m *session.Message, owed []*filter) {
	if !slices.ContainsFunc(owed, func(f *filter) bool { return f.group != nil }) {
		return
	}
	rec := messageRecord(m)
	for _, f := range owed {
		rec.Filters = append(rec.Filters, f.id)
	}
	if a.unread == nil {
		a.unread = map[*filter][]unreadPosting{}
	}
	for _, f := range owed {
		if f.group != nil {
			a.unread[f] = append(a.unread[f], unreadPosting{p, rec})
		}
	}
}

// retain keeps the newest message of a topic; an empty one clears it
// [MQTT-3.3.1-6].
func (a *applier) retain(p session.Pos, m *session.Message) {
	k := retainedKey(m.Topic)
	a.reindex(k, m)
	if len(m.Payload) == 0 {
		a.del(k)
		return
	}
	a.set(k, appendRecord(uint64Value(uint64(p)), m, nil))
}

// choose takes a member of a shared subscription: one with a connection if
// there is one, else one that a message can wait for. The choice depends on the
// state and the seed alone, so that all nodes make the same; but, if set, is not
// chosen.
func choose(members []groupMember, seed uint64, but *sess) (groupMember, bool) {
	connected, waiting := 0, 0
	for _, m := range members {
		switch {
		case m.sess == but:
		case m.sess.owner.Load() != nil:
			connected++
		case m.sub.QoS > 0:
			waiting++
		}
	}
	n := connected
	if n == 0 {
		n = waiting
	}
	if n == 0 {
		return groupMember{}, false
	}
	i := int(mix(seed) % uint64(n))
	for _, m := range members {
		online := m.sess.owner.Load() != nil
		if m.sess == but || (connected > 0 && !online) || (connected == 0 && m.sub.QoS == 0) {
			continue
		}
		if i == 0 {
			return m, true
		}
		i--
	}
	return groupMember{}, false
}

// mix spreads the bits of x (the finalizer of splitmix64), so that positions,
// which grow regularly, choose evenly.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Shared returns the members that shared subscriptions choose now for a QoS 0
// message of topic. It is safe for concurrent use and does not block.
func (s *Store) Shared(topic string) []Pick {
	t := s.table.Load()
	trie := t.shared.Load()
	if trie.Len() == 0 {
		return nil
	}
	var picks []Pick
	for _, groups := range trie.Match(nil, topic) {
		for _, g := range groups {
			to, ok := choose(g.list(), s.turn.Add(1), nil)
			if !ok {
				continue
			}
			// One that is not connected does not get a QoS 0 message, but was
			// chosen only where nobody is.
			if o := to.sess.owner.Load(); o != nil {
				picks = append(picks, Pick{Client: to.sess.client, Node: o.node, Subscription: to.sub.Subscription})
			}
		}
	}
	return picks
}
