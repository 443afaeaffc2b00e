package broker

import (
	"runtime/debug"
	"time"

	"github.com/mqcluster/mqcluster/broker/codec"
)

// bufSize is about how many bytes are written at once.
const bufSize = 64 << 10

// wake starts the writer if there is none. The caller holds c.mu.
func (c *client) wake() {
	o := &c.out
	if o.writing || !o.open || o.closing || o.closed {
		return
	}
	o.writing = true
	c.wg.Go(c.write)
}

// wakeClosing is wake also before CONNACK, to close the socket.
func (c *client) wakeClosing() {
	o := &c.out
	if o.writing || o.hung || o.closed || o.parting {
		return
	}
	o.writing = true
	c.wg.Go(c.write)
}

// wakeIfSendable wakes the writer when an acknowledgement has made room.
func (c *client) wakeIfSendable() {
	o := &c.out
	if o.queue.len() > 0 || o.line.ready() || o.behind || len(o.feeds) > 0 {
		c.wake()
	}
}

// write is the writer: it lives while there is something to write.
func (c *client) write() {
	defer c.recovered()
	buf := c.b.bufs.Get().(*[]byte)
	b := (*buf)[:0]
	for {
		var w work
		b, w = c.next(b[:0])
		if len(b) > 0 && !c.send(b) || w == (work{}) && len(b) == 0 {
			break
		}
		if w.marks {
			c.submitMarks()
		}
		if w.read {
			c.catchUp()
		}
		if w.close {
			c.hangUp()
			break
		}
	}
	if cap(b) <= 2*bufSize {
		*buf = b[:0]
		c.b.bufs.Put(buf)
	}
}

// work is what the writer has to do besides writing.
type work struct{ marks, read, close bool }

// next takes what is to be written now. With nothing to write and no work there
// is no writer any more.
func (c *client) next(b []byte) ([]byte, work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.parting {
		c.out.writing = false
		return b, work{}
	}
	b = c.fill(b)
	w := work{close: c.out.closing}
	if !w.close {
		w.marks = len(c.out.marking) > 0
		w.read = len(b) < bufSize && c.mayRead()
	}
	if w.close || len(b) == 0 && w == (work{}) {
		c.out.writing, c.out.hung = false, w.close
	}
	return b, w
}

// send writes b. Nothing bounds the write itself: the sweeper cuts a connection
// whose socket stays full.
func (c *client) send(b []byte) bool {
	c.writeSince.Store(c.b.tick.Load())
	n, err := c.conn.Write(b)
	c.writeSince.Store(0)
	c.b.n.bytesOut.Add(int64(n))
	if err == nil {
		return true
	}
	c.mu.Lock()
	c.out.closing = true
	c.out.drop()
	c.out.control = nil
	c.out.writing, c.out.hung = false, true
	c.cond.Broadcast()
	c.mu.Unlock()
	c.abort()
	return false
}

// hangUp ends the connection after what was written: the client sees the end of
// the stream, and the reader stops. The socket is closed by linger, because
// closing it while the client still sends would destroy what it has not read.
func (c *client) hangUp() {
	cw, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || cw.CloseWrite() != nil || c.stopReading() != nil {
		c.abort()
	}
}

// stopReading ends the reader's wait: at once, or when it has had the time to take
// the client's last words.
func (c *client) stopReading() error {
	c.mu.Lock()
	more := c.lastWords()
	c.mu.Unlock()
	if more {
		return c.conn.SetReadDeadline(time.Now().Add(lastWordsTime))
	}
	return c.conn.SetReadDeadline(time.Unix(1, 0))
}

// lastWordsTime is how long a connection that was taken over is read for a
// DISCONNECT that came before, and had no turn yet.
const lastWordsTime = 100 * time.Millisecond

// linger reads what the client still sends until it closes its side, or sends
// nothing for a short while: it may have much to read and to answer before it
// comes to the DISCONNECT, and closing the socket would destroy that.
func (c *client) linger() {
	defer c.abort()
	if _, ok := c.conn.(interface{ CloseWrite() error }); !ok {
		return
	}
	buf := make([]byte, 512)
	for end := time.Now().Add(closeGrace); time.Now().Before(end); {
		if c.conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
			return
		}
		if _, err := c.conn.Read(buf); err != nil {
			return
		}
	}
}

// lingerTime is how long a client may be silent before it closes its side of a
// connection that the server has ended.
const lingerTime = 500 * time.Millisecond

