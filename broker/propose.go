package broker

import (
	"errors"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// submission is a Publish on its way through the log. It is used again after
// done, so that a message costs few allocations.
type submission struct {
	b      *Broker
	item   logpb.Item
	kind   logpb.Item_Publish
	pub    logpb.Publish
	expiry uint32
	done   func(fsm.Result)

	c      *client
	number uint64 // of the ack; unused at QoS 0
	traced bool   // what becomes of it is told
	mark   int64  // when it was submitted, if it is timed
}

func newSubmission(b *Broker) *submission {
	s := &submission{b: b}
	s.item.Kind = &s.kind
	s.kind.Publish = &s.pub
	s.done = s.finish
	return s
}

// propose puts a message into the log. It may block while the node's queue of
// proposals is full.
func (c *client) propose(t *matched, p *codec.PublishPacket, traced bool) {
	s := c.b.pubs.Get().(*submission)
	s.c, s.traced = c, traced
	s.pub.Client, s.pub.Epoch, s.pub.Topic = c.id, c.epoch, t.Name
	s.pub.Payload, s.pub.Properties = p.Payload, p.Properties
	s.pub.Qos, s.pub.Retain, s.pub.PacketId = uint32(p.QoS), p.Retain, 0
	s.pub.Expiry = nil
	if p.HasExpiry {
		s.expiry = p.Expiry
		s.pub.Expiry = &s.expiry
	}
	switch p.QoS {
	case 0:
		c.mu.Lock()
		c.out.zeroLog++
		c.in.zeroLog = true
		c.waitFor(func() bool { return c.out.zeroLog <= c.b.cfg.ReceiveMaximum })
		c.mu.Unlock()
	case 2:
		s.pub.PacketId = uint32(p.PacketID)
		fallthrough
	default:
		s.number = c.expectAck(p.QoS, p.PacketID)
	}
	s.mark = c.b.stages.mark()
	c.b.deps.Log.Submit(&s.item, s.done)
}

// finish acknowledges what the log took.
func (s *submission) finish(r fsm.Result) {
	c, number, qos, topic, traced := s.c, s.number, s.pub.Qos, s.pub.Topic, s.traced
	s.c, s.pub.Payload, s.pub.Properties, s.pub.Expiry = nil, nil, nil, nil
	s.b.stages.passed(s.b.stages.commit, s.mark)
	s.b.pubs.Put(s)
	if traced {
		c.tellOutcome(topic, byte(qos), r)
	}
	if qos == 0 {
		c.zeroDone(r)
		return
	}
	switch {
	case errors.Is(r.Err, fsm.ErrNotProposed):
		if c.version < 5 {
			c.shut(shutdown{will: true})
			return
		}
		c.settleAck(number, reasonQuota)
	case r.Err != nil:
		c.shut(c.b.sendAway())
	case c.version == 5 && !r.Matched && !r.Duplicate && c.b.nobody(topic):
		c.settleAck(number, reasonNoMatch)
	default:
		c.settleAck(number, reasonSuccess)
	}
}

// nobody tells whether it is certain that no client anywhere has a live
// subscription that matches topic. It runs on the goroutine that applies.
func (b *Broker) nobody(topic string) bool {
	m := b.delivered.match // the outcome follows the message
	if m == nil || b.delivered.topic != topic {
		m = new(topicMatch)
	}
	return len(b.matchTopic(m, topic)) == 0 && m.wanted == 0
}

// zeroDone notes that a QoS 0 message came through the log, or was lost.
func (c *client) zeroDone(r fsm.Result) {
	if r.Err != nil {
		c.b.m.dropped(dropUnproposed, 1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.zeroLog--
	c.out.zeroAt = max(c.out.zeroAt, r.Pos.Index())
	if c.busy.Load() {
		c.cond.Broadcast()
	}
}

// released handles a PUBREL of the client.
func (c *client) released(id uint16) error {
	c.flush()
	c.mu.Lock()
	c.waitFor(func() bool { return c.out.acks.len() < 2*c.b.cfg.ReceiveMaximum })
	c.mu.Unlock()
	number := c.expect(codec.TypePubcomp, id)
	item := &logpb.Item{Kind: &logpb.Item_Rel{Rel: &logpb.Rel{Client: c.id, Epoch: c.epoch, PacketId: uint32(id)}}}
	c.b.deps.Log.Submit(item, func(r fsm.Result) {
		switch {
		case r.Err != nil:
			// Without PUBCOMP the client asks again.
			c.shut(c.b.sendAway())
		case len(r.Found) > 0 && !r.Found[0] && c.version == 5:
			c.settleAck(number, reasonIDNotFound)
		default:
			c.settleAck(number, reasonSuccess)
		}
	})
	return nil
}
