package history

// judgeTakeovers judges that a client id has one connection at a time: after a
// second one was acknowledged the first one ends soon, with 0x8E in MQTT 5, gets
// nothing acknowledged that it sends and receives nothing that was sent since.
func (c *check) judgeTakeovers() {
	byClient := map[string][]*conn{}
	for _, cn := range c.conns {
		byClient[cn.asked.Client] = append(byClient[cn.asked.Client], cn)
	}
	for _, cn := range c.conns {
		for _, next := range byClient[cn.asked.Client] {
			if cn.up == nil || next.up == nil || next.asked.At <= cn.up.At {
				continue
			}
			if cn.end == nil || cn.end.At > next.asked.At {
				c.judgeTakeover(cn, next)
			}
			break // the first that came after it; later ones meet that one
		}
		c.judgeKick(cn, byClient[cn.asked.Client])
	}
}

// judgeTakeover judges a connection that was still there when next was asked for.
func (c *check) judgeTakeover(old, next *conn) {
	shows := []Event{*old.up, next.asked, *next.up}
	limit := next.up.At + c.options.TakeoverGrace
	switch {
	case old.end == nil && c.events[len(c.events)-1].At < limit:
		// The run ended too soon to tell.
	case old.end == nil:
		c.violate(RuleTakeover, shows, "%s has two connections", old.asked.Client)
	case old.end.At > limit:
		c.violate(RuleTakeover, append(shows, *old.end), "the first connection of %s lived on for %v", old.asked.Client, old.end.At-next.up.At)
	case old.end.Kind == Lost && old.asked.Version == 5 && old.end.Reason != TakenOver && !c.killedBetween(old):
		c.violate(RuleTakeover, append(shows, *old.end), "the first connection of %s ended without 0x8E", old.asked.Client)
	}
	c.judgeFenced(old, next)
}

// killedBetween tells whether the node of a connection was killed in its time.
func (c *check) killedBetween(cn *conn) bool {
	for _, k := range c.kills {
		if k.Node == cn.asked.Node && k.At > cn.up.At && k.At < cn.end.At {
			return true
		}
	}
	return false
}

// judgeFenced judges what a connection saw after another one had replaced it.
func (c *check) judgeFenced(old, next *conn) {
	for i := range c.events {
		e := &c.events[i]
		if e.At < next.up.At || e.History != old.asked.History || e.Conn != old.asked.Conn {
			continue
		}
		m := c.messages[e.Message]
		if m == nil || m.first().At < next.up.At {
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