// fill takes what may be written now, about bufSize at most.
func (c *client) fill(b []byte) []byte {
	o := &c.out
	if len(o.control) > 0 {
		b = append(b, o.control...)
		if cap(o.control) > 4<<10 {
			o.control = nil
		}
		o.control = o.control[:0]
	}
	if o.closing {
		return b
	}
	var sent [3]int
	for o.line.ready() && len(b) < bufSize {
		m := o.line.pop()
		o.queueBytes -= m.m.Size()
		if !m.gone {
			b = c.encode(b, &m.message)
			c.sent(&m.message)
			sent[m.qos]++
		}
	}
	leased := false
	for o.queue.len() > 0 && len(b) < bufSize && len(o.flights) < c.window {
		if o.queue.at(0).shared && !leased {
			// Without a lease this node may have been given up, and the message may be
			// another member's by now. The sweeper looks again.
			if leased = c.b.deps.Log.Leased(); !leased {
				c.unsure.Store(true)
				break
			}
		}
		m := o.queue.pop()
		if c.launch(&m) {
			o.queueBytes -= m.m.Size()
			b = c.encode(b, &m)
			c.sent(&m)
			sent[m.qos]++
		}
	}
	for o.zero.len() > 0 && len(b) < bufSize {
		p := o.zero.pop()
		o.zeroCount -= p.n
		o.zeroBytes -= p.size()
		c.b.stages.passed(c.b.stages.deliver, p.mark)
		var n int
		b, n = c.appendPiece(b, &p)
		sent[0] += n
	}
	for q, n := range sent {
		if n > 0 {
			c.b.n.out[q].Add(int64(n))
		}
	}
	if len(o.feeds) > 0 {
		c.cond.Broadcast()
	}
	return b
}

// sent notes that m is written: one of QoS 0 needs nothing more.
func (c *client) sent(m *message) {
	if m.mark != 0 {
		c.b.stages.passed(c.b.stages.deliver, m.mark)
		if f, ok := c.out.flights[m.id]; ok && m.qos > 0 {
			f.sentAt = c.b.stages.now()
			c.out.flights[m.id] = f
		}
	}
	c.tellMessage(StepDelivered, m, "")
	if m.traced && m.qos > 0 {
		if f, ok := c.out.flights[m.id]; ok {
			f.traced = true
			c.out.flights[m.id] = f
		}
	}
	if m.qos == 0 && m.owed {
		c.settle(m.pos)
	}
}

// launch gives m, which was popped from the queue, a packet id and makes it one of
// the flights. It reports false when m is not to be written now, or not at all.
func (c *client) launch(m *message) bool {
	o := &c.out
	if m.m.ExpiresAt != 0 && m.m.ExpiresAt <= c.b.clock.millis() && m.id == 0 {
		c.drop(dropExpired, m.m, m.pos)
		if m.owed {
			c.settle(m.pos)
		}
		if m.topic != nil {
			c.settleTopic(m.topic)
		}
		o.queueBytes -= m.m.Size()
		return false
	}
	resumed := m.id != 0
	if m.qos > 0 {
		if !resumed {
			m.id = o.nextID()
		}
		delete(o.taken, m.id)
		o.fly(m.id, flight{pos: m.pos, qos: m.qos, owed: m.owed, logged: m.logged, topic: m.topic})
	}
	waits := m.logged && !resumed
	if !waits && o.line.q.len() == 0 {
		return true
	}
	if n := o.line.push(m, !waits); waits {
		o.marking = append(o.marking, n)
	}
	return false
}

func (c *client) appendPiece(b []byte, p *piece) ([]byte, int) {
	if p.m != nil && p.m.ExpiresAt != 0 && p.m.ExpiresAt <= c.b.clock.millis() {
		c.drop(dropExpired, p.m, 0)
		return b, 0
	}
	c.tellPiece(StepDelivered, p, "")
	if p.m == nil {
		return append(b, p.frames...), p.n
	}
	o := codec.PublishOptions{Retain: p.retain, SubscriptionIDs: p.ids}
	c.remaining(p.m, &o)
	c.alias(p.m.Topic, &o)
	return codec.AppendPublish(b, c.version, p.m, o), 1
}

// reply queues a packet that nothing holds back, and has it written.
func (c *client) reply(f func(dst []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || c.out.closed {
		return
	}
	c.out.control = f(c.out.control)
	c.wake()
}

// recovered ends this connection, and nothing else, when a goroutine of it
// panics.
func (c *client) recovered() {
	r := recover()
	if r == nil {
		return
	}
	c.b.m.panics.Inc()
	c.b.log.Error("a connection panicked and was closed", "client", c.id, "err", r, "stack", string(debug.Stack()))
	c.abort()
}
