package history

import "time"

// fate is what is to become of the will of one connection.
type fate struct {
	must, never bool
	why         string
	// earliest is when it may come, due when it must have been fired at the latest,
	// but for Options.WillLate.
	earliest, due time.Duration
}

// willHaste is how much sooner than its delay a will may come: clocks are read at
// different moments.
const willHaste = 250 * time.Millisecond

// promptly is how long a will may take while nothing is wrong: a moment, on a
// machine that does much else.
const promptly = 3 * time.Second

// judgeWills judges the wills of all connections: who must fire comes to every
// session that has subscribed to it, once; who must not does not come at all.
// That nobody gets one twice judgeAgain judges.
func (c *check) judgeWills() {
	for _, cn := range c.conns {
		if cn.asked.Message == "" {
			continue
		}
		at, fired := c.seen[cn.asked.Message]
		if fired {
			c.report.Stats.WillsFired++
		}
		f := c.fateOf(cn)
		shows := cn.show(c)
		switch {
		case fired && f.never:
			c.violate(RuleWill, append(shows, c.receipt(cn)), "the will %q came, though %s", cn.asked.Message, f.why)
		case fired && at < f.earliest:
			c.violate(RuleWill, append(shows, c.receipt(cn)), "the will %q came %v too soon", cn.asked.Message, f.earliest-at)
		case f.must:
			c.judgeFired(cn, f)
		case !f.never:
			c.report.Stats.WillsUnjudged++
		}
	}
}

// judgeFired judges that a will came to all who are owed it.
func (c *check) judgeFired(cn *conn, f fate) {
	m := c.messages[cn.asked.Message]
	witnesses, late := 0, c.lateness(cn, f)
	for _, s := range c.sessions {
		b := c.staying(s, cn.asked.Topic)
		if b == nil || s.unsure || b.since > cn.asked.At || min(b.qos, cn.asked.QoS) == 0 && !c.options.QoS0 {
			continue
		}
		if until := min(s.drained, c.events[len(c.events)-1].At); f.due+late > until {
			continue
		}
		witnesses++
		if _, got := s.got[m.id]; !got {
			c.report.Stats.WillsDue++
			c.violate(RuleWill, append(cn.show(c), b.suback), "%s did not receive the will %q, though %s", s.client, m.id, f.why)
			return
		}
		if at := c.seen[m.id]; late == promptly && at > f.due+late && s.liveFrom(f.due, f.due+late) {
			c.violate(RuleWill, append(cn.show(c), b.suback, c.receipt(cn)), "the will %q came %v too late", cn.asked.Message, at-f.due)
			return
		}
	}
	if witnesses == 0 {
		c.report.Stats.WillsUnjudged++
		return
	}
	c.report.Stats.WillsDue++
}

// lateness is how much later than due a will may be fired: little, if nothing was
// wrong from the end of its connection on.
func (c *check) lateness(cn *conn, f fate) time.Duration {
	if c.overlap(cn.endAt()-time.Second, f.due+promptly) > 0 {
		return c.options.WillLate
	}
	return promptly
}

// liveFrom tells whether one connection of the session was up all the time.
func (s *session) liveFrom(from, to time.Duration) bool {
	for _, cn := range s.conns {
		if cn.live(from) && cn.live(to) {
			return true
		}
	}
	return false
}

// show are the events of a connection and of the next one of its client.
func (c *conn) show(k *check) []Event {
	shows := []Event{c.asked}
	for _, e := range []*Event{c.up, c.end} {
		if e != nil {
			shows = append(shows, *e)
		}
	}
	if next, _ := k.next(c); next != nil {
		shows = append(shows, next.asked)
		if next.up != nil {
			shows = append(shows, *next.up)
		}
	}
	return shows
}

// receipt is the first event of somebody receiving the will of a connection.
func (c *check) receipt(cn *conn) (first Event) {
	first.At = forever
	for _, s := range c.sessions {
		for _, e := range s.events {
			if e.Kind == Received && e.Message == cn.asked.Message && e.At < first.At {
				first = *e
			}
		}
	}
	return first
}

// next is the connection of the same client that came after cn; unclear tells
// that another one may have come before or after it, which nobody knows.
func (c *check) next(cn *conn) (next *conn, unclear bool) {
	for _, o := range c.byClient[cn.asked.Client] {
		switch {
		case o == cn || o.refused:
		case o.up == nil:
			// Without an answer: it may be carried out at any time.
			unclear = unclear || o.end == nil || o.asked.At > cn.asked.At
		case cn.up == nil || o.asked.At > cn.up.At:
			if next == nil {
				next = o
			}
		case o.up.At > cn.asked.At:
			unclear = true
		}
		if next != nil && o.asked.At > next.up.At {
			break
		}
	}
	return next, unclear
}

