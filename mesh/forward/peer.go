package forward

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// peer is one other node: the stream to it, which this file is about, and the
// stream from it.
type peer struct {
	id     string
	f      *Forwarder
	log    *slog.Logger
	out    outbox
	in     inbound
	cancel context.CancelFunc

	work   chan struct{} // something to send; capacity 1
	kick   chan struct{} // do not wait before the next dial; capacity 1
	resync atomic.Bool   // the peer asked for a snapshot

	// Of the stream's goroutine.
	sent  uint64 // version of the route log that was sent
	fresh bool   // the peer can go on from sent
}

func (p *peer) wake() { nudge(p.work) }

// nudge leaves a signal in a channel of capacity 1.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run keeps a stream to the peer until ctx ends; then it ends the one from it.
func (p *peer) run(ctx context.Context) {
	const firstPause, maxPause = 50 * time.Millisecond, 3 * time.Second
	pause := firstPause
	// Messages wait a while for a stream that is expected to come up, then they
	// are dropped: nobody wants to hear of them an hour later.
	expired := time.AfterFunc(p.f.cfg.Linger, p.out.expire)
	defer func() {
		expired.Stop()
		p.out.shut()
		p.in.hangUp(true)
	}()
	level := slog.LevelWarn
	for ctx.Err() == nil {
		l, err := p.connect(ctx)
		if err == nil {
			p.out.connected()
			p.log.Info("forward: stream is up", "member", p.id)
			pause, level = firstPause, slog.LevelWarn
			err = p.stream(ctx, l)
			p.out.lost()
			expired.Reset(p.f.cfg.Linger)
		}
		if ctx.Err() != nil {
			return
		}
		p.log.Log(ctx, level, "forward: no stream", "member", p.id, "err", err)
		level = slog.LevelDebug
		select {
		case <-time.After(pause/2 + rand.N(pause)):
			pause = min(2*pause, maxPause)
		case <-p.kick:
		case <-ctx.Done():
		}
	}
}

// link is a stream to the peer; its answers come back by it.
type link struct {
	net.Conn
	answers *frames
}

// connect dials the peer and learns what it has.
func (p *peer) connect(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, p.f.cfg.DialTimeout)
	defer cancel()
	c, err := p.f.deps.Network.Dial(ctx, p.id, Proto)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	l := &link{c, newFrames(deadlineReader{c, p.f.cfg.PeerTimeout}, maxAnswer)}
	if err := p.greet(l); err != nil {
		_ = c.Close()
		return nil, err
	}
	return l, nil
}

func (p *peer) greet(l *link) error {
	inc, version, _ := p.f.routes.digest()
	if err := write(l, appendNumbers(nil, kindHello, inc, version)); err != nil {
		return err
	}
	k, body, err := l.answers.next()
	if err != nil {
		return fmt.Errorf("await welcome: %w", err)
	}
	if k != kindWelcome {
		return fmt.Errorf("%w: kind %d for a welcome", errMalformed, k)
	}
	var hasInc, hasVersion uint64
	if err := numbers(body, &hasInc, &hasVersion); err != nil {
		return err
	}
	p.sent, p.fresh = p.f.routes.connected(p, hasInc, hasVersion)
	return nil
}

// maxAnswer bounds the frames that come back on the stream.
const maxAnswer = 64

// stream sends until the connection or ctx ends.
func (p *peer) stream(ctx context.Context, c *link) error {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(p.readAnswers(c.answers))
	}()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	err := p.send(ctx, c)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	stop()
	_ = c.Close()
	<-done
	p.f.routes.disconnected(p)
	return err
}

