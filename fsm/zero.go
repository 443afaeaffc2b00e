package fsm

import (
	"slices"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// With the setting queue.qos0, messages of QoS 0 (and those of any QoS that a
// subscription of QoS 0 matches) wait for sessions that are away. Nobody
// acknowledges them, so a session remembers in which spans of the log it was
// away: what was posted there is sent once, what was posted elsewhere was offered
// to a connection as it came. What a connection that nobody heard the end of may
// have sent is not sent again.

// maxSpans bounds the spans of a session that comes and goes without ever taking
// what waits; the oldest go first.
const maxSpans = 16

// waits tells whether messages wait for n as they do for a session's queue.
func (n *sub) waits() bool { return n.QoS > 0 || n.zero }

// wantsZero tells whether a subscription of QoS 0 is to have messages wait.
func (a *applier) wantsZero(s *sess, n *sub) bool {
	return a.limits.QueueQoS0 && n.QoS == 0 && n.filter.group == nil && s.rec.Expiry > 0
}

// away tells whether messages of QoS 0 wait for s as they come.
func (s *sess) away() bool {
	n := len(s.rec.Zero)
	return n > 0 && s.rec.Zero[n-1].To == 0
}

// leave begins a span: s has no connection from here on.
func (a *applier) leave(s *sess) {
	if !a.limits.QueueQoS0 || s.rec.Expiry == 0 || s.away() {
		return
	}
	at := uint64(s.at())
	l := slices.DeleteFunc(slices.Clone(s.rec.Zero), func(z *logpb.Span) bool { return z.To <= at })
	if len(l) >= maxSpans {
		l = l[len(l)-maxSpans+1:]
	}
	s.rec.Zero = append(l, &logpb.Span{From: uint64(session.At(a.index, a.n) - 1)})
	s.awaited(1)
}

// back ends the span under way at the position of a claim.
func (a *applier) back(s *sess, p session.Pos) {
	if !s.away() {
		return
	}
	s.awaited(-1)
	l := slices.Clone(s.rec.Zero)
	l[len(l)-1] = &logpb.Span{From: l[len(l)-1].From, To: uint64(p)}
	s.rec.Zero = l
}

// forgetZero gives up what waits at QoS 0: it may have been sent, or the session
// has ended.
func (a *applier) forgetZero(s *sess) {
	if s.away() {
		s.awaited(-1)
	}
	s.rec.Zero = nil
}

// awaited counts s in or out where its filters count who is away.
func (s *sess) awaited(by int64) {
	for _, n := range s.list() {
		if n.filter.group == nil {
			n.filter.away.Add(by)
		}
	}
}

// queueZero begins with what the setting says, at its switching on: for sessions
// that are away already, and for subscriptions that exist.
func (a *applier) queueZero() {
	p := session.At(a.index, a.n) - 1
	// In no order: each session has keys of its own.
	for _, s := range a.sessions {
		for _, n := range s.list() {
			if a.wantsZero(s, n) && !n.zero {
				m := *n
				m.zero, m.since = true, p
				a.attach(s, &m)
				a.putSubscription(s, &m)
			}
		}
		if s.rec.Owner == "" {
			a.leave(s)
			a.putSession(s)
		}
	}
}

// dropZero gives up what waits when the setting is switched off: nothing is held for
// subscriptions of QoS 0 any more.
func (a *applier) dropZero() {
	// In no order: each session has keys of its own.
	for _, s := range a.sessions {
		if len(s.rec.Zero) > 0 {
			a.forgetZero(s)
			a.putSession(s)
		}
		for _, n := range s.list() {
			if n.zero {
				m := *n
				m.zero = false
				a.attach(s, &m)
				a.putSubscription(s, &m)
				a.touched = append(a.touched, n.filter)
			}
		}
	}
}

// spans are the closed spans of s.
func (s *sess) spans() (l []session.Span) {
	for _, z := range s.rec.Zero {
		if z.To != 0 {
			l = append(l, session.Span{From: session.Pos(z.From), To: session.Pos(z.To)})
		}
	}
	return l
}

// Queues tells whether a message of QoS 0 with this topic is to go through the
// log, because a session that is away waits for it (setting queue.qos0). It is
// safe for concurrent use and does not block.
func (s *Store) Queues(topic string) bool {
	t := s.table.Load()
	if !t.limits.QueueQoS0 {
		return false
	}
	for _, f := range t.plain.Load().Match(nil, topic) {
		if f.away.Load() > 0 {
			return true
		}
	}
	return false
}