// fateOf says what is to become of the will of a connection.
func (c *check) fateOf(cn *conn) fate {
	if cn.up == nil {
		return fate{never: cn.refused, why: "its CONNECT was refused"}
	}
	next, unclear := c.next(cn)
	_, disturbed := c.disturbed(cn.node(), cn.up.At, cn.endAt())
	_, drained := c.drained(cn)
	switch {
	case cn.end == nil:
		return fate{never: !disturbed && !unclear && next == nil && !drained, why: "its client was connected all the time"}
	case cn.end.Kind == Disconnected && cn.end.Reason != withWill:
		// The node may not have heard it, or somebody may have been quicker.
		_, deaf := c.disturbed(cn.node(), cn.end.At-time.Second, cn.end.At+c.options.FaultGrace)
		raced := next != nil && next.asked.At < cn.end.At+time.Second && next.asked.At > cn.up.At && next.asked.History != cn.asked.History
		return fate{never: !deaf && !unclear && !raced && !drained, why: "its client had left with DISCONNECT"}
	}
	return c.fateOfLost(cn, next, unclear)
}

// fateOfLost is that of a connection that ended without a DISCONNECT of its
// client, or with one that asks for the will.
func (c *check) fateOfLost(cn, next *conn, unclear bool) fate {
	expiry := cn.asked.Expiry
	if cn.end.Kind == Disconnected {
		expiry = cn.end.Expiry
	}
	delay := time.Duration(min(cn.asked.Delay, expiry)) * time.Second
	from, until := c.ended(cn, next)
	f := fate{why: "its connection was lost", earliest: from + delay - delay/logHaste - willHaste, due: until + delay + delay/logHaste}
	back := next != nil && next.up.At < f.earliest // before it may have been fired
	if since, is := c.drained(cn); is {
		return c.fateOfDrained(cn, next, f, since)
	}
	switch {
	case unclear && delay > 0:
	case back && next.up.Present:
		f.never, f.why = true, "its client was back in time"
	case next != nil && next.up.Present && delay > 0 && next.asked.At < f.due+c.lateness(cn, f):
		// It may have been fired, or cancelled.
	case !c.told(cn):
		// The node may have released its clients with a time to come back in.
	default:
		f.must = true
	}
	return f
}

// fateOfDrained is that of a connection that may have ended by a drain, which
// gives its client a time to come back in, from when the drain began.
func (c *check) fateOfDrained(cn, next *conn, f fate, from time.Duration) fate {
	grace := c.options.DrainGrace
	sure := cn.end.Kind == Lost && (cn.end.Reason == shuttingDown || cn.end.Reason == useAnother || cn.end.Reason == moved)
	soon := next != nil && next.up.At < from+grace-grace/logHaste-willHaste
	out := fate{why: "its client was back in time after a drain", earliest: f.earliest}
	if sure && soon && (next.up.Present || !next.asked.Clean || cn.asked.Expiry == 0) {
		out.never = true
	}
	return out
}

// Reasons of a DISCONNECT by which a node sends its clients away.
const (
	shuttingDown byte = 0x8b
	useAnother   byte = 0x9c
	moved        byte = 0x9d
)

// told tells whether how a connection ended is known well enough to demand its
// will: the client ended it, its node was killed, or nothing was wrong anywhere
// and nobody sent the client away.
func (c *check) told(cn *conn) bool {
	if cn.end.Kind != Lost || cn.end.Reason == TakenOver {
		return true
	}
	if r := cn.end.Reason; r == shuttingDown || r == useAnother || r == moved {
		return false // also if the node was killed right after
	}
	for _, w := range c.windows {
		if w.killed && w.node == cn.node() && w.from >= cn.up.At && w.from <= cn.end.At+time.Second {
			return true
		}
	}
	return cn.end.Reason == 0 && c.overlap(cn.up.At, cn.end.At+time.Second) == 0
}

// ended is when the cluster may have learned of a connection's end, and when it
// must have.
func (c *check) ended(cn, next *conn) (from, until time.Duration) {
	from, until = cn.end.At, cn.end.At
	if cn.end.Kind == Lost {
		from = max(cn.up.At, from-expirySlack)
	}
	if since, is := c.disturbed(cn.node(), cn.up.At, cn.end.At); is {
		from = max(cn.up.At, min(from, since))
	}
	for _, o := range c.byClient[cn.asked.Client] {
		// One without an answer may have been carried out, and its client not have
		// been told; one given up before may be carried out later.
		if o == next || o != cn && o.up == nil && !o.refused && (o.end == nil || o.asked.At > cn.up.At) {
			from = min(from, max(cn.up.At, o.asked.At))
		}
	}
	for _, w := range c.windows {
		if w.from <= until && w.to >= until && w.to < forever {
			until = w.to
		}
	}
	return from, until
}