// readAnswers reads what the peer says back. The peer answers every keepalive,
// so silence means that it is gone.
func (p *peer) readAnswers(in *frames) error {
	for {
		k, body, err := in.next()
		if err != nil {
			return fmt.Errorf("await answers: %w", err)
		}
		switch k {
		case kindAck:
			var version uint64
			if err := numbers(body, &version); err != nil {
				return err
			}
			if !p.f.routes.acked(p, version) {
				return fmt.Errorf("%w: it has acknowledged what was not sent", errMalformed)
			}
		case kindResync:
			p.f.metrics.resyncs.Inc()
			p.resync.Store(true)
			p.wake()
		case kindAlive:
		default:
			return fmt.Errorf("%w: kind %d on the way back", errMalformed, k)
		}
	}
}

// send writes routes, messages and keepalives as they come.
func (p *peer) send(ctx context.Context, c net.Conn) error {
	tick := time.NewTicker(p.f.cfg.Keepalive)
	defer tick.Stop()
	due := true // removes go with the first adds and at every tick
	for {
		routes, err := p.sendRoutes(c, due)
		if err != nil {
			return err
		}
		pending, since := p.out.take()
		waited := len(pending) > 0
		if due && !routes && len(pending) == 0 {
			pending = appendNumbers(nil, kindKeepalive)
		}
		if err := write(c, pending); err != nil {
			return err
		}
		if waited {
			p.f.metrics.wait.Observe(time.Since(since).Seconds())
		}
		due = false
		select {
		case <-p.work:
		case <-tick.C:
			due = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sendRoutes sends what the peer lacks of the route log: adds at once, removes
// with the next add or tick.
func (p *peer) sendRoutes(c net.Conn, all bool) (sent bool, err error) {
	const limit = 64 << 10
	for {
		if p.resync.Swap(false) || !p.fresh {
			if err := p.sendSnapshot(c); err != nil {
				return true, err
			}
			sent, all = true, true
			continue
		}
		changes, ok := p.f.routes.after(p.sent, limit)
		if !ok {
			p.fresh = false
			continue
		}
		if len(changes) == 0 || !all && p.sent >= p.f.routes.newestAdd() {
			return sent, nil
		}
		if err := p.sendChanges(c, changes); err != nil {
			return true, err
		}
		if sent = true; len(changes) < limit {
			return sent, nil // what came meanwhile has woken us again
		}
	}
}

func (p *peer) sendChanges(c net.Conn, changes []change) error {
	var buf []byte
	for len(changes) > 0 {
		buf = appendHeader(buf[:0], kindDelta)
		buf = binary.BigEndian.AppendUint64(buf, p.sent)
		n := 0
		for n < len(changes) && len(buf) < frameTarget {
			buf = appendChange(buf, changes[n])
			n++
		}
		endFrame(buf, 0)
		if err := write(c, buf); err != nil {
			return err
		}
		p.sent += uint64(n)
		changes = changes[n:]
	}
	return nil
}

func (p *peer) sendSnapshot(c net.Conn) error {
	all, version, hash := p.f.routes.snapshot()
	p.f.metrics.snapshots.Inc()
	buf := appendNumbers(nil, kindSnapBegin, p.f.routes.incarnation, version, uint64(len(all)))
	for len(all) > 0 {
		start := len(buf)
		buf = appendHeader(buf, kindSnapChunk)
		n := 0
		for n < len(all) && len(buf)-start < frameTarget {
			buf = appendString(buf, all[n])
			n++
		}
		endFrame(buf, start)
		all = all[n:]
		if err := write(c, buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	if err := write(c, appendNumbers(buf, kindSnapEnd, hash)); err != nil {
		return err
	}
	p.sent, p.fresh = version, true
	return nil
}

// write sends b in pieces, each of which has the deadline of a Write.
func write(c net.Conn, b []byte) error {
	const piece = 256 << 10
	for len(b) > 0 {
		n := min(len(b), piece)
		if _, err := c.Write(b[:n]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// deadlineReader gives every Read a deadline.
type deadlineReader struct {
	c net.Conn
	d time.Duration
}

func (r deadlineReader) Read(p []byte) (int, error) {
	if err := r.c.SetReadDeadline(time.Now().Add(r.d)); err != nil {
		return 0, err
	}
	return r.c.Read(p)
}
