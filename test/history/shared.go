package history

import (
	"cmp"
	"slices"
	"time"
)

// shared is a shared subscription's group.
type shared struct {
	filter  string
	members []member
}

// member is a session's subscription in a group.
type member struct {
	session *session
	sub     *sub
}

// judgeShared judges the groups: each message that was acknowledged after a
// member had subscribed comes to one of them, and to a second one only after the
// first one went away and had not acknowledged it; one that was delivered with
// QoS 2 never does [MQTT-4.8.2-4], [MQTT-4.8.2-5].
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
			g.members = append(g.members, member{s, b})
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
		if m.will || sent.Clear || !c.matches(plain, sent.Topic) {
			continue
		}
		got := c.receivers(g, m)
		switch owed, unsure := c.groupOwed(g, m); {
		case len(got) > 0 && m.acked != nil:
			c.report.Stats.Owed++
		case len(got) == 0 && owed && unsure:
			c.report.Stats.Unjudged++
		case len(got) == 0 && owed:
			c.report.Stats.Owed++
			c.violate(RuleShared, []Event{sent, *m.acked}, "no member of %s received %q", g.filter, m.id)
		}
		c.judgeSecond(g, m, got)
	}
}

// receivers are the first deliveries of a message to the members that get it by
// the group alone, in the order in which they were sent.
func (c *check) receivers(g *shared, m *message) (got []Event) {
	var last *session
	for _, b := range g.members {
		if b.session == last || c.copies(b.session, m) > 1 {
			continue
		}
		last = b.session // its subscriptions follow each other
		if e, ok := b.session.got[m.id]; ok {
			got = append(got, e)
		}
	}
	slices.SortStableFunc(got, func(a, b Event) int { return cmp.Compare(c.sentBy(a), c.sentBy(b)) })
	return got
}

// sentBy is when a delivery was on its way at the latest: when it came, or when the
// process died at the other end of its connection. What that had sent before may have
// waited in a network that stood still.
func (c *check) sentBy(e Event) time.Duration {
	cn := c.byKey[connKey{e.History, e.Conn}]
	for _, w := range c.windows {
		if w.killed && w.node != "" && w.node == cn.node() && cn.up.At <= w.from && w.from < e.At {
			return w.from
		}
	}
	return e.At
}

// judgeSecond judges that each member but the first got a message because another
// one went away, or because the publisher sent it again.
func (c *check) judgeSecond(g *shared, m *message, got []Event) {
	spare := len(m.sent) - 1 // a message sent twice at QoS 1 may be two
	for i := 1; i < len(got); i++ {
		e := got[i]
		before := got[i-1]
		shows := []Event{m.first(), before, e}
		switch why := c.gone(g, before, c.sentBy(e)); {
		case before.QoS == 2:
			c.violate(RuleShared, shows, "a second member of %s received %q, which %s had received with QoS 2", g.filter, m.id, before.Client)
		case why == "":
		case spare > 0 && m.first().QoS == 1:
			spare--
			continue
		default:
			c.violate(RuleShared, shows, "two members of %s received %q, and %s", g.filter, m.id, why)
		}
	}
}

// gone tells why a member that received a message need not have lost it to
// another one; empty if it went away, or may have, without acknowledging it.
func (c *check) gone(g *shared, first Event, by time.Duration) (why string) {
	cn := c.byKey[connKey{first.History, first.Conn}]
	if first.QoS == 0 {
		return "QoS 0 has one receiver"
	}
	if _, is := c.disturbed(cn.node(), c.sentBy(first)-time.Second, by); is {
		return ""
	}
	left := cn.endAt()
	for _, b := range g.members {
		if b.session == cn.session {
			left = min(left, b.sub.until)
		}
	}
	if cn.end != nil && cn.end.Kind == Lost && left == cn.end.At {
		// The client hears of an end that the node makes only afterwards.
		left -= expirySlack
	}
	if left > by {
		return "the first was still there"
	}
	acked := cn.acked(first)
	if acked != nil && c.writtenDown(*acked, left) {
		return "the first had acknowledged it long before it went"
	}
	return ""
}

// acked is the client's acknowledgement of a message on the same connection.
func (c *conn) acked(received Event) *Event {
	for _, e := range c.events {
		if e.Kind == ReceiveAcked && e.Message == received.Message {
			return e
		}
	}
	return nil
}

// groupOwed tells whether a member must have received a message: one was
// subscribed before it was sent and is connected at the end. It is unsure if the
// message may wait for a member that is away at the end, or if one ended that may
// have had it with QoS 2.
func (c *check) groupOwed(g *shared, m *message) (owed, unsure bool) {
	sent := m.first()
	if sent.QoS == 0 || m.acked == nil {
		return false, false
	}
	for _, b := range g.members {
		s := b.session
		switch {
		case b.sub.qos == 0:
			unsure = true // it may have been sent to this one, without a promise
		case b.sub.since < sent.At && b.sub.until == forever && c.copies(s, m) == 1 && m.acked.At < s.drained && s.last().live(s.drained):
			owed = true
		case b.sub.until < sent.At:
		case b.sub.until != forever && min(b.sub.qos, sent.QoS) < 2:
		case s.over && min(b.sub.qos, sent.QoS) < 2:
		case s.over && s.last().endAt() < sent.At:
		case s.last().live(s.drained) && s.drained > m.acked.At:
		default:
			unsure = true
		}
	}
	return owed, unsure
}
