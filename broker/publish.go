package broker

import (
	"errors"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/routing"
)

// publish handles PUBLISH.
func (c *client) publish(frame []byte) error {
	var p codec.PublishPacket
	if err := codec.ParsePublish(frame, c.version, &p); err != nil {
		return err
	}
	c.in.counts[p.QoS]++
	if p.QoS > *c.b.cfg.MaxQoS {
		return &codec.Error{Reason: reasonQoSNotSupported, Text: "the QoS is not supported"} // [MQTT-3.2.2-11]
	}
	r := c.may()
	c.slow(&r.bounds, len(frame))
	if p.QoS > 0 {
		c.flush()
		if err := c.admitPublish(&p); err != nil {
			return err
		}
	}
	t, err := c.topicOf(&p)
	if err != nil {
		return err
	}
	m := &t.Value
	if m.rights != r {
		m.rights, m.deep = r, c.tooDeep(t.Name)
		m.may = !reserved(t.Name) && !m.deep && r.MayPublish(t.Name)
	}
	if !m.may {
		return c.denied(&p, t)
	}
	if m := c.b.meter.Load(); m != nil {
		m.count(t.Name, len(p.Payload))
	}
	scarce := c.b.deps.Scarce()
	if (p.QoS > 0 || p.Retain) && scarce {
		if refused, err := c.refuseScarce(t.Name, &p); refused {
			return err
		}
	}
	traced := c.tellPublish(StepAccepted, t.Name, &p, "")
	if h := c.b.heavy.Load(); h != nil {
		h.count(c.id, t.Name)
	}
	if p.QoS == 0 && !p.Retain && (scarce || !c.b.deps.Log.Queues(t.Name)) && !c.zeroUnderWay() {
		c.in.batch.add(c, t, &p)
		c.taken()
		if len(c.in.batch.msgs) >= maxBatch {
			c.flush()
		}
		return nil
	}
	c.flush()
	c.propose(t, &p, traced)
	c.taken()
	return nil
}

// taken times the first message of a read, if it is to be timed.
func (c *client) taken() {
	c.b.stages.passed(c.b.stages.receive, c.in.mark)
	c.in.mark = 0
}

// zeroUnderWay tells whether QoS 0 messages of this client are in the log: a
// later one follows them there, so as not to overtake them.
func (c *client) zeroUnderWay() bool {
	if !c.in.zeroLog {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.zeroLog = c.out.zeroLog > 0
	c.in.batch.index = max(c.in.batch.index, c.out.zeroAt)
	return c.in.zeroLog
}

// topicOf resolves the topic alias [MQTT-3.3.2-8..12].
func (c *client) topicOf(p *codec.PublishPacket) (*matched, error) {
	in := &c.in
	if !p.HasAlias {
		return c.checked(in.topics.GetBytes(p.Topic))
	}
	if p.Alias == 0 || int(p.Alias) > c.b.cfg.TopicAliasMaximum {
		return nil, &codec.Error{Reason: reasonAliasInvalid, Text: "the topic alias is out of range"}
	}
	if len(p.Topic) == 0 {
		topic, ok := in.aliases[p.Alias]
		if !ok {
			return nil, &codec.Error{Reason: reasonProtocolError, Text: "the topic alias is not set"}
		}
		return in.topics.Get(topic), nil
	}
	t, err := c.checked(in.topics.GetBytes(p.Topic))
	if err != nil {
		return nil, err
	}
	if in.aliases == nil {
		in.aliases = map[uint16]string{}
	}
	in.aliases[p.Alias] = t.Name
	return t, nil
}

func (c *client) checked(t *matched) (*matched, error) {
	if !t.Value.valid {
		if routing.ValidTopic(t.Name) != nil {
			return nil, &codec.Error{Reason: reasonTopicInvalid, Text: "the topic is not valid"}
		}
		t.Value.valid = true
	}
	return t, nil
}

// admitPublish counts a QoS 1 or 2 message against our Receive Maximum
// [MQTT-3.3.4-7]. Clients before version 5 know none: they are read no further.
func (c *client) admitPublish(p *codec.PublishPacket) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	again := false
	if p.QoS == 2 {
		_, again = o.double[p.PacketID]
	}
	limit := c.incoming
	if !again {
		if c.version == 5 && o.quota >= limit {
			c.refused(refusedInflight)
			return &codec.Error{Reason: reasonReceiveMaximum, Text: "more messages are unacknowledged than the Receive Maximum allows"}
		}
		o.quota++
		if p.QoS == 2 {
			if o.double == nil {
				o.double = map[uint16]struct{}{}
			}
			o.double[p.PacketID] = struct{}{}
		}
	}
	c.waitFor(func() bool { return o.acks.len() < limit })
	return nil
}

// waitFor blocks the reader until ok holds or the connection ends. The caller
// holds c.mu.
func (c *client) waitFor(ok func() bool) {
	if ok() {
		return
	}
	c.busy.Store(true)
	for !ok() && !c.out.closing {
		c.cond.Wait()
	}
	c.lastIn.Store(c.b.tick.Load())
	c.busy.Store(false)
}

// denied handles a message that the client may not publish.
func (c *client) denied(p *codec.PublishPacket, t *matched) error {
	c.b.m.dropped(dropPublishDenied, 1)
	c.tellPublish(StepDropped, t.Name, p, dropPublishDenied)
	if t.Value.deep {
		c.refused(refusedLevels, "topic", shown(t.Name))
	} else {
		c.refused(refusedPublish, "topic", shown(t.Name))
	}
	if c.version < 5 && c.b.cfg.DisconnectDenied {
		return errDenied
	}
	if p.QoS == 0 {
		return nil
	}
	reason := reasonNotAuthorized
	if t.Value.deep {
		reason = reasonTopicInvalid
	}
	if c.version < 5 {
		// There is no way to tell: it is acknowledged and dropped.
		reason = reasonSuccess
	}
	c.settleAck(c.expectAck(p.QoS, p.PacketID), reason)
	return nil
}

// refuseScarce refuses a message that would have to be stored while the disks are
// nearly full. What makes room goes on: a retained message that clears another.
// QoS 0 goes on and is not retained. A QoS 2 message that comes again goes on as
// well, because the first one may have been taken.
func (c *client) refuseScarce(topic string, p *codec.PublishPacket) (refused bool, err error) {
	switch {
	case p.Retain && len(p.Payload) == 0, p.QoS == 2 && p.Dup:
		return false, nil
	case p.QoS == 0:
		p.Retain = false
		return false, nil
	}
	c.b.m.dropped(dropScarce, 1)
	c.tellPublish(StepDropped, topic, p, dropScarce)
	if c.version < 5 {
		// There is no way to tell but by no acknowledgement.
		return true, errScarce
	}
	c.settleAck(c.expectAck(p.QoS, p.PacketID), reasonQuota)
	return true, nil
}

var errScarce = errors.New("the disks of the cluster are nearly full: no message is stored")

var errDenied = errors.New("the client published what it may not")
