package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// keepalive is how often an idle pack stream carries an empty frame;
	// streamSilence is how long the other side waits for one.
	keepalive     = 5 * time.Second
	streamSilence = 3 * keepalive
	writeTimeout  = 5 * time.Second
	dialTimeout   = 2 * time.Second
)

// route is one way to the leader: itself, or a stream. It is used by one
// goroutine.
type route interface {
	send(*pack) error
	close()
}

// run is the sender: the one goroutine through which packs leave, so that they
// do in order.
func (p *proposer) run() {
	ctx := p.c.ctx
	var r route
	defer func() {
		if r != nil {
			r.close()
		}
	}()
	for ctx.Err() == nil {
		if p.dropRoute() && r != nil {
			r.close()
			r = nil
		}
		if r == nil {
			p.hold(ctx)
			if r = p.open(ctx); r == nil {
				p.pause(ctx)
				continue
			}
			p.rewind()
		}
		pk := p.take()
		if pk == nil {
			select {
			case <-ctx.Done():
			case <-p.wake:
			}
			continue
		}
		if err := r.send(pk); err != nil {
			p.c.log.Debug("pack not sent", "err", err)
			r.close()
			r = nil
			p.failed()
		}
	}
}

// dropRoute tells whether the route is to be made anew, once.
func (p *proposer) dropRoute() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.rerouted
	p.rerouted = false
	return was
}

func (p *proposer) rewind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = 0
	p.sendFailed = 0
}

func (p *proposer) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendFailed++
}

// pause waits for news, or a little longer after each failure.
func (p *proposer) pause(ctx context.Context) {
	p.mu.Lock()
	d := min(10*time.Millisecond<<min(p.sendFailed, 6), 500*time.Millisecond)
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-p.wake:
	case <-timer.C:
	}
}

// hold waits a little where the last route did not last: raft refuses whatever
// comes while it hands over leadership, and to ask it again at once would keep it
// from doing so. News of the leader end the wait.
func (p *proposer) hold(ctx context.Context) {
	p.mu.Lock()
	n := p.refused
	p.mu.Unlock()
	if n == 0 {
		return
	}
	_, changed := p.c.leaderNow()
	timer := time.NewTimer(min(time.Millisecond<<min(n, 7), 100*time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
	}
}

// open finds a way to the leader, nil if there is none.
func (p *proposer) open(ctx context.Context) route {
	p.mu.Lock()
	up := p.incarnation != 0
	p.mu.Unlock()
	leader, changed := p.c.leaderNow()
	switch {
	case !up || leader.node == "":
	case leader.node != p.c.cfg.Node:
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := p.c.dialPeer(ctx, leader.node, "", ProtoPack)
		if err == nil {
			return newStreamRoute(p, conn, changed)
		}
		p.c.log.Debug("no pack stream", "member", leader.node, "err", err)
	default:
		if lead := p.c.lead.Load(); lead != nil {
			return newLocalRoute(p, lead)
		}
	}
	p.failed()
	return nil
}

// localRoute proposes on this node.
type localRoute struct {
	p    *proposer
	lead *leading
	f    *futures
}

func newLocalRoute(p *proposer, lead *leading) *localRoute {
	return &localRoute{p: p, lead: lead, f: newFutures(p.c, func(error) { p.routeEnded() })}
}

func (r *localRoute) send(pk *pack) error {
	return r.f.propose(r.lead, pk.give())
}

func (r *localRoute) close() { r.f.close() }

// futures proposes packs in order and watches what becomes of them.
type futures struct {
	c    *Consensus
	ch   chan raft.ApplyFuture
	once sync.Once
}

// newFutures calls failed, once, when a pack did not make it into the log.
func newFutures(c *Consensus, failed func(error)) *futures {
	f := &futures{c: c, ch: make(chan raft.ApplyFuture, 2*c.cfg.Window)}
	c.wg.Go(func() {
		told := false
		for future := range f.ch {
			if err := future.Error(); err != nil && !told {
				told = true
				failed(err)
			}
		}
	})
	return f
}

// propose puts an entry around the pack in buf[entryHead:] and proposes it. Raft
// keeps buf.
func (f *futures) propose(lead *leading, buf []byte) error {
	future, err := f.c.propose(lead, func(stamp int64) ([]byte, error) { return wrap(buf, stamp), nil })
	if err != nil {
		return err
	}
	f.ch <- future
	return nil
}

func (f *futures) close() { f.once.Do(func() { close(f.ch) }) }

// streamRoute sends packs to the leader over the mesh.
type streamRoute struct {
	conn  net.Conn
	ended chan struct{}

	mu   sync.Mutex // writes, of packs and keepalives
	last time.Time
}

func newStreamRoute(p *proposer, conn net.Conn, leaderChanged <-chan struct{}) *streamRoute {
	r := &streamRoute{conn: conn, ended: make(chan struct{}), last: time.Now()}
	p.c.wg.Go(func() {
		// The leader sends nothing; it closes when it leads no more.
		_, err := conn.Read(make([]byte, 1))
		select {
		case <-r.ended:
		default:
			p.c.log.Debug("pack stream ended", "err", err)
			p.routeEnded()
		}
	})
	p.c.wg.Go(func() {
		tick := time.NewTicker(keepalive)
		defer tick.Stop()
		for {
			select {
			case <-r.ended:
				return
			case <-p.c.ctx.Done():
				// An error here is the end of a connection that ends.
				_ = conn.Close()
				return
			case <-leaderChanged:
				// Whatever is being written goes to a leader of the past.
				_ = conn.Close()
				return
			case <-tick.C:
				if err := r.write([]byte{0, 0, 0, 0}); err != nil {
					_ = conn.Close()
					return
				}
			}
		}
	})
	return r
}

func (r *streamRoute) write(b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("write to the leader: %w", err)
	}
	if _, err := r.conn.Write(b); err != nil {
		return fmt.Errorf("write to the leader: %w", err)
	}
	return nil
}

