package broker

import (
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/session"
)

// batch gathers the QoS 0 messages of one read, so that each receiver is locked
// and woken once for all of them. Until flush they alias the read buffer.
type batch struct {
	msgs  []session.Message
	runs  []run
	bytes int
	// index is what a peer must have applied before it delivers them: the client's
	// claim, and what of it went through the log. One that has applied a later claim
	// of the client id drops them.
	index uint64
	// wanted are those of msgs that peers want, peers which; used by forward alone.
	wanted []*session.Message
	peers  []uint64
}

// run is a number of messages to one topic, one after the other.
type run struct {
	t        *matched
	from, to int
	bytes    int
	expiring bool
}

// maxBatch bounds a batch.
const maxBatch = 512

func (b *batch) add(c *client, t *matched, p *codec.PublishPacket) {
	b.msgs = append(b.msgs, session.Message{
		Topic: t.Name, Payload: p.Payload, Properties: p.Properties, Publisher: c.id,
	})
	n := len(b.msgs)
	if last := len(b.runs) - 1; last < 0 || b.runs[last].t != t {
		b.runs = append(b.runs, run{t: t, from: n - 1})
	}
	r := &b.runs[len(b.runs)-1]
	r.to = n
	size := len(t.Name) + len(p.Payload) + len(p.Properties) + 16
	r.bytes += size
	b.bytes += size
	if p.HasExpiry {
		m := &b.msgs[n-1]
		m.Stamp = c.b.clock.millis()
		m.ExpiresAt = m.Stamp + int64(p.Expiry)*1000
		r.expiring = true
	}
}

// flush delivers the batch, and has PUBRECs of the same read logged.
func (c *client) flush() {
	for q, n := range c.in.counts {
		if n > 0 {
			c.b.n.in[q].Add(n)
		}
	}
	c.in.counts = [3]int64{}
	if bt := &c.in.batch; len(bt.msgs) > 0 {
		if c.b.fanOut(bt) {
			bt.msgs = nil // receivers hold them
		}
		clear(bt.msgs)
		clear(bt.runs)
		bt.msgs, bt.runs, bt.bytes = bt.msgs[:0], bt.runs[:0], 0
		if len(c.in.buf) <= smallBuf {
			*bt = batch{index: bt.index} // a quiet client keeps none
		}
	}
	if c.in.marks {
		c.in.marks = false
		c.submitMarks()
	}
}

// fanOut delivers a batch here, to the members that shared subscriptions choose,
// and to peers. It reports whether the messages were kept for any of them.
func (b *Broker) fanOut(bt *batch) (kept bool) {
	asOf := b.index.Load() // before any client gets any of it
	arenas := arenas{left: bt.bytes}
	if b.taps.Load() != nil {
		for i := range bt.msgs {
			b.tapped(&bt.msgs[i])
		}
	}
	for i := range bt.runs {
		r := &bt.runs[i]
		targets := b.match(r.t)
		if len(targets) > 0 {
			b.fanOutRun(bt, r, &arenas, targets, &kept)
		}
		arenas.left -= r.bytes
		for j := r.from; j < r.to; j++ {
			if picks := b.deps.Log.Shared(r.t.Name); len(picks) > 0 {
				bt.keep(&kept)
				b.deliverPicks(picks, &bt.msgs[j])
			}
		}
	}
	b.forward(bt, asOf)
	return kept
}

// keep copies what the messages alias, so that they may outlive the read
// buffer.
func (bt *batch) keep(kept *bool) {
	if *kept {
		return
	}
	*kept = true
	msgs := append([]session.Message(nil), bt.msgs...)
	own := make([]byte, 0, bt.bytes)
	for i := range msgs {
		m := &msgs[i]
		at := len(own)
		own = append(own, m.Payload...)
		m.Payload = own[at:len(own):len(own)]
		at = len(own)
		own = append(own, m.Properties...)
		m.Properties = own[at:len(own):len(own)]
	}
	bt.msgs = msgs
}

