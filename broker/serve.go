package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// smallBuf is what a quiet connection reads into. A client that fills it reads
// into twice as much, up to ownBuf, and one that fills that, too, into a pooled
// buffer of bufSize, until it is quiet again.
const (
	smallBuf = 256
	ownBuf   = 4 << 10
)

// incoming is what the goroutine that reads knows.
type incoming struct {
	small  [smallBuf]byte
	pooled *[]byte // what buf is of, if it is pooled
	buf    []byte
	r, w   int  // buf[r:w] is unread
	full   bool // the last read filled buf
	quiet  int  // reads in a row that a small buffer would have held, since buf is larger

	aliases map[uint16]string
	topics  matches
	batch   batch
	zeroLog bool // QoS 0 messages may be under way in the log
	marks   bool // PUBRECs of this batch wait to be logged; under client.mu

	counts [3]int64 // messages by QoS that are not in counters yet
	mark   int64    // when the last read was, if its first message is to be timed

	connected  bool
	disconnect bool           // DISCONNECT came
	gone       bool           // the client closed the connection
	release    *logpb.Release // what DISCONNECT says of it
}

// errDone ends a read loop in an orderly way.
var errDone = errors.New("the connection has ended")

// Serve greets the client of conn and returns what serves it until the connection
// is over, and closes it; nil if it is over already. Both block. rest may run on
// another goroutine, and must run.
func (b *Broker) Serve(ctx context.Context, conn net.Conn, info ConnInfo) (rest func()) {
	c := newClient(b, conn, info)
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		_ = conn.Close()
		return nil
	}
	b.conns[c] = struct{}{}
	b.mu.Unlock()
	b.n.sockets.Add(1)
	c.unhook = context.AfterFunc(ctx, func() { c.shut(b.sendAway()) })
	if !c.greet() {
		c.over()
		return nil
	}
	return c.converse
}

// greet handles everything up to CONNACK and tells whether the client is in.
func (c *client) greet() (ok bool) {
	defer c.recovered()
	c.in.buf = c.in.small[:]
	_ = c.conn.SetReadDeadline(time.Now().Add(c.b.cfg.ConnectTimeout))
	err := c.connect()
	if e, broke := errors.AsType[*codec.Error](err); broke {
		c.blame(e.Text)
	}
	ok = err == nil
	c.info.Greeted, c.info.Authenticated = nil, nil // of no more use, and they hold memory
	return ok
}

// converse serves a client that is in. A quiet client's goroutine waits in here, so
// what stands on the stack counts for each of them.
func (c *client) converse() {
	defer c.over()
	defer c.recovered()
	c.read()
}

// over ends what began with Serve.
func (c *client) over() {
	c.finish()
	c.b.accounts.close(c.account)
	c.unhook()
	c.b.mu.Lock()
	delete(c.b.conns, c)
	c.b.mu.Unlock()
	close(c.done)
}

// read handles packets until the connection ends.
func (c *client) read() {
	for {
		err := c.handleAll()
		c.flush()
		if err != nil {
			c.refuse(err)
			return
		}
		if c.stopped() {
			return
		}
		if err := c.receive(); err != nil {
			c.in.gone = gone(err)
			return
		}
	}
}

// gone tells whether a read failed because the client has closed the connection, and
// reads nothing any more: MQTT has no use for half of one.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// refuse ends the connection for what its client sent.
func (c *client) refuse(err error) {
	var e *codec.Error
	if errors.As(err, &e) {
		c.b.log.Debug("a client broke the protocol", "client", c.id, "err", err)
		c.fail(e.Reason, e.Text)
	}
}

// stopped tells whether the server is ending the connection and nothing more that
// the client sends matters.
func (c *client) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.closing && !c.lastWords()
}

// lastWords tells whether the client may still say DISCONNECT: a newer connection
// took over from one that has a will, which then does not fire. The caller holds mu.
func (c *client) lastWords() bool { return c.out.lost && c.will }

// receive reads what has come: at least one byte, but that none may come when the
// reader is to give its buffer back.
func (c *client) receive() error {
	in := &c.in
	c.makeRoom()
	n, err := c.conn.Read(in.buf[in.w:])
	if n == 0 && c.nudged.CompareAndSwap(true, false) && errors.Is(err, os.ErrDeadlineExceeded) {
		return c.rest()
	}
	c.lastIn.Store(c.b.tick.Load())
	if n > 0 {
		c.b.n.bytesIn.Add(int64(n))
		in.mark = c.b.stages.mark()
		in.w += n
		in.full = in.w == len(in.buf)
		if n <= smallBuf/2 {
			in.quiet++
		} else {
			in.quiet = 0
		}
		return nil
	}
	return err
}

