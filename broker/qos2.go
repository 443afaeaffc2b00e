package broker

import (
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// submitMarks puts the states of outgoing QoS 2 messages into the log: packet
// ids before the first PUBLISH, PUBREC before PUBREL, PUBCOMP at leisure. What
// follows is sent when the log has them. It may block while the node's queue of
// proposals is full.
func (c *client) submitMarks() {
	// Marks are in the log in the order in which they were made, whoever of
	// reader, writer and progress submits them.
	c.markMu.Lock()
	defer c.markMu.Unlock()
	c.mu.Lock()
	o := &c.out
	marks, rels, sending := o.marks, o.rels, o.marking
	o.marks, o.rels, o.marking = nil, nil, nil
	for _, n := range sending {
		m := o.line.at(n)
		mark := &logpb.Out{Pos: uint64(m.pos), PacketId: uint32(m.id), State: uint32(session.OutSent)}
		if !m.owed {
			mark.Message = record(m.m)
		}
		marks = append(marks, mark)
	}
	c.mu.Unlock()
	if len(marks) == 0 {
		return
	}
	item := &logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: c.id, Epoch: c.epoch, Marks: marks}}}
	c.b.deps.Log.Submit(item, func(r fsm.Result) { c.marked(r, rels, sending) })
}

// marked sends what waited for its mark, and what comes behind it. sending are
// numbers in the line.
func (c *client) marked(r fsm.Result, rels []uint16, sending []uint64) {
	if r.Err != nil {
		// The next connection finds what the log has; this one cannot go on.
		c.shut(shutdown{reason: c.b.goneReason(), will: true})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing || o.closed {
		return
	}
	for _, id := range rels {
		o.control = codec.AppendAck(o.control, c.version, codec.TypePubrel, id, 0)
	}
	noted := r.Found[len(r.Found)-len(sending):]
	for i, n := range sending {
		m := o.line.at(n)
		m.ready = true
		if !noted[i] {
			// The queue was over its limit and has given it up meanwhile.
			m.gone = true
			c.tellMessage(StepDropped, &m.message, "its session's queue gave it up")
			delete(o.flights, m.id)
			c.settle(m.pos)
			continue
		}
		if m.topic != nil {
			c.settleTopic(m.topic) // from here on its own record brings it on
		}
	}
	c.wake()
}

func record(m *session.Message) *logpb.Message {
	return &logpb.Message{
		Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS), Retain: m.Retain,
		Publisher: m.Publisher, Stamp: m.Stamp, ExpiresAt: m.ExpiresAt,
	}
}

// received handles a PUBREC of the client.
func (c *client) received(id uint16, reason byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing {
		return
	}
	f, ok := o.flights[id]
	switch {
	case !ok || f.qos != 2:
		if reason < 0x80 {
			o.control = codec.AppendAck(o.control, c.version, codec.TypePubrel, id, reasonIDNotFound)
			c.wake()
		}
	case reason >= 0x80:
		// The client refuses it: there is no PUBREL [MQTT-4.3.3-4].
		c.tellFlight(id, &f, "refused by its receiver")
		c.land(id, f)
	case f.logged && !f.received:
		f.received = true
		o.flights[id] = f
		o.marks = append(o.marks, f.mark(id, session.OutReceived))
		o.rels = append(o.rels, id)
		c.in.marks = true
	default:
		f.received = true
		o.flights[id] = f
		o.control = codec.AppendAck(o.control, c.version, codec.TypePubrel, id, 0)
		c.wake()
	}
}

// completed handles a PUBCOMP of the client.
func (c *client) completed(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.out.flights[id]; ok && f.qos == 2 && !c.out.closing {
		c.b.stages.passed(c.b.stages.ack, f.sentAt)
		c.tellFlight(id, &f, "")
		c.land(id, f)
	}
}

// land ends the delivery of a QoS 2 message.
func (c *client) land(id uint16, f flight) {
	o := &c.out
	delete(o.flights, id)
	if f.logged {
		o.marks = append(o.marks, f.mark(id, session.OutDone))
		c.b.progress.add(c)
		if !f.owed {
			delete(o.kept, f.pos)
		}
	}
	if f.owed {
		c.settle(f.pos)
	}
	c.wakeIfSendable()
}

func (f *flight) mark(id uint16, s session.OutState) *logpb.Out {
	return &logpb.Out{Pos: uint64(f.pos), PacketId: uint32(id), State: uint32(s)}
}