func (r *streamRoute) send(pk *pack) error { return r.write(pk.wire()) }

func (r *streamRoute) close() {
	close(r.ended)
	_ = r.conn.Close() // its reader reports nothing after ended
}

// AcceptPacks serves a peer's pack stream: it checks that the packs are the
// peer's own and proposes them in order. It returns when the stream ends, which
// it does when this node does not lead, and closes conn.
func (c *Consensus) AcceptPacks(peer string, conn net.Conn) {
	c.serve(peer, conn, func(lead *leading) error {
		f := newFutures(c, func(error) { _ = conn.Close() })
		defer f.close()
		rd := bufio.NewReaderSize(conn, maxPackBytes)
		for {
			buf, err := readFrame(conn, rd, entryHead, maxFrame)
			if err != nil {
				return err
			}
			if len(buf) == entryHead {
				continue
			}
			node, _, _, err := peek(buf[entryHead:])
			if err != nil {
				return err
			}
			if node != peer {
				return fmt.Errorf("a pack of %q came from %q", node, peer)
			}
			if err := f.propose(lead, buf); err != nil {
				return err
			}
		}
	})
}

// readFrame reads a length and as many bytes, to which it leaves head bytes of
// room before.
func readFrame(conn net.Conn, rd *bufio.Reader, head, most int) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(streamSilence)); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(rd, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n > most {
		return nil, fmt.Errorf("a frame of %d bytes is too long", n)
	}
	buf := make([]byte, head+n)
	if _, err := io.ReadFull(rd, buf[head:]); err != nil {
		return nil, err
	}
	return buf, nil
}

// serve runs f for a stream to this node as leader and closes conn with the
// leadership.
func (c *Consensus) serve(peer string, conn net.Conn, f func(*leading) error) {
	leave, ok := c.streams.enter(conn)
	if !ok {
		return
	}
	defer leave()
	if err := c.welcome(peer, conn); err != nil {
		return
	}
	lead := c.awaitLead(c.ctx, time.Second)
	if lead == nil {
		return
	}
	stop := context.AfterFunc(lead.ctx, func() { _ = conn.Close() })
	defer stop()
	if err := f(lead); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.log.Debug("stream of a peer ended", "err", err)
	}
}

// streamSet is the accepted streams, each served on a goroutine of the mesh.
type streamSet struct {
	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	wg     sync.WaitGroup
}

func (s *streamSet) enter(conn net.Conn) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, false
	}
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	s.conns[conn] = struct{}{}
	s.wg.Add(1)
	return func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		_ = conn.Close()
		s.wg.Done()
	}, true
}

// close ends the streams and waits for their goroutines.
func (s *streamSet) close() {
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// AcceptRaft serves a peer's raft stream. It returns when the peer has been
// greeted; the connection is raft's.
func (c *Consensus) AcceptRaft(peer string, conn net.Conn) {
	if err := c.welcome(peer, conn); err != nil {
		return
	}
	if err := c.layer.hand(conn); err != nil {
		c.log.Debug("raft stream refused", "err", err)
	}
}
