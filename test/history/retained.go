package history

import (
	"slices"
	"time"
)

// topic is what is known of the retained message of one topic.
type topic struct {
	name   string
	writes []*message // by first sending, clears included
	reads  []read
	came   map[*session][]*Event // what each session received, in order
}

// read is one read of a retained message: a subscription of a new connection.
type read struct {
	conn *conn
	sub  *sub
	done Event
}

// judgeRetained judges the retained messages, topic by topic.
func (c *check) judgeRetained() {
	topics := c.collectRetained()
	if len(topics) == 0 {
		return
	}
	c.collectChanges(topics)
	for _, t := range topics {
		if len(t.reads) > 0 {
			c.judgeReads(t)
		}
		for _, s := range c.sessions {
			c.judgeNewest(t, s)
		}
		c.judgeSameOrder(t)
	}
}

func (c *check) collectRetained() []*topic {
	byName := map[string]*topic{}
	var topics []*topic
	get := func(name string) *topic {
		t := byName[name]
		if t == nil {
			t = &topic{name: name, came: map[*session][]*Event{}}
			byName[name] = t
			topics = append(topics, t)
		}
		return t
	}
	for _, m := range c.order {
		if e := m.first(); e.Retain {
			t := get(e.Topic)
			t.writes = append(t.writes, m)
		}
	}
	for _, e := range c.events {
		cn := c.byKey[connKey{e.History, e.Conn}]
		if e.Kind != ReadDone || cn == nil || cn.session == nil {
			continue
		}
		for _, b := range cn.session.subs {
			if b.filter == e.Topic && b.since < e.At && b.asked > cn.up.At {
				t := get(e.Topic)
				t.reads = append(t.reads, read{cn, b, e})
			}
		}
	}
	return topics
}

// collectChanges finds what each session received of the topics.
func (c *check) collectChanges(topics []*topic) {
	byName := map[string]*topic{}
	for _, t := range topics {
		byName[t.name] = t
	}
	for _, s := range c.sessions {
		for _, e := range s.events {
			if e.Kind != Received {
				continue
			}
			if t := byName[e.Topic]; t != nil {
				t.came[s] = append(t.came[s], e)
			}
		}
	}
}

// judgeReads judges that reads and writes of a topic are linearizable. A clean
// subscription is one of its node only, but its CONNECT went through the log, so
// what the node has is not older than that.
func (c *check) judgeReads(t *topic) {
	var ops []*operation
	for _, m := range t.writes {
		ops = append(ops, c.writes(m)...)
	}
	for _, r := range t.reads {
		if o := r.operation(); o != nil {
			c.report.Stats.RetainedReads++
			ops = append(ops, o)
		}
	}
	c.judgeRegister(RuleRetained, "the retained message of "+t.name, register{initial: "", step: stepValue}, withoutUnseen(ops))
}

// withoutUnseen leaves out the clears of unknown outcome after whose beginning
// nobody read "none": an order with one of them is an order without it, and each
// doubles the orders to be tried.
func withoutUnseen(ops []*operation) []*operation {
	none := time.Duration(-1) // the last time that it may have been read
	for _, o := range ops {
		if o.input == value("") {
			none = max(none, o.done)
		}
	}
	return slices.DeleteFunc(ops, func(o *operation) bool { return o.maybe && o.input == wrote("") && o.call > none })
}

// wrote and value are inputs of a retained message's register; empty is none.
type wrote string
type value string

func stepValue(state, input any) []any {
	switch in := input.(type) {
	case wrote:
		return []any{string(in)}
	case value:
		if state == string(in) {
			return []any{state}
		}
	}
	return nil
}

