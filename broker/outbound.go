package broker

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// outgoing is what is on its way to a client.
//
// Messages take one of two queues: first for QoS 0, then for the rest, because
// the client's Receive Maximum holds back only those. What the log keeps a queue
// for ("owed") is in memory only while the connection keeps up; when it does
// not, the connection is behind, and the writer reads the log instead.
type outgoing struct {
	open    bool // CONNACK is written: the writer may run
	writing bool // a writer runs
	closing bool // nothing but control is written any more, then the socket is closed
	hung    bool // the last writer has done so, or failed
	parting bool // closing, and the goodbye waits for the session's release
	freed   bool // the session's release was submitted
	cut     bool // the socket is being closed without further ado
	closed  bool // the connection is over
	lost    bool // the session has a newer connection
	end     shutdown

	control []byte // whole packets that nothing holds back

	zero      fifo[piece]
	zeroCount int
	zeroBytes int

	queue      fifo[message]
	queueBytes int // of queue and line

	// feeds are the subscribes whose retained messages are being read. What the
	// log publishes after them waits in the last one's held queues, or in the log.
	feeds []*feed

	// behind: owed messages are read from the log after read. latest is the
	// newest owed one that was not queued because of that.
	behind bool
	read   session.Pos
	latest session.Pos
	owed   ledger
	spans  []session.Span // where messages of QoS 0 wait
	chunk  int            // how many messages are read from the log at once

	cursor   session.Pos // as last reported
	reported bool        // waits in Broker.progress
	// replays are of the feeds that the session is owed; replayed: some moved.
	replays  []*replay
	replayed bool
	nextFeed time.Time // no retained messages before

	// resumed are messages that an earlier connection sent, by position; again are
	// retained ones.
	resumed, again map[session.Pos]session.Out
	// taken are the packet ids that an earlier connection gave and this one has not
	// used yet, of QoS 1 with their position.
	taken map[uint16]session.Pos

	lastID  uint16
	flights map[uint16]flight
	line    line
	marking []uint64                 // numbers in line of those whose marks are to be made
	marks   []*logpb.Out             // later states that are to be in the log
	rels    []uint16                 // whose PUBREL follows when marks are
	kept    map[session.Pos]struct{} // retained messages whose state is in the log
	aliases map[string]uint16

	acks    fifo[ack]
	ackBase uint64              // number of the first in acks
	quota   int                 // incoming QoS 1 and 2 that are not acknowledged
	zeroLog int                 // incoming QoS 0 that are under way in the log
	zeroAt  uint64              // index of the last of them
	double  map[uint16]struct{} // incoming QoS 2 ids that quota counts
}

// piece is one or more encoded messages of QoS 0, or one that is yet to be
// encoded.
type piece struct {
	frames []byte // shared, never written to
	n      int
	m      *session.Message
	ids    []uint32
	retain bool
	mark   int64 // when it was queued, if it is timed
}

// maxPiece bounds how far a piece is extended: the writer takes whole ones.
const maxPiece = 16 << 10

// extend makes q, which comes next, a part of p where it lies behind it in memory, as
// the messages of one read do.
func (p *piece) extend(q *piece) bool {
	n := len(p.frames)
	if p.m != nil || q.m != nil || len(q.frames) == 0 || n == cap(p.frames) || n > maxPiece || &p.frames[:n+1][n] != &q.frames[0] {
		return false
	}
	p.frames, p.n = p.frames[:n+len(q.frames)], p.n+q.n
	return true
}

func (p *piece) size() int {
	if p.m != nil {
		return p.m.Size()
	}
	return len(p.frames)
}

// message is one of QoS 1 or 2, or one of QoS 0 that the log kept.
type message struct {
	m      *session.Message
	frame  []byte // shared encoding, to be copied and patched; nil: encode
	pos    session.Pos
	ids    []uint32
	id     uint16 // 0: none yet
	qos    byte
	dup    bool
	retain bool
	owed   bool // by the log's queue, at pos
	logged bool // the state of QoS 2 is kept in the log, at pos
	traced bool // somebody wants to know what becomes of it
	shared bool // a shared subscription chose this client
	topic  *owedTopic
	mark   int64 // when it was queued, if it is timed
}