// quietReads is after how many small reads in a row a connection gives its larger
// buffer back.
const quietReads = 16

// makeRoom gives buf room for the next read, and its size the traffic's.
func (c *client) makeRoom() {
	in := &c.in
	left := in.w - in.r
	if in.r > 0 {
		copy(in.buf, in.buf[in.r:in.w])
		in.r, in.w = 0, left
	}
	switch {
	case len(in.buf) > smallBuf && in.quiet >= quietReads && left < smallBuf/2:
		copy(in.small[:], in.buf[:left])
		c.giveBack()
		in.buf = in.small[:]
	case len(in.buf) > bufSize && left == 0:
		in.buf = in.small[:]
	case in.full:
		c.grow(left)
	}
}

// grow makes buf larger by steps: what a packet announces costs nothing before
// it comes.
func (c *client) grow(left int) {
	in := &c.in
	size := 2 * len(in.buf)
	switch own := in.connected && in.pooled == nil; {
	case own && len(in.buf) < ownBuf:
	case own && len(in.buf) < bufSize:
		p := c.b.bufs.Get().(*[]byte)
		big := (*p)[:cap(*p)]
		copy(big, in.buf[:left])
		in.pooled, in.buf, in.quiet = p, big, 0
		c.large.Store(true)
		return
	case left < len(in.buf):
		return // whole packets are in it
	default:
		size = min(size, c.b.cfg.MaxPacketSize+smallBuf)
	}
	big := make([]byte, size)
	copy(big, in.buf[:left])
	c.giveBack()
	in.buf, in.quiet = big, 0
}

func (c *client) giveBack() {
	in := &c.in
	if in.pooled != nil {
		c.b.bufs.Put(in.pooled)
		in.pooled, in.quiet = nil, 0
		c.large.Store(false)
	}
}

// bufIdle is how long a silent client keeps its pooled buffer: a thousand that have
// subscribed to much and wait hold 64 MB otherwise.
const bufIdle = 2 * time.Second

// nudge has a reader that waits give its pooled buffer back. It does not block.
func (c *client) nudge() {
	if _, ok := c.conn.(interface{ CloseWrite() error }); !ok {
		return // a WebSocket does not outlive a deadline
	}
	c.nudged.Store(true)
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
}

// rest gives the pooled buffer back, and waits on. Half a large packet stays in it.
func (c *client) rest() error {
	in := &c.in
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	c.mu.Lock()
	closing := c.out.closing
	c.mu.Unlock()
	if closing {
		return errDone // the deadline may have been hangUp's
	}
	c.large.Store(false)
	if left := in.w - in.r; left <= smallBuf/2 {
		copy(in.small[:], in.buf[in.r:in.w])
		c.giveBack()
		in.buf, in.r, in.w, in.full = in.small[:], 0, left, false
	}
	return nil
}

// handleAll handles every whole packet in the buffer.
func (c *client) handleAll() error {
	in := &c.in
	for in.r < in.w {
		n, _, err := codec.ScanClient(in.buf[in.r:in.w], c.packetMax)
		if err != nil {
			c.oversized(err)
			return err
		}
		if n == 0 {
			return nil
		}
		frame := in.buf[in.r : in.r+n]
		in.r += n
		if err := c.handle(frame); err != nil {
			return err
		}
	}
	return nil
}

// handle handles one packet. An error ends the connection.
func (c *client) handle(frame []byte) error {
	typ := codec.FrameType(frame)
	switch typ {
	case codec.TypePublish:
		return c.publish(frame)
	case codec.TypePuback, codec.TypePubrec, codec.TypePubrel, codec.TypePubcomp:
		var a codec.AckPacket
		if err := codec.ParseAck(frame, c.version, &a); err != nil {
			return err
		}
		return c.handleAck(&a)
	}
	if typ == codec.TypePingreq && len(frame) == 2 {
		c.reply(codec.AppendPingresp)
		return nil
	}
	p, err := codec.Decode(frame, c.version)
	if err != nil {
		return err
	}
	switch typ {
	case codec.TypeSubscribe:
		c.flush()
		return c.subscribe(p)
	case codec.TypeUnsubscribe:
		c.flush()
		return c.unsubscribe(p)
	case codec.TypeDisconnect:
		return c.disconnected(p)
	case codec.TypeAuth:
		return c.reauthenticate(p)
	default:
		// A second CONNECT too [MQTT-3.1.0-2].
		return &codec.Error{Reason: reasonProtocolError, Text: "a packet that may not come now"}
	}
}

