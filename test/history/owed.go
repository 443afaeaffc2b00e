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
	away := !present && end != nil && end.Kind != Lost
	if !present && (s.over || c.mayHaveEnded(s)) || s.unsure {
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

// mayHaveEnded tells whether a session without a connection may have expired
// before its drain, or before the end of the run.
func (c *check) mayHaveEnded(s *session) bool {
	end := s.last().end
	if end == nil || s.expiry == Never {
		return s.vague
	}
	until := min(s.drained, c.events[len(c.events)-1].At)
	away := until - end.At + expirySlack
	return s.vague || away+away/logHaste > time.Duration(s.expiry)*time.Second
}

// owing returns the subscription by which a session is owed a message, nil if it
// is not.
func (c *check) owing(s *session, m *message) *sub {
	sent := m.first()
	if m.will || sent.Clear && !c.named(s, m) {
		return nil // wills have a rule of their own
	}
	if sent.QoS > 0 && (m.acked == nil || m.acked.At > s.drained) || sent.QoS == 0 && !c.options.QoS0 {
		return nil
	}
	for _, b := range s.subs {
		if b.group == "" && b.since < sent.At && b.until > s.drained-1 && c.matches(b.plain, sent.Topic) &&
			!(b.noLocal && sent.Client == s.client) && (min(b.qos, sent.QoS) > 0 || c.options.QoS0) {
			return b
		}
	}
	return nil
}

// named tells whether a message without a payload brings its name to a session:
// a property of MQTT 5 does.
func (c *check) named(s *session, m *message) bool {
	for _, cn := range s.conns {
		if cn.asked.Version < 5 {
			return false
		}
	}
	cn := c.byKey[connKey{m.first().History, m.first().Conn}]
	return cn != nil && cn.asked.Version >= 5
}

// ruleFor says which promise the loss of a message breaks.
func (c *check) ruleFor(s *session, m *message, heard bool) string {
	from := m.first().At
	for _, w := range c.windows {
		if w.from > from-time.Second && w.from < s.drained {
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
