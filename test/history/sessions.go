package history

import (
	"math"
	"time"
)

// forever is later than every event.
const forever = time.Duration(math.MaxInt64)

// expirySlack is how much sooner than asked for a session may end: client and
// server do not see a connection end at the same time.
const expirySlack = time.Second

// logHaste is the part of itself by which log time may be faster or slower than
// real time, inverted.
const logHaste = 100

// connKey names a connection of a run.
type connKey struct {
	history string
	n       int
}

// conn is one connection of one client.
type conn struct {
	asked   Event
	up      *Event // CONNACK
	end     *Event // Disconnected or Lost
	refused bool
	session *session
	// events are what it received and acknowledged, and its acknowledged publishes.
	events []*Event
}

// node is where the connection was.
func (c *conn) node() string { return c.asked.Node }

// endAt is when the client saw the end; forever if it did not.
func (c *conn) endAt() time.Duration {
	if c.end == nil {
		return forever
	}
	return c.end.At
}

// live tells whether the connection was up at a time.
func (c *conn) live(at time.Duration) bool {
	return c.up != nil && c.up.At <= at && (c.end == nil || c.end.At > at)
}

// sub is one subscription of a session.
type sub struct {
	filter, plain string
	group         string
	qos           byte
	noLocal       bool
	asked         time.Duration // SUBSCRIBE was sent
	since         time.Duration // SUBACK came; forever if it did not
	until         time.Duration // UNSUBSCRIBE was sent
	gone          time.Duration // UNSUBACK came
	suback        Event
	asks          []time.Duration // every SUBSCRIBE of it
}

// session is a session as its clients could see it, over all its connections.
type session struct {
	client string
	conns  []*conn
	subs   []*sub
	events []*Event // Received, Released and ReceiveAcked, in order
	expiry uint32
	over   bool
	// vague: it may have another expiry than the client asked for.
	vague bool
	// unsure: it was there before anything that is recorded.
	unsure   bool
	drained  time.Duration
	got      map[string]Event // first deliveries, until drained
	inFlight map[uint16]Event // QoS 2: received and not released
	shares   bool
}

// last is the newest connection.
func (s *session) last() *conn { return s.conns[len(s.conns)-1] }

// clientState is what is known of a client id at one point of the walk.
type clientState struct {
	session *session
	conns   []*conn
}

// collectSessions walks through the events and builds connections and sessions.
func (c *check) collectSessions() {
	clients := map[string]*clientState{}
	for i := range c.events {
		e := &c.events[i]
		if e.Client == "" {
			continue
		}
		st := clients[e.Client]
		if st == nil {
			st = &clientState{}
			clients[e.Client] = st
		}
		if e.Kind == ConnectSent {
			cn := &conn{asked: *e}
			c.byKey[connKey{e.History, e.Conn}] = cn
			c.byClient[e.Client] = append(c.byClient[e.Client], cn)
			st.conns = append(st.conns, cn)
			c.conns = append(c.conns, cn)
			continue
		}
		if cn := c.byKey[connKey{e.History, e.Conn}]; cn != nil {
			c.step(st, cn, e)
		}
	}
}

// step applies one event of a connection.
func (c *check) step(st *clientState, cn *conn, e *Event) {
	s := cn.session
	switch e.Kind {
	case Connected:
		cn.up = e
		c.report.Stats.Connections++
		if e.Present {
			c.report.Stats.Present++
		}
		c.attach(st, cn)
	case Refused:
		cn.refused = true
	case Disconnected, Lost, Cut:
		cn.end = e
		if s == nil || s.last() != cn {
			return
		}
		if e.Kind == Disconnected {
			// The node may not have heard it.
			_, deaf := c.disturbed(cn.node(), e.At-time.Second, e.At+time.Second)
			s.vague = deaf && s.expiry != e.Expiry
			s.expiry = e.Expiry
		}
		s.over = s.over || s.expiry == 0
	case SubscribeSent, Subscribed, UnsubscribeSent, Unsubscribed:
		if s != nil {
			s.subscription(e)
		}
	case PublishAcked:
		cn.events = append(cn.events, e)
	case Received, Released, ReceiveAcked:
		cn.events = append(cn.events, e)
		if s != nil {
			s.events = append(s.events, e)
		}
	case Drained:
		if s != nil {
			s.drained = e.At
		}
	}
}

