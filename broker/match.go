package broker

import (
	"slices"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// subscription is one of a connected client, in the local trie.
type subscription struct {
	session.Subscription
	c      *client
	entry  *entry
	at     uint32 // in entry.subs
	logged bool
}

// entry holds the subscriptions of one filter, whose text each of them has, and how
// many taps it has; under Broker.subMu.
type entry struct {
	subs []*subscription
	taps int
}

// sole is an entry and the subscription that made it, which in most filters is the only
// one, as one piece of memory.
type sole struct {
	entry
	subscription
	list [1]*subscription
}

// merged is what several subscriptions of one client come to for one message
// [MQTT-3.3.4-2].
type merged struct {
	any    bool
	denied bool // the client may not receive the topic
	// log and live are one more than the highest QoS of the subscriptions that
	// the log keeps a queue for, and of the others; 0: there is none.
	log, live byte
	rap       bool
	shared    bool // one of them is a shared subscription
	// list are the subscription identifiers, which few have; never changed in place.
	list *[]uint32
}

func (m *merged) ids() []uint32 {
	if m.list == nil {
		return nil
	}
	return *m.list
}

func (m *merged) add(s session.Subscription, logged bool) {
	m.any = true
	if logged {
		m.log = max(m.log, s.QoS+1)
	} else {
		m.live = max(m.live, s.QoS+1)
	}
	m.rap = m.rap || s.RetainAsPublished
	m.shared = m.shared || isShared(s.Filter)
	if s.ID != 0 {
		l := append(slices.Clip(m.ids()), s.ID)
		m.list = &l
	}
}

// qos returns the highest QoS granted.
func (m *merged) qos() byte { return max(m.log, m.live) - 1 }

// target is a connected client that subscribes to a topic.
type target struct {
	c   *client
	all merged
	// own is all without the subscriptions that have No Local; nil if equal.
	own *merged
}

// of returns what applies to a message of publisher.
func (t *target) of(publisher string) *merged {
	if t.own != nil && publisher == t.c.id {
		return t.own
	}
	return &t.all
}

// matched is a topic with what a Broker remembers of it, matches are those of late.
type (
	matched = routing.Topic[topicMatch]
	matches = routing.Topics[topicMatch]
)

// topicMatch is the result of matching one topic: with the text of a topic that is not
// long it fills two lines of a processor's cache.
type topicMatch struct {
	version uint64 // as of Broker.matchVersion
	// may and rights remember MayPublish for a publisher.
	rights *rightsAt
	may    bool
	valid  bool // the topic is
	deep   bool // it has more levels than the publisher may use
	found  bool // one is used
	one    [1]target
	more   *[]target // instead of one
	wanted uint64    // peers, as Routes.Wants says
}

func (m *topicMatch) targets() []target {
	switch {
	case m.more != nil:
		return *m.more
	case m.found:
		return m.one[:]
	}
	return nil
}

// matchVersion changes whenever a match may be out of date: with the subscriptions
// here, with those on other nodes, with the policy. None of the three versions ever
// falls, so their sum tells of all.
func (b *Broker) matchVersion() uint64 {
	return b.subVersion.Load() + b.deps.Routes.Version() + b.deps.Auth.Version()
}

// match brings t up to date.
func (b *Broker) match(t *matched) []target { return b.matchTopic(&t.Value, t.Name) }

// matchTopic brings m, the match of a topic, up to date.
func (b *Broker) matchTopic(m *topicMatch, topic string) []target {
	v := b.matchVersion()
	if m.version == v {
		return m.targets()
	}
	b.subMu.Lock()
	v = b.matchVersion()
	var found [8]*entry
	entries := b.trie.Load().Match(found[:0], topic)
	n := 0
	for _, e := range entries {
		n += len(e.subs)
	}
	m.version, m.found, m.one, m.more = v, n == 1, [1]target{}, nil
	switch {
	case n > 1:
		more := b.collect(make([]target, 0, n), entries)
		m.more = &more
	case n == 1:
		b.collect(m.one[:0], entries)
	}
	b.subMu.Unlock()
	m.wanted = b.deps.Routes.Wants(topic)
	ts := m.targets()
	for i := range ts {
		to := &ts[i]
		to.all.denied = !to.c.may().MayReceive(topic)
		if to.own != nil {
			to.own.denied = to.all.denied
		}
	}
	return ts
}

// collect merges the subscriptions of entries by client.
func (b *Broker) collect(targets []target, entries []*entry) []target {
	var at map[*client]int
	if len(entries) > 1 {
		at = make(map[*client]int, cap(targets))
	}
	for _, e := range entries {
		for _, s := range e.subs {
			i, ok := at[s.c]
			if !ok {
				i = len(targets)
				targets = append(targets, target{c: s.c})
				if at != nil {
					at[s.c] = i
				}
			}
			t := &targets[i]
			switch {
			case s.NoLocal && t.own == nil:
				own := t.all
				t.own = &own
			case !s.NoLocal && t.own != nil:
				t.own.add(s.Subscription, s.logged)
			}
			t.all.add(s.Subscription, s.logged)
		}
	}
	return targets
}

// subscription returns that of c to filter, nil if there is none. It looks through
// those of the filter or those of c, whichever are fewer: a map for each client would
// take as much memory as the subscriptions. The caller holds subMu.
func (c *client) subscription(in interface {
	Get(filter string) (*entry, bool)
}, filter string,
) *subscription {
	if !isShared(filter) {
		e, ok := in.Get(filter)
		if !ok {
			return nil
		}
		if len(e.subs) < len(c.subs) {
			for _, s := range e.subs {
				if s.c == c {
					return s
				}
			}
			return nil
		}
	}
	for _, s := range c.subs {
		if s.Filter == filter {
			return s
		}
	}
	return nil
}

// place adds or replaces local subscriptions of c, in one edit of the trie. It is
// called between two entries of the log or while one is applied. existed tells of
// each whether there was one.
func (b *Broker) place(c *client, subs []session.Subscription, logged bool) (existed []bool) {
	existed = make([]bool, len(subs))
	b.subMu.Lock()
	defer b.subMu.Unlock()
	if c.detached {
		return existed
	}
	defer b.subVersion.Add(1)
	b.trie.Update(func(tx *routing.Tx[*entry]) {
		for i := range subs {
			existed[i] = b.put(tx, c, subs[i], logged)
		}
	})
	return existed
}

// put is place for one. The caller holds subMu.
func (b *Broker) put(tx *routing.Tx[*entry], c *client, s session.Subscription, logged bool) (existed bool) {
	if old := c.subscription(tx, s.Filter); old != nil {
		old.Subscription, old.logged = s, logged
		return true
	}
	b.n.subscriptions.Add(1)
	if isShared(s.Filter) {
		c.subs = append(c.subs, &subscription{Subscription: s, c: c, logged: logged})
		b.n.sharedSubscriptions.Add(1)
		return false
	}
	e, ok := tx.Get(s.Filter)
	var n *subscription
	if ok {
		n = new(subscription)
	} else {
		o := new(sole)
		e, n = &o.entry, &o.subscription
		e.subs = o.list[:0]
		tx.SetKept(s.Filter, e) // as s does
		b.deps.Routes.Add(s.Filter)
	}
	*n = subscription{Subscription: s, c: c, entry: e, at: uint32(len(e.subs)), logged: logged}
	c.subs = append(c.subs, n)
	e.subs = append(e.subs, n)
	return false
}

// displace removes a local subscription of c.
func (b *Broker) displace(c *client, filter string) (existed bool) {
	b.subMu.Lock()
	defer b.subMu.Unlock()
	s := c.subscription(b.trie.Load(), filter)
	if s == nil {
		return false
	}
	b.trie.Update(func(tx *routing.Tx[*entry]) { b.cut(tx, s) })
	i, last := slices.Index(c.subs, s), len(c.subs)-1
	c.subs[i], c.subs[last] = c.subs[last], nil
	c.subs = c.subs[:last]
	b.subVersion.Add(1)
	return true
}

// cut takes s out of its entry. The caller holds subMu.
func (b *Broker) cut(tx *routing.Tx[*entry], s *subscription) {
	b.n.subscriptions.Add(-1)
	e := s.entry
	if e == nil {
		b.n.sharedSubscriptions.Add(-1)
		return
	}
	last := len(e.subs) - 1
	e.subs[s.at] = e.subs[last]
	e.subs[s.at].at = s.at
	e.subs[last] = nil
	e.subs = e.subs[:last]
	if last == 0 && e.taps == 0 {
		tx.Delete(s.Filter)
		b.deps.Routes.Remove(s.Filter)
	}
}

// detach takes c out of all tables that deliveries look at.
func (b *Broker) detach(c *client) {
	b.mu.Lock()
	if b.clients[c.id] == c {
		delete(b.clients, c.id)
	}
	b.mu.Unlock()
	b.subMu.Lock()
	defer b.subMu.Unlock()
	if c.detached {
		return
	}
	c.detached = true
	if len(c.subs) == 0 {
		return
	}
	b.trie.Update(func(tx *routing.Tx[*entry]) {
		for _, s := range c.subs {
			b.cut(tx, s)
		}
	})
	c.subs = nil
	b.subVersion.Add(1)
}
