package main

import (
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// outbound is a stream at its publisher. A number is used until it is acknowledged,
// over as many connections as that takes, so every number up to the last
// acknowledged one was acknowledged.
type outbound struct {
	stream stream
	topic  string
	id     uint16 // of its packets: one of a stream is under way at a time
	every  time.Duration
	offset time.Duration // of its first message, so that they do not come together

	due     time.Time // zero: not started
	seq     uint32    // of the last message
	sent    int64     // when that was first sent
	tried   time.Time // when it was last sent
	pending bool      // it is not acknowledged
	resend  bool      // and has to be sent on this connection
	acked   uint32
}

// due writes the messages that are due and a PINGREQ after a silence.
func (c *client) due(now time.Time) error {
	start := c.w.startedAt()
	for _, o := range c.outbound {
		switch {
		case o.pending && o.resend:
		case o.pending && now.Sub(o.tried) > ackTimeout:
			return fmt.Errorf("no PUBACK for %v", ackTimeout)
		case o.pending || start.IsZero() || c.w.halted.Load():
			continue
		default:
			if o.due.IsZero() {
				o.due = start.Add(o.offset)
			}
			if now.Before(o.due) {
				continue
			}
			c.w.sample(lag, c.storms, o.due.UnixNano(), now)
			o.seq, o.sent, o.pending = o.seq+1, now.UnixNano(), true
			// Where it fell behind it does not catch up: a device sends what it reads now.
			o.due = o.due.Add(o.every * (1 + now.Sub(o.due)/o.every))
			c.w.pending.Add(1)
		}
		o.resend, o.tried = false, now
		p := rawmqtt.Publish{Topic: o.topic, QoS: 1, ID: o.id, Retain: o.retained(),
			Payload: header{o.stream, o.seq, o.sent}.payload()}
		c.out = append(c.out, p.Packet(version)...)
	}
	if len(c.out) == 0 && now.Sub(c.spoke) >= pingEvery {
		c.out = append(c.out, rawmqtt.PINGREQ<<4, 0)
	}
	return c.flush(now)
}

// retained tells whether the messages are states.
func (o *outbound) retained() bool { return o.stream%2 == 1 }

// next is when something will be due. The caller holds mu, so that a poke after a
// start is not overtaken by a deadline from before it.
func (c *client) next(now time.Time) time.Time {
	next := c.spoke.Add(pingEvery)
	earlier := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	start := c.w.startedAt()
	for _, o := range c.outbound {
		switch {
		case o.pending:
			earlier(o.tried.Add(ackTimeout + time.Millisecond))
		case start.IsZero() || c.w.halted.Load():
		case o.due.IsZero():
			earlier(start.Add(o.offset))
		default:
			earlier(o.due)
		}
	}
	return next
}

// acked takes a PUBACK.
func (c *client) acked(p *rawmqtt.Packet, now time.Time) error {
	if i := int(p.ID) - 1; i >= 0 && i < len(c.outbound) && c.outbound[i].pending {
		if p.Reason >= 0x80 {
			return fmt.Errorf("PUBACK 0x%02x", p.Reason)
		}
		o := c.outbound[i]
		c.mu.Lock()
		o.pending, o.acked = false, o.seq
		c.mu.Unlock()
		c.w.sample(acknowledged, c.storms, o.sent, now)
		c.w.pending.Add(-1)
		c.w.acked.Add(1)
		return nil
	}
	return fmt.Errorf("PUBACK for packet id %d, which is not under way", p.ID)
}
