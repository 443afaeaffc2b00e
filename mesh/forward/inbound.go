package forward

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// inbound is the stream from a peer and what came by it.
type inbound struct {
	routes remote
	hold   hold
	resync atomic.Bool // ask for a snapshot

	// turn holds a token of the one connection that is read: frames of two
	// would mix.
	turn chan struct{}

	mu     sync.Mutex
	close  context.CancelFunc // ends the newest connection, if any
	gone   bool               // none is taken any more
	behind time.Time          // since when gossip knows of more than we have
}

// maxBatch is how many deliveries go to Deps.Deliver at once, about.
const maxBatch = 1024

// HandleConn serves an incoming stream of a peer until it ends; it is what the
// mesh calls for Proto. A newer stream of the same peer replaces the older. The
// stream of a node that is not among SetPeers is closed: its sender tries again.
func (f *Forwarder) HandleConn(from string, c net.Conn) {
	defer c.Close()
	if !f.enter() {
		return
	}
	defer f.wg.Done()
	p := f.peer(from)
	if p == nil {
		f.log.Debug("forward: a stream of a node that is no member yet", "member", from)
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = c.Close() })
	if !p.in.replace(cancel) {
		return
	}
	nudge(p.kick) // it is there: do not wait to dial it
	select {
	case p.in.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-p.in.turn }()
	err := p.receive(c)
	f.log.Debug("forward: incoming stream ended", "member", from, "err", err)
}

// replace makes close end the newest connection and ends the one before; false
// if the peer is gone.
func (in *inbound) replace(close context.CancelFunc) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.gone {
		return false
	}
	if in.close != nil {
		in.close()
	}
	in.close = close
	return true
}

// hangUp ends the newest connection; all that come too if final.
func (in *inbound) hangUp(final bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.gone = in.gone || final
	if in.close != nil {
		in.close()
	}
}

// incoming is the state of one connection.
type incoming struct {
	p        *peer
	c        net.Conn
	frames   *frames
	dec      decoder
	batch    []Delivery
	answered time.Time
	sender   uint64 // the incarnation of the peer's route log
	snapshot *snapshot
}

// snapshot is one that is under way.
type snapshot struct {
	incarnation, version, count uint64
	filters                     []string
}

func (p *peer) receive(c net.Conn) error {
	in := &incoming{p: p, c: c, frames: newFrames(deadlineReader{c, p.f.cfg.PeerTimeout}, p.f.cfg.MaxFrame)}
	if err := in.welcome(); err != nil {
		return err
	}
	for {
		k, body, err := in.frames.next()
		if err != nil {
			return err
		}
		if k == kindMessages || k == kindLater {
			err = in.messages(k, body)
		} else {
			err = in.control(k, body)
		}
		if err != nil {
			p.f.log.Warn("forward: the stream of a peer is broken off", "member", p.id, "err", err)
			return err
		}
	}
}

// welcome hears who the peer is now and tells it what we have of it.
func (in *incoming) welcome() error {
	k, body, err := in.frames.next()
	if err != nil {
		return err
	}
	var version uint64
	if k != kindHello {
		return fmt.Errorf("%w: kind %d for a hello", errMalformed, k)
	}
	if err := numbers(body, &in.sender, &version); err != nil {
		return err
	}
	if in.sender == 0 {
		return fmt.Errorf("%w: incarnation 0", errMalformed)
	}
	inc, have, _ := in.p.f.table.state(&in.p.in.routes)
	if in.p.in.resync.Swap(false) {
		inc, have = 0, 0
	}
	return in.answer(appendNumbers(nil, kindWelcome, inc, have))
}

func (in *incoming) answer(b []byte) error {
	in.answered = time.Now()
	_, err := in.c.Write(b)
	return err
}

// messages delivers a frame, and those that are there behind it, as one batch.
func (in *incoming) messages(k kind, body []byte) error {
	f := in.p.f
	var err error
	if in.batch, err = in.dec.messages(in.batch, k, body); err != nil {
		in.batch = in.batch[:0]
		return err
	}
	if len(in.batch) < maxBatch && in.frames.ready() {
		return nil
	}
	f.metrics.received.Add(float64(len(in.batch)))
	in.p.in.hold.deliver(in.p, in.batch)
	clear(in.batch)
	in.batch = in.batch[:0]
	// A peer that only sends messages must hear from us too.
	if time.Since(in.answered) > f.cfg.Keepalive/2 {
		return in.report()
	}
	return nil
}

// report tells the peer what we have, or only that we are there.
func (in *incoming) report() error {
	if in.p.in.resync.Swap(false) {
		return in.answer(appendNumbers(nil, kindResync))
	}
	if inc, version, _ := in.p.f.table.state(&in.p.in.routes); inc == in.sender {
		return in.answer(appendNumbers(nil, kindAck, version))
	}
	return in.answer(appendNumbers(nil, kindAlive))
}

func (in *incoming) control(k kind, body []byte) error {
	limit := in.p.f.cfg.MaxRoutes
	switch k {
	case kindKeepalive:
		if err := numbers(body); err != nil {
			return err
		}
	case kindDelta:
		from, changes, err := delta(body)
		if err != nil {
			return err
		}
		if inc, _, _ := in.p.f.table.state(&in.p.in.routes); inc != in.sender {
			return fmt.Errorf("%w: changes before any snapshot", errMalformed)
		}
		if err := in.p.f.table.apply(&in.p.in.routes, from, changes, limit); err != nil {
			return err
		}
	case kindSnapBegin:
		s := &snapshot{}
		if err := numbers(body, &s.incarnation, &s.version, &s.count); err != nil {
			return err
		}
		if s.incarnation != in.sender {
			return fmt.Errorf("%w: a snapshot of another incarnation", errMalformed)
		}
		if s.count > uint64(limit) {
			return fmt.Errorf("the peer wants %d filters, at most %d are taken", s.count, limit)
		}
		in.snapshot = s
		return nil
	case kindSnapChunk:
		s := in.snapshot
		if s == nil {
			return fmt.Errorf("%w: a part of no snapshot", errMalformed)
		}
		var err error
		s.filters, err = filters(s.filters, body)
		if err == nil && uint64(len(s.filters)) > s.count {
			err = fmt.Errorf("%w: a snapshot of more filters than announced", errMalformed)
		}
		return err
	case kindSnapEnd:
		if err := in.endSnapshot(body); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: kind %d", errMalformed, k)
	}
	return in.report()
}

func (in *incoming) endSnapshot(body []byte) error {
	s := in.snapshot
	in.snapshot = nil
	var hash uint64
	if err := numbers(body, &hash); err != nil {
		return err
	}
	if s == nil || uint64(len(s.filters)) != s.count {
		return fmt.Errorf("%w: the end of a snapshot that is not whole", errMalformed)
	}
	return in.p.f.table.replace(&in.p.in.routes, s.filters, s.incarnation, s.version, hash)
}
