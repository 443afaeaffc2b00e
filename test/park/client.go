package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

const (
	// version is MQTT 5, for sessions with an end of their own.
	version = 5
	// keepAlive is announced; pingEvery is when a client that is silent pings.
	keepAlive = 60 * time.Second
	pingEvery = 40 * time.Second
	// stepTimeout bounds the way to a CONNACK and to a SUBACK, ackTimeout that to a
	// PUBACK; what takes longer ends the connection, and the client tries again.
	stepTimeout = 30 * time.Second
	ackTimeout  = 20 * time.Second
	// firstPause is the longest that a client waits before it reconnects, at random;
	// each failure doubles it up to lastPause.
	firstPause = 500 * time.Millisecond
	lastPause  = 4 * time.Second
	// readBuffer is of one client.
	readBuffer = 2 << 10
	// sessionExpiry is of a persistent session, in seconds.
	sessionExpiry = 3600
)

// client is one client of the park, over all its connections. What mu guards is
// written by its goroutine and read by others; all else belongs to its goroutine.
type client struct {
	w      *worker
	n      int
	name   string
	storms bool
	tls    *tls.Config

	outbound []*outbound // mu guards acked
	buf      []byte
	in       []byte // the part of buf that is not handled yet
	out      []byte
	spoke    time.Time // when it last wrote

	mu       sync.Mutex
	inbound  map[stream]*seen // nil: it subscribes to nothing
	broken   bool             // a connection ended
	misroute int
	conn     *tls.Conn // nil: not connected
	kicked   bool      // the storm closed conn
}

// run keeps the client connected until ctx ends.
func (c *client) run(ctx context.Context) {
	pause, down := firstPause, time.Time{}
	for ctx.Err() == nil {
		up, err := c.connection(ctx, down)
		c.end()
		c.out = c.out[:0]
		if ctx.Err() != nil {
			return
		}
		kicked := c.noteEnd(up)
		if up {
			pause, down = firstPause, time.Now()
		}
		c.w.ended(err, up)
		if up && kicked {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(pause)):
		}
		pause = min(2*pause, lastPause)
	}
}

// noteEnd tells whether the storm ended the connection.
func (c *client) noteEnd(up bool) (kicked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kicked, c.kicked = c.kicked, false
	c.broken = c.broken || up
	return kicked
}

// connection is one connection from its dial to its end; up tells whether it came
// to serve. down is when the last one ended.
func (c *client) connection(ctx context.Context, down time.Time) (up bool, err error) {
	if down.IsZero() { // the first connections are paced, those after a loss are not
		select {
		case c.w.openers <- struct{}{}:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	err = c.connect(ctx)
	if down.IsZero() {
		<-c.w.openers
	}
	if err != nil {
		return false, err
	}
	c.w.served(c, down)
	for {
		if err := c.step(); err != nil {
			return true, err
		}
	}
}

// connect dials, logs in and subscribes.
func (c *client) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	source := c.w.order.Sources[c.n%len(c.w.order.Sources)]
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	// All balancers get those of the storm, and those of all roles.
	balancer := c.w.order.Balancers[c.n/stormShare%len(c.w.order.Balancers)]
	plain, err := dialer.DialContext(ctx, "tcp", balancer)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	if err := c.w.hellos.Wait(ctx); err != nil {
		plain.Close()
		return fmt.Errorf("wait for a handshake's turn: %w", err)
	}
	conn := tls.Client(plain, c.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return fmt.Errorf("TLS: %w", err)
	}
	if err := c.take(ctx, conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(stepTimeout)); err != nil {
		return err
	}
	if conn.ConnectionState().DidResume {
		c.w.resumed.Add(1)
	}
	return c.login()
}

// take makes conn the client's, unless all is over.
func (c *client) take(ctx context.Context, conn *tls.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		_ = conn.NetConn().Close()
		return ctx.Err()
	}
	c.conn, c.in, c.kicked = conn, nil, false
	return nil
}

func (c *client) login() error {
	p := &c.w.order.Plan
	password := p.password(c.name)
	o := rawmqtt.Connect{Version: version, ClientID: c.name, KeepAlive: uint16(keepAlive / time.Second),
		Username: &c.name, Password: &password, CleanStart: !p.persistent(c.n)}
	if p.persistent(c.n) {
		o.Properties = []rawmqtt.Property{{ID: rawmqtt.SessionExpiry, Int: sessionExpiry}}
	}
	ack, err := c.exchange(o.Packet(), rawmqtt.CONNACK)
	if err != nil {
		return err
	}
	if ack.Reason != 0 {
		return fmt.Errorf("CONNACK 0x%02x", ack.Reason)
	}
	for _, o := range c.outbound {
		o.resend = o.pending
	}
	filters := p.filters(c.n)
	if len(filters) == 0 || ack.SessionPresent {
		return nil
	}
	if c.broken && p.persistent(c.n) {
		c.w.forgotten.Add(1) // what it was owed is gone
	}
	var subs []rawmqtt.Subscription
	for _, f := range filters {
		subs = append(subs, rawmqtt.Subscription{Filter: f, Options: 1})
	}
	suback, err := c.exchange(rawmqtt.SubscribePacket(version, 1, nil, subs...), rawmqtt.SUBACK)
	if err != nil {
		return err
	}
	for _, reason := range suback.Reasons {
		if reason != 1 {
			return fmt.Errorf("SUBACK 0x%02x", reason)
		}
	}
	return nil
}

