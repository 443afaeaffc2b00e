package fsm

import (
	"bytes"
	"slices"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// A subscription of QoS 1 or 2 is owed the retained messages that were there when
// it was made. They are not copied: the subscription remembers its position and
// the key of the last topic whose message was acknowledged, and whichever node
// serves the session reads on from there. What was replaced since comes by the
// queue, and what was cleared since is owed by nobody.

// replayed notes how far the retained messages of subscriptions have been
// acknowledged.
func (a *applier) replayed(s *sess, list []*logpb.Replayed) {
	if len(list) == 0 {
		return
	}
	for _, p := range list {
		old := s.find(p.Filter)
		if old == nil || old.replay == nil || old.replay.At != p.At {
			continue // subscribed anew since
		}
		n := *old
		n.replay = nil
		if !p.Done {
			if bytes.Compare(p.After, old.replay.After) <= 0 {
				continue
			}
			n.replay = &logpb.Replay{At: p.At, After: p.After}
		}
		a.attach(s, &n)
		a.putSubscription(s, &n)
	}
	a.forgetReplayed(s)
}

// forgetReplayed drops the records of retained messages whose delivery has ended
// and that no replay could send again.
func (a *applier) forgetReplayed(s *sess) {
	var over []session.Pos
	for p, o := range s.outs {
		if p.Retained() && session.OutState(o.State) == session.OutDone && !s.replays(p, o.Message.GetTopic()) {
			over = append(over, p)
		}
	}
	slices.Sort(over)
	for _, p := range over {
		delete(s.outs, p)
		a.del(outKey(s.rec.Client, p))
	}
}

// replays tells whether a replay under way still comes to the retained message
// of topic at p.
func (s *sess) replays(p session.Pos, topic string) bool {
	var key []byte
	for _, n := range s.list() {
		if n.replay == nil || p.Message() > session.Pos(n.replay.At) || !routing.Match(n.Filter, topic) {
			continue
		}
		if key == nil {
			key = routing.AppendTopicKey(nil, topic)
		}
		if bytes.Compare(key, n.replay.After) > 0 {
			return true
		}
	}
	return false
}

// outRetained moves a retained message of QoS 2 on. Its record carries the
// message until the client has it, because the topic's may be another by then,
// and is kept until no replay could send it again.
func (a *applier) outRetained(s *sess, m *logpb.Out) {
	p := session.Pos(m.Pos)
	rec := &logpb.Out{Pos: m.Pos, PacketId: m.PacketId, State: m.State, Message: m.Message}
	if old := s.outs[p]; rec.Message == nil && old != nil {
		rec.Message = &logpb.Message{Topic: old.Message.GetTopic()}
	}
	if session.OutState(m.State) == session.OutDone && !s.replays(p, rec.Message.GetTopic()) {
		delete(s.outs, p)
		a.del(outKey(s.rec.Client, p))
		return
	}
	if s.outs == nil {
		s.outs = map[session.Pos]*logpb.Out{}
	}
	s.outs[p] = rec
	a.setProto(outKey(s.rec.Client, p), rec)
}

// putSubscription stores n as it is now.
func (a *applier) putSubscription(s *sess, n *sub) {
	a.setProto(subscriptionKey(s.rec.Client, n.Filter), n.record())
}

func (n *sub) record() *logpb.SessionSubscription {
	return &logpb.SessionSubscription{
		Subscription: &logpb.Subscription{
			Filter: n.Filter, Qos: uint32(n.QoS), NoLocal: n.NoLocal,
			RetainAsPublished: n.RetainAsPublished, RetainHandling: uint32(n.RetainHandling), Id: n.ID,
		},
		FilterId: n.filter.id, Since: uint64(n.since), Replay: n.replay, Waits: n.zero,
	}
}
