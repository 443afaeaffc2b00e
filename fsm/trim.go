package fsm

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// trims tells whether an entry holds a Trim, which reads what is stored.
func trims(e *logpb.Entry) bool {
	return slices.ContainsFunc(e.GetPack().GetItems(), func(it *logpb.Item) bool { return it.GetTrim() != nil })
}

// trim gives up the oldest messages of queues, by moving cursors. It never
// reaches into its own entry: what that posted is not in the store yet, and no
// leader means it.
func (a *applier) trim(c *logpb.Trim) {
	before := session.At(a.index, 0) - 1
	if all := min(session.Pos(c.All), before); all > 0 {
		// In no order: each session has keys of its own.
		for _, s := range a.sessions {
			if s.owed() {
				a.giveUp(s, all)
			}
		}
	}
	for _, t := range c.Sessions {
		if s := a.sessions[t.Client]; s != nil && s.rec.Incarnation == t.Incarnation {
			a.giveUp(s, min(session.Pos(t.To), before))
		}
	}
}

// owed tells whether anything waits for s after its cursor. That is the same on
// nodes that have collected more and on nodes that have collected less.
func (s *sess) owed() bool {
	at := s.at()
	return slices.ContainsFunc(s.list(), func(n *sub) bool {
		return n.waits() && session.Pos(n.filter.last.Load()) > max(at, n.since)
	})
}

// giveUp moves the cursor of s over messages that were not acknowledged.
func (a *applier) giveUp(s *sess, to session.Pos) {
	was := s.at()
	if to <= was {
		return
	}
	for p, o := range s.outs {
		if p > was && p <= to {
			a.keepOut(s, o)
		}
	}
	a.moveCursor(s, to)
	if left := s.owedInflight(s.rec.Inflight); len(left) < len(s.rec.Inflight) {
		s.rec.Inflight = left
		a.putSession(s)
	}
}

// keepOut keeps the state of a QoS 2 message that is under way although the
// queue gives it up: the client may have it, and would take a new message under
// its packet id for the same one. One that the client may not have yet is kept
// with it.
func (a *applier) keepOut(s *sess, o *logpb.Out) {
	p := session.Pos(o.Pos)
	switch session.OutState(o.State) {
	case session.OutDone:
		delete(s.outs, p)
		a.del(outKey(s.rec.Client, p))
	case session.OutSent:
		m, err := a.owedMessage(s, p)
		if err != nil && a.err == nil {
			a.err = err
		}
		if m != nil {
			o = &logpb.Out{Pos: o.Pos, PacketId: o.PacketId, State: o.State, Message: m}
			s.outs[p] = o
			a.setProto(outKey(s.rec.Client, p), o)
		}
	}
}

// owedMessage reads the message at p if s is owed it, nil otherwise. A posting of
// a session that has not passed it is on every node, collected or not.
func (a *applier) owedMessage(s *sess, p session.Pos) (*logpb.Message, error) {
	for _, n := range s.list() {
		if _, gone := a.moved[posting{n.filter.id, p}]; gone || n.QoS == 0 || p <= n.since {
			continue
		}
		_, closer, err := a.db.Get(postingKey(n.filter.id, p))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err == nil {
			err = closer.Close()
		}
		if err != nil {
			return nil, err
		}
		m, err := readMessage(a.db, p)
		if m != nil {
			m.Filters = nil
		}
		return m, err
	}
	return nil, nil
}

// outGivenUp judges a mark of a message at or before the cursor. One that a queue
// gave up before its delivery began is not delivered: no later connection could
// send it again. One whose delivery had begun goes on as it was.
func (a *applier) outGivenUp(s *sess, m *logpb.Out) bool {
	if session.OutState(m.State) != session.OutSent {
		return true
	}
	old := s.outs[session.Pos(m.Pos)]
	if old == nil {
		return false
	}
	if m.Message == nil {
		m.Message = old.Message
	}
	return true
}

// owedInflight leaves out what s is not owed any more.
func (s *sess) owedInflight(l []*logpb.Inflight) []*logpb.Inflight {
	at := s.at()
	return slices.DeleteFunc(slices.Clone(l), func(f *logpb.Inflight) bool { return session.Pos(f.Pos) <= at })
}