// flight is a message that was sent and not acknowledged.
type flight struct {
	pos      session.Pos
	qos      byte
	received bool // PUBREC came
	owed     bool
	logged   bool
	traced   bool       // somebody wanted to know that it was delivered
	topic    *owedTopic // of QoS 1
	sentAt   int64      // if it is timed
}

// drop forgets all that is queued.
func (o *outgoing) drop() {
	o.dropLine()
	o.zero, o.queue = fifo[piece]{}, fifo[message]{}
	o.zeroCount, o.zeroBytes, o.queueBytes = 0, 0, 0
	o.rels = nil
}

// pushZero queues messages of QoS 0; those that do not fit are dropped.
func (c *client) pushZero(p piece) {
	o := &c.out
	size := p.size()
	if o.zeroCount+p.n > c.b.cfg.MaxQueuedMessages || o.zeroBytes+size > c.b.cfg.MaxQueuedBytes && o.zeroCount > 0 {
		c.b.m.dropped(dropQueueFull, p.n)
		c.tellPiece(StepDropped, &p, dropQueueFull)
		return
	}
	c.tellPiece(StepQueued, &p, "")
	p.mark = c.b.stages.mark()
	o.zeroCount += p.n
	o.zeroBytes += size
	if n := o.zero.len(); n > 0 && len(o.feeds) == 0 && o.zero.at(n-1).extend(&p) {
		return
	}
	if n := len(o.feeds); n > 0 {
		o.feeds[n-1].zero.push(p)
		return
	}
	o.zero.push(p)
}

// full tells whether the queue of QoS 1 and 2 has no room for m.
func (c *client) full(m *session.Message) bool {
	return c.out.queued() >= c.b.cfg.MaxQueuedMessages ||
		c.out.queueBytes+m.Size() > c.b.cfg.MaxQueuedBytes && c.out.queued() > 0
}

func (o *outgoing) queued() int {
	n := o.queue.len()
	for _, f := range o.feeds {
		n += f.queue.len()
	}
	return n
}

// pushQueue queues a message of QoS 1 or 2.
func (c *client) pushQueue(m message) {
	o := &c.out
	m.traced = c.b.wants(c.id, m.m.Publisher, m.m.Topic)
	c.tellMessage(StepQueued, &m, "")
	m.mark = c.b.stages.mark()
	o.queueBytes += m.m.Size()
	if n := len(o.feeds); n > 0 && !m.owed {
		o.feeds[n-1].queue.push(m)
		return
	}
	o.queue.push(m)
}

// take notes that the log's message at pos is on its way to the client.
func (c *client) take(pos session.Pos) {
	c.out.owed.add(pos)
	c.out.read = max(c.out.read, pos)
}

// settle notes that the log's message at pos needs nothing more.
func (c *client) settle(pos session.Pos) {
	c.out.owed.done(pos)
	c.moved()
}

// position is the cursor: everything owed at or before it is settled.
func (o *outgoing) position() session.Pos {
	p := o.read
	if first, ok := o.owed.first(); ok {
		p = min(p, first-1)
	}
	return max(p, o.cursor)
}

// moved has the cursor and the replays reported soon if they moved.
func (c *client) moved() {
	o := &c.out
	if o.reported || o.closed || o.position() <= o.cursor && !o.replayed {
		return
	}
	o.reported = true
	c.b.progress.add(c)
}

// nextID returns a free packet id.
func (o *outgoing) nextID() uint16 {
	for {
		o.lastID++
		if o.lastID == 0 {
			continue
		}
		if _, used := o.flights[o.lastID]; used {
			continue
		}
		if _, used := o.taken[o.lastID]; used {
			continue
		}
		return o.lastID
	}
}

func (o *outgoing) fly(id uint16, f flight) {
	if o.flights == nil {
		o.flights = map[uint16]flight{}
	}
	o.flights[id] = f
}

// acknowledged handles a PUBACK of the client.
func (c *client) acknowledged(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.out.flights[id]
	if !ok || f.qos != 1 {
		return // a late one; harmless
	}
	delete(c.out.flights, id)
	c.b.stages.passed(c.b.stages.ack, f.sentAt)
	c.tellFlight(id, &f, "")
	if f.owed {
		c.settle(f.pos)
	}
	if f.topic != nil {
		c.settleTopic(f.topic)
	}
	c.wakeIfSendable()
}