// exchange sends a packet and waits for its answer; messages that come before it
// are handled.
func (c *client) exchange(packet []byte, want byte) (*rawmqtt.Packet, error) {
	if _, err := c.conn.Write(packet); err != nil {
		return nil, err
	}
	c.spoke = time.Now()
	for {
		p, err := c.packet()
		switch {
		case err != nil:
			return nil, fmt.Errorf("waiting for %s: %w", rawmqtt.TypeName(want), err)
		case p == nil:
			if err := c.read(); err != nil {
				return nil, fmt.Errorf("waiting for %s: %w", rawmqtt.TypeName(want), err)
			}
		case p.Type == want:
			return p, nil
		default:
			if err := c.handle(p, time.Now()); err != nil {
				return nil, err
			}
		}
	}
}

// packet takes the next whole packet of what was read, nil if there is none.
func (c *client) packet() (*rawmqtt.Packet, error) {
	frame, err := rawmqtt.SplitFrame(c.in)
	if frame == nil || err != nil {
		return nil, err
	}
	c.in = c.in[len(frame):]
	return rawmqtt.Parse(frame, version)
}

// read waits for bytes; what is left of a packet goes to the front of the buffer.
func (c *client) read() error {
	have := copy(c.buf, c.in)
	if have == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.conn.Read(c.buf[have:])
	c.in = c.buf[:have+n]
	return err
}

// step handles what came, sends what is due, and waits for more or for what is due
// next.
func (c *client) step() error {
	now := time.Now()
	for {
		p, err := c.packet()
		if err != nil {
			return err
		}
		if p == nil {
			break
		}
		if err := c.handle(p, now); err != nil {
			return err
		}
	}
	if err := c.due(now); err != nil {
		return err
	}
	if err := c.arm(now); err != nil {
		return err
	}
	if err := c.read(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// arm bounds the next read by what is due next.
func (c *client) arm(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kicked {
		return errKicked
	}
	return c.conn.SetReadDeadline(c.next(now))
}

// errKicked ends a connection for the storm.
var errKicked = errors.New("closed for the storm")

// flush writes what is to be written.
func (c *client) flush(now time.Time) error {
	if len(c.out) == 0 {
		return nil
	}
	// A write that is cut off by its deadline ends a TLS connection.
	if err := c.conn.SetWriteDeadline(now.Add(stepTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	c.out, c.spoke = c.out[:0], now
	return err
}

// handle takes one packet; its answer goes to out.
func (c *client) handle(p *rawmqtt.Packet, now time.Time) error {
	switch p.Type {
	case rawmqtt.PUBLISH:
		if p.QoS == 1 {
			c.out = append(c.out, rawmqtt.AckPacket(version, rawmqtt.PUBACK, p.ID, 0)...)
		}
		c.arrived(p, now)
	case rawmqtt.PUBACK:
		return c.acked(p, now)
	case rawmqtt.DISCONNECT:
		return fmt.Errorf("DISCONNECT 0x%02x", p.Reason)
	}
	return nil
}

// arrived accounts for a message.
func (c *client) arrived(p *rawmqtt.Packet, now time.Time) {
	if p.Retain {
		return // an answer to a subscription, not a delivery
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := parseHeader(p.Payload)
	s := c.inbound[h.stream]
	if !ok || s == nil || p.Topic != c.w.order.Plan.topic(h.stream) {
		c.misroute++
		return
	}
	if s.arrive(h.seq) {
		storm := c.storms || c.w.order.Plan.storms(int(h.stream/2))
		c.w.sample(delivered, storm, h.sent, now)
		c.w.delivered.Add(1)
	}
}

// poke has the client look again at what is due.
func (c *client) poke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // a closed one is on its way out anyway
	}
}

// kick ends the connection without a word, as a power cut does.
func (c *client) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.kicked = true
		_ = c.conn.NetConn().Close() // its reader sees it
	}
}

// end closes the connection, if there is one. Anybody may call it; the client's
// goroutine then meets an error.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.NetConn().Close() // nothing is left to be said
	}
}
