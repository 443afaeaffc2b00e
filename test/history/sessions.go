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
}

// session is a session as its clients could see it, over all its connections.
type session struct {
	client string
	conns  []*conn
	subs   []*sub
	events []Event // Received, Released and ReceiveAcked, in order
	expiry uint32
	over   bool
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
	open := map[connKey]*conn{}
	for _, e := range c.events {
		if e.Client == "" {
			continue
		}
		st := clients[e.Client]
		if st == nil {
			st = &clientState{}
			clients[e.Client] = st
		}
		if e.Kind == ConnectSent {
			cn := &conn{asked: e}
			open[connKey{e.History, e.Conn}] = cn
			st.conns = append(st.conns, cn)
			c.conns = append(c.conns, cn)
			continue
		}
		if cn := open[connKey{e.History, e.Conn}]; cn != nil {
			c.step(st, cn, e)
		}
	}
}

// step applies one event of a connection.
func (c *check) step(st *clientState, cn *conn, e Event) {
	s := cn.session
	switch e.Kind {
	case Connected:
		cn.up = &e
		c.report.Stats.Connections++
		if e.Present {
			c.report.Stats.Present++
		}
		c.attach(st, cn)
	case Refused:
		cn.refused = true
	case Disconnected, Lost:
		cn.end = &e
		if s == nil || s.last() != cn {
			return
		}
		if e.Kind == Disconnected {
			s.expiry = e.Expiry
		}
		s.over = s.over || s.expiry == 0
	case SubscribeSent, Subscribed, UnsubscribeSent, Unsubscribed:
		if s != nil {
			s.subscription(e)
		}
	case Received, Released, ReceiveAcked:
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
	switch {
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
	s.expiry = cn.asked.Expiry
	cn.session = s
}

// presence tells whether session present must be 1, or must be 0.
func (c *check) presence(st *clientState, cn *conn) (must, mustNot bool) {
	if cn.asked.Clean {
		return false, true
	}
	for _, o := range st.conns {
		// A CONNECT without an answer may have been carried out, and of two at the
		// same time either may have been first.
		if o != cn && !o.refused && (o.up == nil && st.after(o) || o.up != nil && o.up.At > cn.asked.At) {
			return false, false
		}
	}
	s := st.session
	if s == nil || s.over || s.last().end == nil && s.expiry == 0 {
		return false, true
	}
	if s.expiry == Never || s.last().end == nil {
		return true, false
	}
	away := cn.up.At - s.last().end.At
	return away+expirySlack < time.Duration(s.expiry)*time.Second, false
}

// after tells whether o was asked for after the newest connection was.
func (st *clientState) after(o *conn) bool {
	return st.session == nil || o.asked.At > st.session.last().asked.At
}

func (s *session) subscription(e Event) {
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
			at.since, at.qos, at.suback = e.At, e.QoS, e
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
