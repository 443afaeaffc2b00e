package broker

import (
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/session"
)

// own makes c the connection of its session. It runs where the claim is
// applied: what the log publishes after it reaches the session.
func (c *client) own(cl *fsm.Claimed) {
	b := c.b
	c.mu.Lock()
	c.epoch, c.logged, c.horizon, c.left = uint64(cl.Epoch), cl.Logged, cl.Horizon, cl.Left
	c.in.batch.index = cl.Epoch.Index()
	c.resumeFrom(cl)
	c.mu.Unlock()
	b.mu.Lock()
	old := b.clients[c.id]
	b.clients[c.id] = c
	b.mu.Unlock()
	now := b.n.connected.Add(1)
	b.comings.note(ClientEvent{Connected: true, Client: c.id, User: c.user, Remote: c.info.Remote})
	for {
		peak := b.n.peak.Load()
		if now <= peak || b.n.peak.CompareAndSwap(peak, now) {
			break
		}
	}
	if old != nil {
		// Its EventEnded came before; this is for a log that forgets it.
		b.detach(old)
		old.shut(shutdown{reason: reasonTakenOver, lost: true, will: true})
	}
	if len(cl.Subscriptions) > 0 {
		b.place(c, cl.Subscriptions, true)
	}
}

// resumeFrom puts the outgoing side where the session is. The caller holds
// c.mu.
func (c *client) resumeFrom(cl *fsm.Claimed) {
	o := &c.out
	o.chunk = firstChunk
	o.read, o.cursor = cl.Cursor, cl.Cursor
	o.behind = cl.Present
	o.spans = cl.Zero
	if n := len(cl.Inflight) + len(cl.Outbound); n > 0 {
		o.resumed, o.again = map[session.Pos]session.Out{}, map[session.Pos]session.Out{}
		o.taken = make(map[uint16]session.Pos, n)
	}
	for _, f := range cl.Inflight {
		out := session.Out{Pos: f.Pos, PacketID: f.PacketID}
		if f.PacketID == 0 {
			out.State = session.OutDone
		} else {
			o.taken[f.PacketID] = f.Pos
		}
		o.resume(out)
	}
	for _, out := range cl.Outbound {
		c.resumeOut(out)
	}
	c.resumeReplays(cl.Replays)
}

// resume notes what an earlier connection sent.
func (o *outgoing) resume(out session.Out) {
	if out.Pos.Retained() {
		o.again[out.Pos] = out
	} else {
		o.resumed[out.Pos] = out
	}
}

// resumeOut goes on with a QoS 2 message [MQTT-4.4.0-1].
func (c *client) resumeOut(out session.Out) {
	o := &c.out
	if out.Message != nil && !out.Pos.Retained() {
		// Its queue has given it up while it was under way: its record carries it.
		o.taken[out.PacketID] = 0
		c.pushQueue(message{m: out.Message, pos: out.Pos, id: out.PacketID, qos: 2, dup: true, logged: true})
		return
	}
	own := out.Pos.Retained()
	o.resume(out)
	if own && out.State != session.OutDone {
		o.keep(out.Pos)
	}
	switch out.State {
	case session.OutReceived:
		o.fly(out.PacketID, flight{pos: out.Pos, qos: 2, received: true, owed: !own, logged: true})
		o.control = codec.AppendAck(o.control, c.version, codec.TypePubrel, out.PacketID, 0)
		if !own {
			o.owed.add(out.Pos)
		}
	case session.OutSent:
		o.taken[out.PacketID] = 0
		if own {
			// Its record carries it, because the topic's message may be another now.
			c.pushQueue(message{
				m: out.Message, pos: out.Pos, id: out.PacketID, qos: 2, dup: true, retain: true, logged: true,
			})
		}
	}
}
