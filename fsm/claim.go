package fsm

import (
	"cmp"
	"slices"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// claim is a CONNECT: the newest one has the client id, cluster-wide.
func (a *applier) claim(from owner, c *logpb.Claim, r *Result) {
	s := a.sessions[c.Client]
	if s != nil && s.rec.User != c.User {
		r.Err = ErrForeignSession
		return
	}
	if s != nil && s.rec.Owner != "" {
		a.takeOver(s, c.CleanStart)
	}
	if s != nil && s.rec.Owner == "" && s.rec.Will != nil && (s.rec.Will.Delay == 0 || s.rec.Expiry == 0) {
		// Only a drain lets such a will wait, for just this: the client is back.
		s.rec.Will = nil
	}
	// A session that ends with its connection is not there for the next one
	// [MQTT-3.1.2-6]; takeOver leaves the record of such a one in place.
	if s != nil && (c.CleanStart || s.rec.Expiry == 0) {
		a.endSession(s)
		s = nil
	}
	present := s != nil
	if present {
		a.forgetDeposits(s)
		a.back(s, r.Pos)
	} else {
		s = &sess{client: c.Client, incarnation: uint64(r.Pos), rec: &logpb.Session{Client: c.Client, Incarnation: uint64(r.Pos)}}
		s.cursor.Store(uint64(r.Pos))
		a.addSession(s)
		a.set(appendString(keyCursor, c.Client), uint64Value(uint64(r.Pos)))
	}
	rec := s.rec
	rec.Epoch = uint64(r.Pos)
	rec.User = c.User
	rec.Expiry = c.Expiry
	rec.ExpiresAt, rec.WillAt = 0, 0
	rec.Will = c.Will
	rec.Protocol, rec.Address = c.Protocol, c.Address
	rec.Since = a.stamp
	from.epoch = rec.Epoch
	a.setOwner(s, &from)
	r.Claim = a.claimed(s, present)
	rec.Inflight = nil
	a.putSession(s)
}

// takeOver ends the connection that has s. Its will fires unless its delay is
// cut short by the new connection [MQTT-3.1.3-9], or the client had left before.
func (a *applier) takeOver(s *sess, clean bool) {
	a.ended(s, EndTakenOver)
	// What the loser had sent is not known here.
	s.rec.Horizon = uint64(a.pos())
	a.left(s)
	a.forgetZero(s)
	if w := s.rec.Will; w != nil && (w.Delay == 0 || clean || s.rec.Expiry == 0) {
		a.overtaken(s)
	}
}

// left notes where the connection of s ended: what another node sent before it had
// applied that went to this connection, if it went to the session.
func (a *applier) left(s *sess) {
	if a.level >= LevelLeft {
		s.rec.Left = a.index
	}
}

func (a *applier) claimed(s *sess, present bool) *Claimed {
	c := &Claimed{
		Present:     present,
		Epoch:       session.Pos(s.rec.Epoch),
		Incarnation: session.Pos(s.rec.Incarnation),
		Logged:      s.rec.Expiry > 0 || len(s.list()) > 0,
		Cursor:      s.at(),
		Horizon:     session.Pos(s.rec.Horizon),
		Left:        s.rec.Left,
		Zero:        s.spans(),
	}
	for _, n := range s.list() {
		c.Subscriptions = append(c.Subscriptions, n.Subscription)
		if r := n.replay; r != nil {
			c.Replays = append(c.Replays, session.Replay{Subscription: n.Subscription, At: session.Pos(r.At), After: r.After})
		}
	}
	slices.SortStableFunc(c.Replays, func(x, y session.Replay) int { return cmp.Compare(x.At, y.At) })
	for _, o := range s.outs {
		c.Outbound = append(c.Outbound, outOf(o))
	}
	slices.SortFunc(c.Outbound, func(x, y session.Out) int { return cmp.Compare(x.Pos, y.Pos) })
	for _, f := range s.rec.Inflight {
		c.Inflight = append(c.Inflight, session.Inflight{Pos: session.Pos(f.Pos), PacketID: uint16(f.PacketId)})
	}
	for id := range s.received {
		c.Received = append(c.Received, id)
	}
	slices.Sort(c.Received)
	return c
}

func (a *applier) setOwner(s *sess, o *owner) {
	s.owner.Store(o)
	s.rec.Owner, s.rec.OwnerIncarnation = "", 0
	if o != nil {
		s.rec.Owner, s.rec.OwnerIncarnation = o.node, o.incarnation
	}
}

func (a *applier) putSession(s *sess) { a.setProto(appendString(keySession, s.rec.Client), s.rec) }

// release is the end of a connection, as its node saw it.
func (a *applier) release(c *logpb.Release, r *Result) {
	s := a.held(c.Client, c.Epoch, r)
	if s == nil {
		a.toldOf(c)
		return
	}
	if c.Expiry != nil {
		s.rec.Expiry = *c.Expiry
	}
	a.advance(s, session.Pos(c.Cursor))
	a.replayed(s, c.Replayed)
	s.rec.Inflight = s.owedInflight(c.Inflight)
	a.disconnected(s, disconnect{will: c.Will, grace: c.Grace})
}

// disconnect says how a connection ended: whether its will is to fire, and how
// many seconds its client is given to come back before will or session end
// (a drain).
type disconnect struct {
	will  bool
	grace uint32
}

// disconnected leaves s without a connection: will and expiry start to run,
// shared messages that it did not acknowledge go to other members.
func (a *applier) disconnected(s *sess, d disconnect) {
	rec := s.rec
	a.setOwner(s, nil)
	rec.Since = a.stamp
	a.left(s)
	if !d.will {
		rec.Will = nil
	}
	expiry := max(rec.Expiry, d.grace)
	if expiry == 0 {
		a.endSession(s)
		return
	}
	a.leave(s)
	if w := rec.Will; w != nil {
		if delay := max(w.Delay, d.grace); delay == 0 {
			a.fireWill(s)
		} else {
			rec.WillAt = a.stamp + int64(min(delay, expiry))*1000
			a.timers.add(rec.WillAt, rec.Client)
		}
	}
	if expiry != session.Never {
		rec.ExpiresAt = a.stamp + int64(expiry)*1000
		a.timers.add(rec.ExpiresAt, rec.Client)
	}
	a.putSession(s)
	a.redistribute(s, s.list(), false)
}

// endSession removes all that is kept for s; its will, if it has one, fires.
func (a *applier) endSession(s *sess) {
	a.forgetZero(s)
	a.fireWill(s)
	subs := s.list()
	a.setOwner(s, nil)
	for _, n := range subs {
		a.detach(s, n)
		a.touched = append(a.touched, n.filter)
	}
	a.redistribute(s, subs, true)
	client := s.rec.Client
	delete(a.sessions, client)
	a.table.sessions.Delete(client)
	a.del(appendString(keySession, client))
	a.del(appendString(keyCursor, client))
	if len(subs) > 0 {
		a.delPrefix(appendClient(keySubscription, client))
	}
	if len(s.outs) > 0 {
		a.delPrefix(appendClient(keyOut, client))
	}
	if len(s.received) > 0 {
		a.delPrefix(appendClient(keyReceived, client))
	}
}

// fireWill publishes the will of s, once: it is forgotten with it.
func (a *applier) fireWill(s *sess) {
	w := s.rec.Will
	s.rec.Will, s.rec.WillAt = nil, 0
	if w != nil {
		a.sendWill(s.rec.Client, s.rec.User, w)
	}
}

// fireDue lets everything happen that was due by the log's time.
func (a *applier) fireDue() {
	for {
		t, ok := a.timers.pop(a.stamp)
		if !ok {
			return
		}
		if t.epoch != 0 {
			a.settleFormer(formerKey{t.client, t.epoch}, true)
			continue
		}
		s := a.sessions[t.client]
		if s == nil || s.rec.Owner != "" {
			continue
		}
		switch t.at {
		case s.rec.ExpiresAt:
			a.endSession(s)
		case s.rec.WillAt:
			a.fireWill(s)
			a.putSession(s)
		}
	}
}

// sessionEnd removes a session by an operator's word.
func (a *applier) sessionEnd(c *logpb.SessionEnd, r *Result) {
	s := a.sessions[c.Client]
	if s == nil {
		r.Err = refused("there is no session of client %q", c.Client)
		return
	}
	a.ended(s, EndByOperator)
	a.endSession(s)
}

// progress advances the cursor of a session.
func (a *applier) progress(p *logpb.SessionProgress) {
	var r Result
	s := a.held(p.Client, p.Epoch, &r)
	if s == nil {
		a.cutHere(p.Client)
		return
	}
	a.advance(s, session.Pos(p.Cursor))
	a.replayed(s, p.Replayed)
}

// advance moves the cursor over what was acknowledged; finished QoS 2 states at
// or before it are done with.
func (a *applier) advance(s *sess, to session.Pos) {
	was := s.at()
	if to <= was {
		return
	}
	for p := range s.outs {
		// Of retained messages the cursor says nothing; their keys are beyond it.
		// One from before the cursor was given up while it was under way (trim), and
		// ends by itself.
		if p > was && p <= to {
			delete(s.outs, p)
			a.del(outKey(s.rec.Client, p))
		}
	}
	a.moveCursor(s, to)
}

func (a *applier) moveCursor(s *sess, to session.Pos) {
	s.cursor.Store(uint64(to))
	a.set(appendString(keyCursor, s.rec.Client), uint64Value(uint64(to)))
	for _, n := range s.list() {
		if n.waits() {
			a.touched = append(a.touched, n.filter)
		}
	}
}

// rel frees an incoming QoS 2 packet id.
func (a *applier) rel(c *logpb.Rel, r *Result) {
	s := a.held(c.Client, c.Epoch, r)
	if s == nil {
		return
	}
	id := uint16(c.PacketId)
	_, found := s.received[id]
	r.Found = []bool{found}
	if found {
		delete(s.received, id)
		a.del(receivedKey(c.Client, id))
	}
}

// outbound moves outgoing QoS 2 messages on.
func (a *applier) outbound(c *logpb.Outbound, r *Result) {
	s := a.held(c.Client, c.Epoch, r)
	if s == nil {
		return
	}
	r.Found = make([]bool, len(c.Marks))
	for i, m := range c.Marks {
		p := session.Pos(m.Pos)
		if p.Retained() {
			a.outRetained(s, m)
			r.Found[i] = true
			continue
		}
		if p <= s.at() && !a.outGivenUp(s, m) {
			continue
		}
		r.Found[i] = true
		if session.OutState(m.State) == session.OutDone && p <= s.at() {
			delete(s.outs, p)
			a.del(outKey(c.Client, p))
			continue
		}
		if s.outs == nil {
			s.outs = map[session.Pos]*logpb.Out{}
		}
		s.outs[p] = m
		a.setProto(outKey(c.Client, p), m)
	}
}
