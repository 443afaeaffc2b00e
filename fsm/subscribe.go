package fsm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

func (a *applier) subscribe(c *logpb.Subscribe, r *Result) {
	s := a.held(c.Client, c.Epoch, r)
	if s == nil {
		return
	}
	for _, want := range c.Subscriptions {
		n := &sub{Subscription: subscriptionOf(want), since: r.Pos}
		old := s.find(n.Filter)
		r.Existed = append(r.Existed, old != nil)
		if old != nil {
			n.filter = old.filter
			// What waits for the client under the old options goes on waiting.
			if old.waits() {
				n.since = old.since
			}
		} else {
			n.filter = a.freshFilter(n.Filter)
		}
		n.zero = a.wantsZero(s, n)
		switch {
		case n.QoS == 0 || n.filter.group != nil || s.rec.Expiry == 0:
		case n.WantsRetained(old != nil):
			n.replay = &logpb.Replay{At: uint64(r.Pos)}
		case old != nil:
			n.replay = old.replay
		}
		a.attach(s, n)
		a.putSubscription(s, n)
	}
	a.forgetReplayed(s)
}

func (a *applier) unsubscribe(c *logpb.Unsubscribe, r *Result) {
	s := a.held(c.Client, c.Epoch, r)
	if s == nil {
		return
	}
	for _, f := range c.Filters {
		old := s.find(f)
		r.Found = append(r.Found, old != nil)
		if old == nil {
			continue
		}
		a.detach(s, old)
		a.del(subscriptionKey(c.Client, f))
		a.touched = append(a.touched, old.filter)
		a.redistribute(s, []*sub{old}, true)
	}
	a.forgetReplayed(s)
}

// redistribute gives what s was chosen for by shared subscriptions, and did not
// acknowledge, to other members: to connected ones when s only lost its
// connection, to any when its part has ended. A QoS 2 message whose delivery has
// begun stays with its member [MQTT-4.8.2-5]. Others are posted anew, at a new
// position, because the other member's cursor may be beyond the old one.
func (a *applier) redistribute(s *sess, subs []*sub, ended bool) {
	for _, n := range subs {
		g := n.filter.group
		if g == nil || n.QoS == 0 {
			continue
		}
		var stays session.Pos // the last that does
		for _, w := range a.waiting(n, s.at()) {
			if s.outs[w.pos] != nil || !a.pass(s, n, w, ended) {
				stays = w.pos
			}
		}
		if !ended {
			// What is gone from the end is gone for a node that starts, too.
			n.filter.last.Store(uint64(stays))
		}
	}
}

// pass gives one message to another member and tells whether there was one.
func (a *applier) pass(s *sess, n *sub, w unreadPosting, ended bool) bool {
	p := session.At(a.index, a.n)
	to, ok := choose(n.filter.group.list(), uint64(p), s)
	if !ok || (!ended && to.sess.owner.Load() == nil) {
		return false
	}
	a.n++
	if !ended {
		a.unpost(n.filter, w)
		s.rec.Inflight = withoutPos(s.rec.Inflight, uint64(w.pos))
	}
	if to.sub.QoS > 0 {
		a.post(p, messageOf(w.msg), []*filter{to.sub.filter})
	}
	if to.sess.rec.Owner == a.node {
		a.emit(Event{Kind: EventAssigned, Client: to.sess.rec.Client, Pos: p})
	}
	return true
}

// unpost takes a posting back, and the message if it has no other.
func (a *applier) unpost(f *filter, w unreadPosting) {
	a.delOnce(postingKey(f.id, w.pos))
	whole := len(w.msg.Filters) == 1
	if whole {
		a.delOnce(messageKey(w.pos))
		a.state.stored.drop(recordSize(w.msg))
	}
	a.unposted = append(a.unposted, unposted{posting{f.id, w.pos}, whole})
	if a.moved == nil {
		a.moved = map[posting]struct{}{}
	}
	a.moved[posting{f.id, w.pos}] = struct{}{}
}

func withoutPos(l []*logpb.Inflight, p uint64) []*logpb.Inflight {
	for i, f := range l {
		if f.Pos == p {
			return append(l[:i:i], l[i+1:]...)
		}
	}
	return l
}

// waiting returns the messages that n's client was chosen for after a position.
func (a *applier) waiting(n *sub, after session.Pos) []unreadPosting {
	var out []unreadPosting
	after = max(after, n.since)
	if session.Pos(n.filter.last.Load()) <= after {
		return nil
	}
	err := eachPosting(a.db, n.filter.id, after, func(p session.Pos) (bool, error) {
		if _, gone := a.moved[posting{n.filter.id, p}]; gone {
			return true, nil
		}
		m, err := readMessage(a.db, p)
		if err == nil {
			out = append(out, unreadPosting{p, m})
		}
		return true, err
	})
	if err != nil && a.err == nil {
		a.err = err
	}
	for _, u := range a.unread[n.filter] {
		if _, gone := a.moved[posting{n.filter.id, u.pos}]; u.pos > after && !gone {
			out = append(out, u)
		}
	}
	return out
}

// eachPosting calls f for the postings of a filter after a position, in order,
// until it returns false.
func eachPosting(db pebble.Reader, filter uint64, after session.Pos, f func(session.Pos) (bool, error)) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: postingKey(filter, after+1), UpperBound: postingKey(filter+1, 0)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		_, p, err := parsePosting(it.Key())
		more := false
		if err == nil {
			more, err = f(p)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !more {
			break
		}
	}
	return it.Close()
}

var errNoMessage = errors.New("a posting has no message")

func readMessage(db pebble.Reader, p session.Pos) (*logpb.Message, error) {
	v, closer, err := db.Get(messageKey(p))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("%w (%d.%d)", errNoMessage, p.Index(), p.Item())
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	m := new(logpb.Message)
	// Unmarshal aliases nothing: Go's protobuf copies bytes fields.
	return m, proto.Unmarshal(bytes.Clone(v), m)
}