// writes are the operations of a message that sets or clears a retained one, none
// if it had no effect that shows.
func (c *check) writes(m *message) (ops []*operation) {
	first := m.first()
	was, visible := c.seen[m.id]
	done := forever
	if visible {
		done = was
	}
	v := wrote(m.id)
	if first.Clear {
		v = ""
	}
	o := &operation{call: first.At, done: done, input: v, shows: []Event{first}}
	switch {
	case m.acked != nil:
		o.done = min(done, m.acked.At)
		o.shows = append(o.shows, *m.acked)
	case m.refused != nil && len(m.sent) == 1 || !visible && !first.Clear:
		return nil // nobody could tell
	case !visible:
		o.maybe = true
		if cn := c.byKey[connKey{first.History, first.Conn}]; !m.will && first.QoS > 0 && cn != nil && len(m.sent) == 1 {
			if o.done = c.fence(cn); o.done <= o.call {
				return nil // sent by a connection that was replaced
			}
		}
	}
	if len(m.sent) == 1 || first.QoS == 2 {
		return []*operation{o}
	}
	// Sent again with QoS 1 it may have been written each time.
	ops = append(ops, o)
	if m.acked != nil {
		o.done = m.acked.At
	} else {
		o.done, o.maybe = forever, true
	}
	for _, e := range m.sent[1:] {
		ops = append(ops, &operation{call: e.At, done: forever, maybe: true, input: v, shows: []Event{e}})
	}
	return ops
}

// operation is what a read saw: what came with the RETAIN flag, or the first
// change after it, which may have come in place of what it replaced.
func (r read) operation() *operation {
	o := &operation{call: r.sub.asked, done: r.sub.since, read: true, input: value("")}
	if r.conn.asked.Expiry == 0 {
		o.call = r.conn.asked.At
	}
	var live *Event
	for _, e := range r.conn.events {
		if e.Kind != Received || e.Topic != r.done.Topic || e.At > r.done.At {
			continue
		}
		if e.Retain {
			o.input = value(e.Message)
			o.shows = []Event{r.conn.asked, r.sub.suback, *e}
			return o
		}
		if live == nil {
			live = e
		}
	}
	o.shows = []Event{r.conn.asked, r.sub.suback, r.done}
	if live != nil {
		o.done, o.input = live.At, value(live.Message)
		if live.Clear {
			o.input = value("")
		}
		o.shows[2] = *live
	}
	return o
}

// settled is when a write must have taken effect.
func (c *check) settled(m *message) time.Duration {
	at := forever
	if m.acked != nil {
		at = m.acked.At
	}
	if was, ok := c.seen[m.id]; ok && len(m.sent) == 1 {
		at = min(at, was)
	}
	return at
}

// judgeNewest judges that who is subscribed at the end has the newest value, or
// one that may be it.
func (c *check) judgeNewest(t *topic, s *session) {
	b := c.staying(s, t.name)
	if b == nil || s.unsure || s.drained == forever {
		return
	}
	var end *Event
	for _, e := range t.came[s] {
		if e.At <= s.drained {
			end = e
		}
	}
	// Nothing, or a clear without a name: any clear may be it.
	var may []*message
	switch {
	case end == nil || end.Message == "":
		may = c.clears[t.name]
	case c.messages[end.Message] != nil:
		may = []*message{c.messages[end.Message]}
	default:
		return // forged
	}
	had := time.Duration(-1) // the newest that it may be is not before this
	for _, m := range may {
		had = max(had, c.settled(m))
	}
	for _, m := range t.writes {
		w := m.first()
		if m.acked == nil || m.acked.At > s.drained || w.At <= had || w.QoS == 0 || w.Clear && (end == nil || !c.named(s, m)) {
			continue
		}
		shows := []Event{b.suback, w, *m.acked}
		if end != nil {
			shows = append(shows, *end)
		}
		c.violate(RuleRetained, shows, "%s ends with an older retained message of %s than %q", s.client, t.name, m.id)
		return
	}
}

// staying is the subscription by which a session has a topic at the end, when it
// is connected.
func (c *check) staying(s *session, name string) *sub {
	live := false
	for _, cn := range s.conns {
		live = live || cn.live(s.drained)
	}
	if !live {
		return nil
	}
	for _, b := range s.subs {
		if b.group == "" && b.qos > 0 && b.since < s.drained && b.until >= s.drained && c.matches(b.plain, name) {
			return b
		}
	}
	return nil
}