func (c *client) handleAck(a *codec.AckPacket) error {
	switch a.Type {
	case codec.TypePuback:
		c.acknowledged(a.PacketID)
	case codec.TypePubrec:
		c.received(a.PacketID, a.Reason)
	case codec.TypePubcomp:
		c.completed(a.PacketID)
	case codec.TypePubrel:
		return c.released(a.PacketID)
	}
	return nil
}

// disconnected handles DISCONNECT.
func (c *client) disconnected(p *packets.Packet) error {
	rel := &logpb.Release{}
	c.in.release = rel
	if p.Properties.SessionExpiryIntervalFlag {
		e := min(p.Properties.SessionExpiryInterval, c.b.cfg.MaxSessionExpiry)
		if c.expiry == 0 && e != 0 {
			// [MQTT-3.14.2-2], section 3.14.2.2.2
			return &codec.Error{Reason: reasonProtocolError, Text: "DISCONNECT sets a session expiry where CONNECT set none"}
		}
		rel.Expiry = &e
	}
	c.in.disconnect = true
	rel.Will = c.version == 5 && p.ReasonCode != reasonSuccess
	return errDone
}

// finish takes the connection out of everything and releases its session.
func (c *client) finish() {
	if !c.in.connected {
		c.endUnconnected()
		return
	}
	b := c.b
	rel := c.in.release
	if rel == nil {
		rel = &logpb.Release{}
	}
	c.mu.Lock()
	o := &c.out
	if !c.in.disconnect {
		rel.Will = true
		switch {
		case o.closing:
			rel.Will, rel.Grace = o.end.will, o.end.grace
		case b.leaving.Load():
			rel.Grace = b.cfg.DrainGrace // a balancer may have cut it, which knows that the node goes
		}
	}
	// The writer still has to write DISCONNECT, and nothing else.
	if !o.closing {
		o.closing = true
		o.drop()
	}
	due := !o.freed && (!o.lost || c.will)
	switch {
	case due && o.lost:
		// Another has the session. The will waits to hear how this connection ended.
		rel.Client, rel.Epoch = c.id, c.epoch
	case due:
		c.complete(rel)
	}
	lost := o.lost
	c.cond.Broadcast()
	c.mu.Unlock()
	b.detach(c)
	b.n.connected.Add(-1)
	b.comings.note(ClientEvent{Client: c.id, User: c.user, Remote: c.info.Remote, Reason: c.endedBy(lost)})
	if due && !lost {
		// Closing the last marks before the release keeps their order.
		c.submitMarks()
	}
	if due {
		b.release(rel, nil)
	}
	c.endUnconnected()
}

// release submits the end of a connection. One that does not get through is
// submitted again when the node has its lease back: else the session would count
// as connected for ever. Should the node have lost its incarnation meanwhile, it
// is stale and does nothing. done, if not nil, runs when its outcome is known.
func (b *Broker) release(rel *logpb.Release, done func()) {
	b.deps.Log.Submit(&logpb.Item{Kind: &logpb.Item_Release{Release: rel}}, func(r fsm.Result) {
		if errors.Is(r.Err, fsm.ErrNotProposed) || errors.Is(r.Err, fsm.ErrUnknown) {
			b.progress.keep(rel)
		}
		if done != nil {
			done()
		}
	})
}

// endUnconnected closes the socket and waits for all that the connection
// started.
func (c *client) endUnconnected() {
	c.mu.Lock()
	o := &c.out
	if !o.closing {
		o.closing = true
	}
	c.closeBy.CompareAndSwap(0, c.b.tick.Load()+int64(closeGrace))
	o.hung = o.hung || c.in.gone && !o.writing
	c.cond.Broadcast()
	c.wakeClosing()
	c.mu.Unlock()
	if c.in.gone {
		c.discard()
	}
	c.wg.Wait()
	c.linger()
	c.mu.Lock()
	o.closed = true
	o.drop()
	c.mu.Unlock()
	c.giveBack()
	c.in.buf = nil
}
