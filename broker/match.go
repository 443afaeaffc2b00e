package broker

import (
	"cmp"

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

// merged is what several subscriptions of one client come to for one message
// [MQTT-3.3.4-2].
type merged struct {
	any bool
	// log and live are one more than the highest QoS of the subscriptions that
	// the log keeps a queue for, and of the others; 0: there is none.
	log, live byte
	rap       bool
	ids       []uint32
}

func (m *merged) add(s session.Subscription, logged bool) {
	m.any = true
	if logged {
		m.log = max(m.log, s.QoS+1)
	} else {
		m.live = max(m.live, s.QoS+1)
	}
	m.rap = m.rap || s.RetainAsPublished
	if s.ID != 0 {
		// Clipped, so that a copy of m may grow without harm to it.
		m.ids = append(m.ids[:len(m.ids):len(m.ids)], s.ID)
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

// topicMatch is the result of matching one topic.
type topicMatch struct {
	topic   string
	version uint64 // Broker.subVersion
	targets []target
	valid   bool // the topic is
	// may and rights remember MayPublish for a publisher.
	may    bool
	rights *rightsAt
}

// matcher remembers matches of topics. It is not safe for concurrent use.
type matcher struct {
	last *topicMatch
	// young holds what was used of late, old what was before young was begun anew: a
	// topic is forgotten when it was not used while young filled up.
	young, old map[string]*topicMatch
	limit      int // of young and of old; 0: clientTopics
}

// Bounds of a matcher: of one client's topics, and of those of all that the log or
// the mesh brings, about 16 MB.
const (
	clientTopics = 1 << 10
	sharedTopics = 64 << 10
)

// lookup returns the entry for topic, which may be out of date.
func (k *matcher) lookup(topic []byte) *topicMatch {
	if k.last != nil && k.last.topic == string(topic) {
		return k.last
	}
	if t := k.young[string(topic)]; t != nil {
		k.last = t
		return t
	}
	if t := k.old[string(topic)]; t != nil {
		return k.keep(t)
	}
	return k.keep(&topicMatch{topic: string(topic)})
}

func (k *matcher) lookupString(topic string) *topicMatch {
	if k.last != nil && k.last.topic == topic {
		return k.last
	}
	if t := k.young[topic]; t != nil {
		k.last = t
		return t
	}
	if t := k.old[topic]; t != nil {
		return k.keep(t)
	}
	return k.keep(&topicMatch{topic: topic})
}

// keep puts t among the young. Most clients have one topic and need no map.
func (k *matcher) keep(t *topicMatch) *topicMatch {
	switch {
	case k.last == nil:
		k.last = t
		return t
	case k.young == nil:
		k.young = map[string]*topicMatch{k.last.topic: k.last}
	case len(k.young) >= cmp.Or(k.limit, clientTopics):
		k.young, k.old = map[string]*topicMatch{}, k.young
	}
	k.young[t.topic] = t
	k.last = t
	return t
}

// match brings t up to date.
func (b *Broker) match(t *topicMatch) []target {
	v := b.subVersion.Load()
	if t.version == v {
		return t.targets
	}
	b.subMu.Lock()
	v = b.subVersion.Load()
	var found [8]*entry
	entries := b.trie.Load().Match(found[:0], t.topic)
	n := 0
	for _, e := range entries {
		n += len(e.subs)
	}
	var targets []target
	if n > 0 {
		targets = make([]target, 0, n)
		targets = b.collect(targets, entries)
	}
	b.subMu.Unlock()
	t.version, t.targets = v, targets
	return targets
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
	if c.subs == nil {
		c.subs = make(map[string]*subscription, len(subs))
	}
	b.trie.Update(func(tx *routing.Tx[*entry]) {
		for i := range subs {
			existed[i] = b.put(tx, c, subs[i], logged)
		}
	})
	return existed
}

// put is place for one. The caller holds subMu.
func (b *Broker) put(tx *routing.Tx[*entry], c *client, s session.Subscription, logged bool) (existed bool) {
	if old := c.subs[s.Filter]; old != nil {
		old.Subscription, old.logged = s, logged
		return true
	}
	n := &subscription{Subscription: s, c: c, logged: logged}
	c.subs[s.Filter] = n
	b.n.subscriptions.Add(1)
	if isShared(s.Filter) {
		b.n.sharedSubscriptions.Add(1)
		return false
	}
	e, ok := tx.Get(s.Filter)
	if !ok {
		e = &entry{}
		tx.Set(s.Filter, e)
		b.deps.Routes.Add(s.Filter)
	}
	n.entry, n.at = e, uint32(len(e.subs))
	e.subs = append(e.subs, n)
	return false
}

// displace removes a local subscription of c.
func (b *Broker) displace(c *client, filter string) (existed bool) {
	b.subMu.Lock()
	defer b.subMu.Unlock()
	s := c.subs[filter]
	if s == nil {
		return false
	}
	b.trie.Update(func(tx *routing.Tx[*entry]) { b.cut(tx, s) })
	delete(c.subs, filter)
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