func (b *Broker) deliverPicks(picks []fsm.Pick, m *session.Message) {
	for _, p := range picks {
		if p.Node == b.deps.NodeID {
			b.DeliverRemoteTo(p.Client, m, p.Subscription)
		} else if p.Node != "" {
			b.deps.Routes.ForwardTo(p.Node, p.Client, m, p.Subscription)
		}
	}
}

// forward gives the batch to peers. fanOut has matched its topics.
func (b *Broker) forward(bt *batch, asOf uint64) {
	for i := range bt.runs {
		r := &bt.runs[i]
		if r.t.Value.wanted == 0 {
			continue
		}
		for j := r.from; j < r.to; j++ {
			bt.wanted, bt.peers = append(bt.wanted, &bt.msgs[j]), append(bt.peers, r.t.Value.wanted)
		}
	}
	if len(bt.wanted) > 0 {
		for _, m := range bt.wanted {
			if b.wants(m.Publisher, m.Publisher, m.Topic) {
				b.tell(Step{Kind: StepForwarded, Client: m.Publisher, Publisher: m.Publisher, Topic: m.Topic})
			}
		}
		b.deps.Routes.Forward(bt.wanted, bt.peers, bt.index, asOf)
		clear(bt.wanted)
		bt.wanted, bt.peers = bt.wanted[:0], bt.peers[:0]
	}
}

// frames are the packets of a run, for one kind of receiver.
type frames struct {
	bytes   []byte
	largest int
}

// arenas are what the frames of a batch are cut from, for each kind of receiver: a
// piece of memory for all runs, because with many topics each message is a run.
type arenas struct {
	of   [2][]byte // version 5 or not
	left int       // bytes of the runs that are to come, about
}

// fanOutRun gives a run to all its local receivers.
func (b *Broker) fanOutRun(bt *batch, r *run, arenas *arenas, targets []target, kept *bool) {
	var all [2]frames // as in arenas
	publisher := bt.msgs[r.from].Publisher
	for i := range targets {
		t := &targets[i]
		mg := t.of(publisher)
		if !mg.any {
			continue
		}
		c := t.c
		if r.expiring || b.wants(c.id, publisher, r.t.Name) || (c.version == 5 && (len(mg.ids()) > 0 || c.aliasMax > 0)) {
			bt.keep(kept)
			c.offerEach(bt.msgs[r.from:r.to], mg)
			continue
		}
		if mg.denied {
			b.m.dropped(dropDenied, r.to-r.from)
			continue
		}
		kind := 0
		if c.version == 5 {
			kind = 1
		}
		f := &all[kind]
		if f.bytes == nil {
			arena := &arenas.of[kind]
			if *arena == nil {
				*arena = make([]byte, 0, arenas.left)
			}
			*arena = f.encode(*arena, c.version, bt.msgs[r.from:r.to])
		}
		if c.maxPacket != 0 && f.largest > c.maxPacket {
			bt.keep(kept)
			c.offerEach(bt.msgs[r.from:r.to], mg)
			continue
		}
		c.offerFrames(f.bytes, r.to-r.from)
	}
}

// encode appends the packets to arena, and returns that.
func (f *frames) encode(arena []byte, version byte, msgs []session.Message) []byte {
	from := len(arena)
	for i := range msgs {
		at := len(arena)
		arena = codec.AppendPublish(arena, version, &msgs[i], codec.PublishOptions{})
		f.largest = max(f.largest, len(arena)-at)
	}
	f.bytes = arena[from:] // with the room behind it: the next frames of the arena
	return arena
}

// offerFrames queues encoded QoS 0 messages of one topic, which the client may receive.
func (c *client) offerFrames(frames []byte, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || c.out.closed {
		return
	}
	c.pushZero(piece{frames: frames, n: n})
	c.wake()
}

// offerEach queues QoS 0 messages of one topic that this receiver gets in a
// form of its own.
func (c *client) offerEach(msgs []session.Message, mg *merged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || c.out.closed {
		return
	}
	for i := range msgs {
		if c.accepts(&msgs[i], 0, mg) {
			c.pushZero(piece{m: &msgs[i], n: 1, ids: mg.ids()})
		}
	}
	c.wake()
}