// attach gives a connection its session and judges session present.
func (c *check) attach(st *clientState, cn *conn) {
	old, present := st.session, cn.up.Present
	must, mustNot := c.presence(st, cn)
	expired := !must && !mustNot && c.expired(st, cn)
	switch {
	case present && expired:
		c.violate(RuleExpiry, []Event{*old.last().end, cn.asked, *cn.up}, "the session of %s outlived its %d s", cn.asked.Client, old.expiry)
	case present && cn.asked.Clean:
		c.violate(RulePresent, []Event{cn.asked, *cn.up}, "%s asked for a clean start and got an old session", cn.asked.Client)
	case present && mustNot:
		c.violate(RulePresent, []Event{cn.asked, *cn.up}, "%s has no session and was told that it has one", cn.asked.Client)
	case !present && must:
		shows := []Event{*old.last().up}
		if e := old.last().end; e != nil {
			shows = append(shows, *e)
		}
		c.violate(RulePresent, append(shows, cn.asked, *cn.up), "the session of %s was lost", cn.asked.Client)
	}
	if !present || old == nil || old.over {
		if old != nil {
			old.over = true
		}
		st.session = &session{client: cn.asked.Client, unsure: present, drained: forever, got: map[string]Event{},
			inFlight: map[uint16]Event{}}
		c.sessions = append(c.sessions, st.session)
	}
	s := st.session
	s.conns = append(s.conns, cn)
	s.expiry, s.vague = cn.asked.Expiry, false
	cn.session = s
}

// presence tells whether session present must be 1, or must be 0.
func (c *check) presence(st *clientState, cn *conn) (must, mustNot bool) {
	if cn.asked.Clean {
		return false, true
	}
	if st.unclear(cn) {
		return false, false
	}
	s := st.session
	switch {
	case s == nil:
		return false, true
	case s.vague:
		return false, false
	case s.over || s.last().end == nil && s.expiry == 0:
		return false, true
	case s.expiry == Never:
		return true, false
	}
	last := s.last()
	// A node that was cut off has lost its sessions before its clients knew.
	from := last.endAt()
	if since, is := c.disturbed(last.node(), last.up.At, from); is {
		from = min(from, since)
	}
	if from == forever {
		return true, false
	}
	away := cn.up.At - from
	return away+away/logHaste+expirySlack < time.Duration(s.expiry)*time.Second, false
}

// unclear tells whether it cannot be known which connection of a client is the
// one before cn: a CONNECT without an answer may have been carried out, and of
// two at the same time either may have been first.
func (st *clientState) unclear(cn *conn) bool {
	for _, o := range st.conns {
		if o != cn && !o.refused && (o.up == nil && st.after(o) || o.up != nil && o.up.At > cn.asked.At) {
			return true
		}
	}
	return false
}

// expired tells whether the session before a connection must have ended: the
// log's time, which may be slow, and stands while there is no leader, has run out.
func (c *check) expired(st *clientState, cn *conn) bool {
	s := st.session
	if s == nil || s.vague || s.expiry == Never || s.last().end == nil || st.unclear(cn) {
		return false
	}
	lasts := time.Duration(s.expiry) * time.Second
	if _, is := c.drained(s.last()); is {
		lasts = max(lasts, c.options.DrainGrace)
	}
	from := s.last().end.At
	away := cn.asked.At - from - c.overlap(from, cn.asked.At)
	return away-away/logHaste > lasts+c.options.ExpiryMargin
}

// drained tells whether a connection may have ended by a drain of its node, and
// when that began.
func (c *check) drained(cn *conn) (since time.Duration, is bool) {
	for _, at := range c.drains[cn.node()] {
		if at >= cn.asked.At && at <= cn.endAt() {
			return at, true
		}
	}
	return 0, false
}

// after tells whether o was asked for after the newest connection was.
func (st *clientState) after(o *conn) bool {
	return st.session == nil || o.asked.At > st.session.last().asked.At
}

func (s *session) subscription(e *Event) {
	var at *sub
	for _, b := range s.subs {
		if b.filter == e.Filter && b.until == forever {
			at = b
		}
	}
	switch e.Kind {
	case SubscribeSent:
		if at == nil {
			at = &sub{filter: e.Filter, qos: e.QoS, noLocal: e.NoLocal, asked: e.At, since: forever, until: forever, gone: forever}
			at.group, at.plain = group(e.Filter)
			s.shares = s.shares || at.group != ""
			s.subs = append(s.subs, at)
		}
		at.noLocal = at.noLocal || e.NoLocal
		at.asks = append(at.asks, e.At)
	case Subscribed:
		if at == nil {
			return
		}
		if e.Reason >= 0x80 {
			if at.since == forever {
				at.until, at.gone = e.At, e.At
			}
			return
		}
		// A filter subscribed again counts with the lower QoS of the two.
		if at.since == forever {
			at.since, at.qos, at.suback = e.At, e.QoS, *e
		}
		at.qos = min(at.qos, e.QoS)
	case UnsubscribeSent:
		if at != nil {
			at.until = e.At
		}
	case Unsubscribed:
		for _, b := range s.subs {
			if b.filter == e.Filter && b.until < e.At && b.gone == forever {
				b.gone = e.At
			}
		}
	}
}

// collectSeen finds when each message was first received by whomever: it was
// committed before.
func (c *check) collectSeen() {
	for i := range c.events {
		e := &c.events[i] // in order of time
		if _, ok := c.seen[e.Message]; !ok && e.Kind == Received && e.Message != "" {
			c.seen[e.Message] = e.At
		}
	}
}