// inflight lists what a later connection is to send first, and what it is to
// leave out.
func (o *outgoing) inflight() []*logpb.Inflight {
	var list []*logpb.Inflight
	for id, f := range o.flights {
		if f.qos == 1 && (f.owed || f.topic != nil) {
			list = append(list, &logpb.Inflight{Pos: uint64(f.pos), PacketId: uint32(id)})
		}
	}
	// Sent by an earlier connection, and not again by this one.
	for id, pos := range o.taken {
		if pos != 0 {
			list = append(list, &logpb.Inflight{Pos: uint64(pos), PacketId: uint32(id)})
		}
	}
	for pos, r := range joined(o.resumed, o.again) {
		if r.State == session.OutDone && r.PacketID == 0 {
			list = append(list, &logpb.Inflight{Pos: uint64(pos)})
		}
	}
	// What was settled before something older is above the cursor: packet id 0
	// tells the next connection that it is not owed any more.
	for _, at := range o.owed.items[o.owed.head:] {
		if at.done {
			list = append(list, &logpb.Inflight{Pos: uint64(at.pos)})
		}
	}
	for _, p := range o.replays {
		for i := range p.under.len() {
			if t := *p.under.at(i); t.done && t.pos != 0 {
				list = append(list, &logpb.Inflight{Pos: uint64(t.pos)})
			}
		}
	}
	slices.SortFunc(list, func(a, b *logpb.Inflight) int { return cmp.Compare(a.Pos, b.Pos) })
	return list
}

// joined yields the entries of several maps.
func joined[K comparable, V any](all ...map[K]V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, m := range all {
			for k, v := range m {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// encode appends m as it goes to c.
func (c *client) encode(dst []byte, m *message) []byte {
	at := len(dst)
	if m.frame != nil {
		dst = append(dst, m.frame...)
		f := dst[at:]
		o := codec.IDOffset(f)
		f[o], f[o+1] = byte(m.id>>8), byte(m.id)
		if m.dup {
			f[0] |= 0x08
		}
		return dst
	}
	o := codec.PublishOptions{QoS: m.qos, Dup: m.dup, Retain: m.retain, PacketID: m.id, SubscriptionIDs: m.ids}
	c.remaining(m.m, &o)
	c.alias(m.m.Topic, &o)
	return codec.AppendPublish(dst, c.version, m.m, o)
}

// remaining sets what is left of the message expiry interval
// [MQTT-3.3.2-6].
func (c *client) remaining(m *session.Message, o *codec.PublishOptions) {
	if m.ExpiresAt == 0 || c.version < 5 {
		return
	}
	left := max(m.ExpiresAt-c.b.clock.millis(), 1)
	o.Expiry, o.HasExpiry = uint32((left+999)/1000), true
}

// alias lets the first topics of a connection be written once only.
func (c *client) alias(topic string, o *codec.PublishOptions) {
	if c.aliasMax == 0 {
		return
	}
	out := &c.out
	if n, ok := out.aliases[topic]; ok {
		o.Alias, o.OmitTopic = n, true
		return
	}
	if len(out.aliases) >= c.aliasMax {
		return
	}
	if out.aliases == nil {
		out.aliases = map[string]uint16{}
	}
	n := uint16(len(out.aliases) + 1)
	out.aliases[topic] = n
	o.Alias = n
}

// fits tells whether the client takes a packet as large as m's.
func (c *client) fits(m *session.Message, qos byte, ids []uint32) bool {
	if c.maxPacket == 0 {
		return true
	}
	if m.Size()+16+len(ids)*5 <= c.maxPacket {
		return true
	}
	o := codec.PublishOptions{QoS: qos, PacketID: 1, SubscriptionIDs: ids}
	if c.version == 5 && m.ExpiresAt != 0 {
		o.HasExpiry, o.Expiry = true, 1
	}
	if c.aliasMax > 0 {
		o.Alias = 1 // it may be the one that sets it
	}
	return codec.PublishSize(c.version, m, o) <= c.maxPacket
}
