package history

import (
	"fmt"
	"time"
)

// judgeOwed judges whether a session received all that was owed to it.
func (c *check) judgeOwed(s *session) {
	present := false
	for _, cn := range s.conns {
		present = present || cn.live(s.drained)
	}
	end := s.last().end
	away := !present && end != nil && end.Kind == Disconnected
	if s.over && !present || s.unsure {
		return
	}
	type fault struct{ rule, publisher string }
	missing := map[fault][]*message{}
	heard := map[*sub]bool{} // something owed has come
	var faults []fault
	for _, m := range c.order {
		b := c.owing(s, m)
		if b == nil {
			continue
		}
		if away {
			c.report.Stats.Unjudged++
			continue
		}
		c.report.Stats.Owed++
		if _, ok := s.got[m.id]; ok {
			heard[b] = true
			continue
		}
		f := fault{c.ruleFor(s, m, heard[b]), m.first().History}
		if missing[f] == nil {
			faults = append(faults, f)
		}
		missing[f] = append(missing[f], m)
	}
	for _, f := range faults {
		c.explainMissing(s, f.rule, missing[f], present)
	}
}

// owing returns the subscription by which a session is owed a message, nil if it
// is not.
func (c *check) owing(s *session, m *message) *sub {
	sent := m.first()
	if sent.QoS > 0 && (m.acked == nil || m.acked.At > s.drained) || sent.QoS == 0 && !c.options.QoS0 {
		return nil
	}
	for _, b := range s.subs {
		if b.group == "" && b.since < sent.At && b.until > s.drained-1 && matches(b.plain, sent.Topic) &&
			!(b.noLocal && sent.Client == s.client) && (min(b.qos, sent.QoS) > 0 || c.options.QoS0) {
			return b
		}
	}
	return nil
}

// ruleFor says which promise the loss of a message breaks.
func (c *check) ruleFor(s *session, m *message, heard bool) string {
	from := m.first().At
	for _, k := range c.kills {
		if k.At > from-time.Second && k.At < s.drained {
			return RuleFailover
		}
	}
	for _, cn := range s.conns {
		if cn.end != nil && cn.end.At > from && cn.end.At < s.drained {
			return RuleFailover
		}
	}
	if !heard {
		return RuleSubscribe
	}
	return RuleDurable
}

func (c *check) explainMissing(s *session, rule string, lost []*message, present bool) {
	m := lost[0]
	b := c.owing(s, m)
	shows := []Event{b.suback, m.first()}
	if m.acked != nil {
		shows = append(shows, *m.acked)
	}
	// What the same publisher's next message that did arrive looked like.
	for _, o := range c.order {
		if e, ok := s.got[o.id]; ok && o.first().History == m.first().History && o.first().Seq > m.first().Seq {
			shows = append(shows, e)
			break
		}
	}
	for _, cn := range s.conns {
		if cn.end != nil && cn.end.At > m.first().At && cn.end.At < s.drained {
			shows = append(shows, *cn.end)
		}
	}
	what := fmt.Sprintf("%s did not receive %q of %s", s.client, m.id, m.first().History)
	if n := len(lost); n > 1 {
		what = fmt.Sprintf("%s did not receive %d messages of %s, %q to %q", s.client, n, m.first().History, m.id, lost[n-1].id)
	}
	if !present {
		what += " and its session never came back"
	}
	c.violate(rule, shows, "%s", what)
}

// shared is a shared subscription's group.
type shared struct {
	filter   string
	sessions []*session
}

// judgeShared judges the groups: each message that was acknowledged after every
// member had subscribed comes to one of them, and to a second one only after the
// first one's connection has ended.
func (c *check) judgeShared() {
	var filters []string
	for _, s := range c.sessions {
		for _, b := range s.subs {
			if b.group == "" || b.since == forever {
				continue
			}
			g := c.groups[b.filter]
			if g == nil {
				g = &shared{filter: b.filter}
				c.groups[b.filter] = g
				filters = append(filters, b.filter)
			}
			g.sessions = append(g.sessions, s)
		}
	}
	for _, f := range filters {
		c.judgeGroup(c.groups[f])
	}
}

func (c *check) judgeGroup(g *shared) {
	_, plain := group(g.filter)
	for _, m := range c.order {
		sent := m.first()
		if !matches(plain, sent.Topic) {
			continue
		}
		got := g.receivers(m)
		if len(got) == 0 && c.groupOwed(g, m) {
			c.report.Stats.Owed++
			c.violate(RuleShared, append([]Event{sent}, *m.acked), "no member of %s received %q", g.filter, m.id)
		} else if len(got) > 0 && m.acked != nil {
			c.report.Stats.Owed++
		}
		for i := 1; i < len(got); i++ {
			if first := got[0]; len(m.sent) == 1 && !c.ended(first, got[i].At) {
				c.violate(RuleShared, []Event{sent, first, got[i]}, "two members of %s received %q", g.filter, m.id)
				break
			}
		}
	}
}

// receivers are the first deliveries of a message to the members that get it by
// the group alone, in order of time.
func (g *shared) receivers(m *message) (got []Event) {
	for _, s := range g.sessions {
		if s.copies(m) > 1 {
			continue
		}
		if e, ok := s.got[m.id]; ok {
			got = append(got, e)
			for i := len(got) - 1; i > 0 && got[i].At < got[i-1].At; i-- {
				got[i], got[i-1] = got[i-1], got[i]
			}
		}
	}
	return got
}

// groupOwed tells whether some member must have received a message: one was
// subscribed before it was sent and is connected at the end.
func (c *check) groupOwed(g *shared, m *message) bool {
	sent := m.first()
	if sent.QoS == 0 || m.acked == nil {
		return false
	}
	for _, s := range g.sessions {
		for _, b := range s.subs {
			if b.filter == g.filter && b.since < sent.At && b.until == forever && b.qos > 0 && s.copies(m) == 1 &&
				m.acked.At < s.drained && s.last().live(s.drained) {
				return true
			}
		}
	}
	return false
}

// ended tells whether the connection of a delivery had ended by a time.
func (c *check) ended(e Event, by time.Duration) bool {
	for _, cn := range c.conns {
		if cn.asked.History == e.History && cn.asked.Conn == e.Conn {
			return cn.end != nil && cn.end.At <= by
		}
	}
	return false
}
