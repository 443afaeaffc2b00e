package broker

import (
	"github.com/mqcluster/mqcluster/broker/codec"
)

// ack is an acknowledgement that a message or PUBREL of the client waits for.
type ack struct {
	id     uint16
	typ    byte
	reason byte
	ready  bool
}

// expectAck takes the next place in the order in which acknowledgements are
// written [MQTT-4.6.0-2, -3].
func (c *client) expectAck(qos byte, id uint16) uint64 {
	typ := codec.TypePuback
	if qos == 2 {
		typ = codec.TypePubrec
	}
	return c.expect(typ, id)
}

func (c *client) expect(typ byte, id uint16) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	o.acks.push(ack{id: id, typ: typ})
	return o.ackBase + uint64(o.acks.len()) - 1
}

// settleAck makes an acknowledgement ready, and writes all that are now at the
// head of the order.
func (c *client) settleAck(number uint64, reason byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing || o.closed {
		return
	}
	a := o.acks.at(int(number - o.ackBase))
	a.ready, a.reason = true, reason
	was := o.acks.len()
	for o.acks.len() > 0 && o.acks.at(0).ready {
		a := o.acks.pop()
		o.ackBase++
		o.free(&a)
		o.control = codec.AppendAck(o.control, c.version, a.typ, a.id, a.reason)
	}
	if o.acks.len() < was {
		if c.busy.Load() {
			c.cond.Broadcast()
		}
		c.wake()
	}
}

// free gives quota back for an acknowledgement that ends a delivery.
func (o *outgoing) free(a *ack) {
	switch {
	case a.typ == codec.TypePuback:
		o.quota = max(o.quota-1, 0)
	case a.typ == codec.TypePubcomp, a.typ == codec.TypePubrec && a.reason >= 0x80:
		if _, ok := o.double[a.id]; ok {
			delete(o.double, a.id)
			o.quota = max(o.quota-1, 0)
		}
	}
}
