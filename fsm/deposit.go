package fsm

import (
	"fmt"
	"slices"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// What waits for a session that comes from another broker is its alone: it must
// not reach others with the same subscriptions, and may hold less than they match.
// So it is posted to a filter that only this session has, and that neither a
// topic nor a SUBSCRIBE can name: a shared subscription (each member of those has
// a filter of its own) to a text with a NUL. It goes when a client connects that
// has acknowledged it all.

// depositFilter names the subscription that deposits of one identifier wait in.
func depositFilter(s *sess, id uint32) string {
	return fmt.Sprintf("%s%d/%d", depositPrefix, s.incarnation, id)
}

const depositPrefix = "$share/deposit/\x00"

// deposited tells whether n is such a subscription.
func deposited(n *sub) bool { return n.filter.group != nil && n.filter.text[0] == 0 }

// sessionPut brings a session over, or more of its queue.
func (a *applier) sessionPut(c *logpb.SessionPut, r *Result) {
	s := a.sessions[c.Client]
	switch {
	case c.From == 0 && s != nil:
		r.Err = refused("there is a session of client %q already", c.Client)
		return
	case c.From > 0 && (s == nil || s.rec.Epoch != 0 || s.rec.Deposits != c.From):
		r.Err = refused("the session of client %q is not the one that was begun: end it with mqcluster session end and import again", c.Client)
		return
	case s == nil:
		s = a.bringSession(c, r.Pos)
	}
	for _, d := range c.Deposits {
		a.deposit(s, d)
	}
	s.rec.Deposits += uint32(len(c.Deposits))
	for _, d := range c.Incoming {
		id := uint16(d.PacketId)
		if s.received == nil {
			s.received = map[uint16]struct{}{}
		}
		if _, dup := s.received[id]; dup {
			continue
		}
		s.received[id] = struct{}{}
		a.set(receivedKey(c.Client, id), nil)
		a.publish(a.pos(), a.messageIn(d))
	}
	a.putSession(s)
}

// bringSession makes the session, without a connection.
func (a *applier) bringSession(c *logpb.SessionPut, p session.Pos) *sess {
	s := &sess{client: c.Client, incarnation: uint64(p), rec: &logpb.Session{
		Client: c.Client, Incarnation: uint64(p), User: c.User, Expiry: c.Expiry, Protocol: c.Protocol, Since: a.stamp,
	}}
	s.cursor.Store(uint64(p))
	a.addSession(s)
	a.set(appendString(keyCursor, c.Client), uint64Value(uint64(p)))
	for _, want := range c.Subscriptions {
		n := &sub{Subscription: subscriptionOf(want), since: p}
		n.filter = a.freshFilter(n.Filter)
		n.zero = a.wantsZero(s, n)
		a.attach(s, n)
		a.putSubscription(s, n)
	}
	a.leave(s)
	if c.Expiry != session.Never {
		s.rec.ExpiresAt = a.stamp + max(int64(c.Remaining), 1)*1000
		a.timers.add(s.rec.ExpiresAt, c.Client)
	}
	return s
}

func (a *applier) messageIn(d *logpb.Deposit) *session.Message {
	m := &session.Message{
		Topic: d.Topic, Payload: d.Payload, Properties: d.Properties,
		QoS: byte(d.Qos), Retain: d.Retain, Publisher: d.Publisher, Stamp: a.stamp,
	}
	if d.Expiry != nil {
		m.ExpiresAt = a.stamp + int64(*d.Expiry)*1000
	}
	return m
}

func (a *applier) deposit(s *sess, d *logpb.Deposit) {
	text := depositFilter(s, d.Subscription)
	n := s.find(text)
	if n == nil {
		// Retained messages on subscribe keep the flag that the other broker gave them.
		n = &sub{Subscription: session.Subscription{Filter: text, QoS: 2, RetainAsPublished: true, RetainHandling: 2, ID: d.Subscription}, since: session.Pos(s.incarnation)}
		n.filter = a.freshFilter(text)
		a.attach(s, n)
		a.putSubscription(s, n)
	}
	p := a.pos()
	a.post(p, a.messageIn(d), []*filter{n.filter})
	switch {
	case d.PacketId == 0:
	case d.Qos == 1:
		s.rec.Inflight = append(s.rec.Inflight, &logpb.Inflight{Pos: uint64(p), PacketId: d.PacketId})
	case d.State != 0:
		if s.outs == nil {
			s.outs = map[session.Pos]*logpb.Out{}
		}
		out := &logpb.Out{Pos: uint64(p), PacketId: d.PacketId, State: d.State}
		s.outs[p] = out
		a.setProto(outKey(s.client, p), out)
	}
}

// forgetDeposits removes the subscriptions of deposits that are acknowledged.
func (a *applier) forgetDeposits(s *sess) {
	if s.rec.Deposits == 0 {
		return
	}
	left := false
	for _, n := range slices.Clone(s.list()) {
		switch {
		case !deposited(n):
		case session.Pos(n.filter.last.Load()) > s.at():
			left = true
		default:
			a.detach(s, n)
			a.del(subscriptionKey(s.client, n.Filter))
			a.touched = append(a.touched, n.filter)
		}
	}
	if !left {
		s.rec.Deposits = 0
	}
}

// freshFilter returns the filter of a subscription's text, with an id that no
// other has.
func (a *applier) freshFilter(text string) *filter {
	f := a.fresh(text, a.lastFilter+1)
	if f.id > a.lastFilter {
		a.lastFilter = f.id
		a.set([]byte(metaFilter), uint64Value(a.lastFilter))
	}
	return f
}
