package history

import (
	"cmp"
	"slices"
	"time"
)

// topic is what is known of the retained message of one topic.
type topic struct {
	name   string
	writes []*message // by first sending, clears included
	reads  []read
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
	seen := c.firstSeen()
	for _, t := range topics {
		if len(t.reads) > 0 {
			c.judgeReads(t, seen)
		}
		for _, s := range c.sessions {
			c.judgeNewest(t, s, seen)
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
			t = &topic{name: name}
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

// firstSeen is when each message was first received by whomever: it was committed
// before.
func (c *check) firstSeen() map[string]time.Duration {
	seen := map[string]time.Duration{}
	for _, s := range c.sessions {
		for _, e := range s.events {
			if e.Kind != Received || e.Message == "" {
				continue
			}
			if at, ok := seen[e.Message]; !ok || e.At < at {
				seen[e.Message] = e.At
			}
		}
	}
	return seen
}

// judgeReads judges that reads and writes of a topic are linearizable. A clean
// subscription is one of its node only, but its CONNECT went through the log, so
// what the node has is not older than that.
func (c *check) judgeReads(t *topic, seen map[string]time.Duration) {
	var ops []*operation
	for _, m := range t.writes {
		ops = append(ops, c.writes(m, seen)...)
	}
	for _, r := range t.reads {
		if o := r.operation(); o != nil {
			c.report.Stats.RetainedReads++
			ops = append(ops, o)
		}
	}
	c.judgeRegister(RuleRetained, "the retained message of "+t.name, register{initial: "", step: stepValue}, ops)
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
func (c *check) writes(m *message, seen map[string]time.Duration) (ops []*operation) {
	first := m.first()
	was, visible := seen[m.id]
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
	for i := range r.conn.events {
		e := &r.conn.events[i]
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
func settled(m *message, seen map[string]time.Duration) time.Duration {
	at := forever
	if m.acked != nil {
		at = m.acked.At
	}
	if was, ok := seen[m.id]; ok && len(m.sent) == 1 {
		at = min(at, was)
	}
	return at
}

// judgeNewest judges that who is subscribed at the end has the newest value, or
// one that may be it.
func (c *check) judgeNewest(t *topic, s *session, seen map[string]time.Duration) {
	b := c.staying(s, t.name)
	if b == nil || s.unsure || s.drained == forever {
		return
	}
	var end *Event
	for i := range s.events {
		if e := &s.events[i]; e.Kind == Received && e.Topic == t.name && e.At <= s.drained {
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
		had = max(had, settled(m, seen))
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

// judgeSameOrder judges that all who see the values of a topic change see them in
// one order.
func (c *check) judgeSameOrder(t *topic) {
	written := map[string]bool{}
	for _, m := range t.writes {
		// What was sent twice may have been written twice.
		if len(m.sent) == 1 || m.first().QoS == 2 {
			written[m.id] = true
		}
	}
	after := map[string][]edge{} // by message
	for _, s := range c.sessions {
		if s.shares {
			continue
		}
		var last *Event
		seen := map[string]bool{}
		for i := range s.events {
			e := &s.events[i]
			if e.Kind != Received || e.Topic != t.name || e.QoS == 0 || !written[e.Message] || seen[e.Message] {
				continue
			}
			seen[e.Message] = true
			if last != nil {
				after[last.Message] = append(after[last.Message], edge{*last, *e})
			}
			last = e
		}
	}
	if shows := circle(t.writes, after); shows != nil {
		c.violate(RuleRetained, shows, "the values of %s came in different orders", t.name)
	}
}

// edge is one value and the next one that somebody saw.
type edge struct{ from, to Event }

// circle finds values that came after each other, and returns the events that
// show it.
func circle(writes []*message, after map[string][]edge) []Event {
	before := map[string]int{} // how many edges lead to it
	for _, m := range writes {
		for _, e := range after[m.id] {
			before[e.to.Message]++
		}
	}
	var free []string
	for _, m := range writes {
		if before[m.id] == 0 {
			free = append(free, m.id)
		}
	}
	for len(free) > 0 {
		id := free[len(free)-1]
		free = free[:len(free)-1]
		for _, e := range after[id] {
			if before[e.to.Message]--; before[e.to.Message] == 0 {
				free = append(free, e.to.Message)
			}
		}
	}
	// Whoever still has somebody before it is in a circle, or behind one: go back.
	var at string
	for _, m := range writes {
		if before[m.id] > 0 {
			at = m.id
			break
		}
	}
	if at == "" {
		return nil
	}
	into := map[string]edge{} // from one that is in or behind a circle, too
	for _, m := range writes {
		for _, e := range after[m.id] {
			if before[m.id] > 0 {
				into[e.to.Message] = e
			}
		}
	}
	seen := map[string]bool{}
	for !seen[at] {
		seen[at] = true
		at = into[at].from.Message
	}
	var shows []Event
	for first := at; ; {
		e := into[at]
		shows = append(shows, e.from, e.to)
		if at = e.from.Message; at == first {
			break
		}
	}
	slices.SortStableFunc(shows, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return shows
}
