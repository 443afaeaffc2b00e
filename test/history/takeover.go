package history

import (
	"slices"
	"time"
)

// judgeTakeovers judges that a client id has one connection at a time: after a
// second one was acknowledged the first one ends soon, with 0x8E in MQTT 5, gets
// nothing acknowledged that it sends and receives nothing that was sent since.
func (c *check) judgeTakeovers() {
	for _, cn := range c.conns {
		for _, next := range c.byClient[cn.asked.Client] {
			if cn.up == nil || next.up == nil || next.asked.At <= cn.up.At {
				continue
			}
			if cn.end == nil || cn.end.At > next.asked.At {
				c.judgeTakeover(cn, next)
			}
			break // the first that came after it; later ones meet that one
		}
		c.judgeKick(cn, c.byClient[cn.asked.Client])
	}
}

// judgeTakeover judges a connection that was still there when next was asked for.
func (c *check) judgeTakeover(old, next *conn) {
	shows := []Event{*old.up, next.asked, *next.up}
	limit := next.up.At + c.options.TakeoverGrace
	if c.overlap(next.asked.At-time.Second, limit) > 0 {
		limit = next.up.At + c.options.FaultTakeover
	}
	// A node that is cut off or hangs tells nobody, and is told of nothing.
	_, deaf := c.disturbed(old.node(), next.asked.At-time.Second, limit)
	_, drained := c.drained(old)
	switch {
	case deaf:
	case old.end == nil && c.events[len(c.events)-1].At < limit:
		// The run ended too soon to tell.
	case old.end == nil:
		c.violate(RuleTakeover, shows, "%s has two connections", old.asked.Client)
	case old.end.At > limit:
		c.violate(RuleTakeover, append(shows, *old.end), "the first connection of %s lived on for %v", old.asked.Client, old.end.At-next.up.At)
	case old.end.Kind == Lost && old.asked.Version == 5 && old.end.Reason != TakenOver && !drained && !c.sentAway(old) && !c.reset(old):
		c.violate(RuleTakeover, append(shows, *old.end), "the first connection of %s ended without 0x8E", old.asked.Client)
	}
	c.judgeFenced(old, next)
}

// sentAway tells whether a node may have sent the client of a connection away
// because it had no lease: a fault of other nodes can be the reason.
func (c *check) sentAway(cn *conn) bool {
	switch cn.end.Reason {
	case shuttingDown, useAnother, moved:
		return c.overlap(max(cn.up.At, cn.end.At-time.Second), cn.end.At) > 0
	}
	return false
}

// reset tells whether a connection was broken with all others of its node, which its
// client may have seen later.
func (c *check) reset(cn *conn) bool {
	return cn.end.Reason == 0 && slices.ContainsFunc(c.resets[cn.node()], func(at time.Duration) bool {
		return cn.asked.At <= at && at <= cn.end.At
	})
}

// judgeFenced judges what a connection saw after another one had replaced it.
func (c *check) judgeFenced(old, next *conn) {
	for _, e := range old.events {
		if e.At < next.up.At {
			continue
		}
		m := c.messages[e.Message]
		if m == nil || m.will || m.first().At < next.up.At {
			continue
		}
		switch {
		case e.Kind == PublishAcked && e.Reason < 0x80 && m.first().History == e.History:
			c.violate(RuleTakeover, []Event{*next.up, m.first(), *e}, "the replaced connection of %s published %q", e.Client, m.id)
			return
		case e.Kind == Received:
			c.violate(RuleTakeover, []Event{*next.up, m.first(), *e}, "the replaced connection of %s received %q", e.Client, m.id)
			return
		}
	}
}

// judgeKick judges that nobody is told of a takeover that nobody made.
func (c *check) judgeKick(cn *conn, all []*conn) {
	if cn.up == nil || cn.end == nil || cn.end.Reason != TakenOver {
		return
	}
	for _, o := range all {
		if o != cn && o.asked.At < cn.end.At && (o.up == nil && !o.refused || o.asked.At > cn.asked.At || o.up != nil && o.up.At > cn.asked.At) {
			return
		}
	}
	c.violate(RuleTakeover, []Event{*cn.up, *cn.end}, "%s was told of a takeover, and nobody else connected with its id", cn.asked.Client)
}

// fence is when a later connection of the same client id was acknowledged: what
// was sent over cn alone must be before that in the log, or nowhere.
func (c *check) fence(cn *conn) time.Duration {
	for _, o := range c.byClient[cn.asked.Client] {
		if cn.up != nil && o.up != nil && o.asked.At > cn.up.At {
			return o.up.At
		}
	}
	return forever
}

// judgeFence judges that nothing of a connection lands after another one has
// replaced it. A session receives in the order of the log, so what was sent after
// the winner's CONNACK must not come before what the loser sent.
func (c *check) judgeFence(s *session) {
	if s.shares {
		return
	}
	seen := map[string]bool{}
	var newest [3]*message // by QoS as received, the one that was sent last
	var came [3]*Event
	for _, e := range s.events {
		m := c.messages[e.Message]
		if e.Kind != Received || m == nil || m.will || e.Retain || e.QoS == 0 || e.QoS > 2 || seen[m.id] {
			continue
		}
		seen[m.id] = true
		if n := newest[e.QoS]; n != nil {
			last := m.sent[len(m.sent)-1]
			if cn := c.byKey[connKey{last.History, last.Conn}]; cn != nil && c.fence(cn) < n.first().At {
				c.violate(RuleTakeover, []Event{last, n.first(), *came[e.QoS], *e},
					"%s received %q of a connection that was replaced after %q, which was sent when it was", s.client, m.id, n.id)
			}
		}
		if n := newest[e.QoS]; n == nil || m.first().At > n.first().At {
			newest[e.QoS], came[e.QoS] = m, e
		}
	}
}
