package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// client is one connection from accept to close.
type client struct {
	l        *Listener
	raw      *tcpConn
	slot     *slot
	accepted time.Time
	refused  atomic.Bool
	handed   bool // under l.mu: Serve has it
}

// run shakes hands and has the client greeted. What follows runs on a goroutine of
// its own: handshake and CONNECT have made the stack of this one large, and it would
// stay so however long the client is quiet.
func (c *client) run() {
	nc, rest := c.greet()
	if rest == nil {
		c.end(nc)
		return
	}
	c.l.clients.Go(func() { c.serve(nc, rest) })
}

// greet returns what serves the client from here on, or nil if the connection is
// over; nc is nil if it was none.
func (c *client) greet() (nc net.Conn, rest func()) {
	conn, info, err := c.open()
	if err != nil {
		c.fail(err)
		return nil, nil
	}
	if !c.hand() {
		c.shut(reasonShutdown)
		return nil, nil
	}
	c.l.metrics.accepted.Inc()
	c.l.metrics.handshake.Observe(time.Since(c.accepted).Seconds())
	nc = conn
	defer c.recovered()
	rest = c.l.deps.Serve(c.l.serving, conn, info)
	return nc, rest
}

func (c *client) serve(nc net.Conn, rest func()) {
	defer c.end(nc)
	defer c.recovered()
	rest()
}

// recovered ends a panic, which ends one connection only.
func (c *client) recovered() {
	if v := recover(); v != nil {
		c.l.metrics.panics.Inc()
		c.l.log.Error("connection ended in a panic", "remote", c.raw.remote, "err", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
}

// end closes what there is and gives back all that the connection had.
func (c *client) end(nc net.Conn) {
	if nc != nil {
		c.close(nc)
	}
	c.finish()
}

// hand marks the connection as Serve's, unless the listener was closed.
func (c *client) hand() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.handed = c.l.accepting.Err() == nil
	return c.handed
}

// close closes nc as its protocol wants it, without waiting long for a client
// that takes nothing.
func (c *client) close(nc net.Conn) {
	// Errors here are of a connection that is gone, which is what is wanted.
	_ = c.raw.SetDeadline(time.Now().Add(time.Second))
	_ = nc.Close()
	if w, ok := nc.(*webConn); ok {
		w.closing.Wait()
	}
	_ = c.raw.Close()
}

// finish gives back all that the connection had.
func (c *client) finish() {
	if c.slot != nil {
		c.slot.release()
	}
	_ = c.raw.Close() // closed already in most cases
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	c.l.metrics.open.Dec()
	c.l.deps.Admission.leave()
}

// shut counts why the connection is refused, the first time, and cuts it.
func (c *client) shut(reason string) {
	c.count(reason)
	c.raw.cut()
}

func (c *client) count(reason string) {
	if c.refused.CompareAndSwap(false, true) {
		c.l.metrics.refused.WithLabelValues(reason).Inc()
		c.l.log.Debug("connection refused", "remote", c.raw.remote, "reason", reason)
		if c.l.deps.Refused != nil && !c.l.trusts(c.raw.remote.Addr()) {
			c.l.deps.Refused(reason, c.raw.remote)
		}
	}
}

// evict closes the connection on behalf of the Budget.
func (c *client) evict(why error) {
	if errors.Is(why, errTooMuch) {
		c.shut(reasonTooMuch)
		return
	}
	c.shut(reasonBudget)
}

var errBanned = errors.New("the address is banned")

// stageError says at which stage of the handshakes a connection failed.
type stageError struct {
	reason string
	err    error
}

func (e *stageError) Error() string { return e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// fail refuses the connection for err, and leaves the client the alert or the
// HTTP status that was sent.
func (c *client) fail(err error) {
	reason := reasonConnection
	if s, ok := errors.AsType[*stageError](err); ok {
		reason = s.reason
	}
	if !c.refused.Load() {
		c.tell(err)
	}
	c.count(reason)
}

// tell logs why a handshake failed: each cause of an address once a minute. One that
// only connected, as the check of a balancer does, is no news.
func (c *client) tell(err error) {
	why := err.Error()
	if c.l.deps.Explain != nil {
		why = c.l.deps.Explain(err)
	}
	if gone(err) || errors.Is(err, net.ErrClosed) {
		c.l.log.Debug("handshake failed", "remote", c.raw.remote, "err", why)
		return
	}
	if again, say := c.l.told.note(c.raw.remote.Addr(), why, time.Now()); say {
		c.l.log.Info("a client was refused in the handshake", "remote", c.raw.remote, "err", why, "unsaid", again)
	}
}

// open reads the PROXY header and shakes hands. All of it together has
// HandshakeTimeout from accept.
func (c *client) open() (net.Conn, Info, error) {
	timer := time.AfterFunc(time.Until(c.accepted.Add(c.l.cfg.HandshakeTimeout)), func() { c.shut(reasonTimeout) })
	defer timer.Stop()
	// What it waits for this node is not its own delay.
	begin := func() {
		if timer.Stop() {
			c.accepted = c.accepted.Add(c.l.deps.Admission.begins.wait(c.l.accepting.Done()))
			timer.Reset(time.Until(c.accepted.Add(c.l.cfg.HandshakeTimeout)))
			if c.l.accepting.Err() != nil {
				c.shut(reasonShutdown) // before its handshake, which would be for nothing
			}
		}
	}

	var nc net.Conn = c.raw
	if c.l.trusts(c.raw.remote.Addr()) {
		if err := c.raw.readProxy(); err != nil {
			return nil, Info{}, &stageError{reasonProxy, err}
		}
		if c.l.banned(c) {
			return nil, Info{}, &stageError{reasonBanned, errBanned}
		}
	}
	info := Info{
		Listener: c.l.cfg.Name, Remote: c.raw.remote, Protocol: c.l.cfg.Kind,
		Greeted: c.slot.greeted, Authenticated: c.authenticated,
	}
	if c.l.cfg.encrypted() {
		tc, err := c.shake(begin)
		if err != nil {
			return nil, Info{}, &stageError{reasonTLS, err}
		}
		state := tc.ConnectionState()
		info.TLS = &state
		nc = tc
	}
	if c.l.cfg.web() {
		w, err := c.upgrade(nc)
		if err != nil {
			return nil, Info{}, &stageError{reasonWebSocket, err}
		}
		nc = w
	}
	c.slot.shaken()
	info.Accepted = c.accepted
	return nc, info, nil
}

func (c *client) authenticated() {
	c.slot.release()
	c.raw.slot.Store(nil)
}

// shake does the TLS handshake. What ends it early closes the socket.
func (c *client) shake(begin func()) (*tls.Conn, error) {
	cfg := c.l.deps.TLS()
	if cfg == nil {
		return nil, errors.New("no TLS settings")
	}
	if c.l.cfg.web() {
		cfg = c.l.webSettings(cfg)
	}
	c.raw.turn = &turn{a: c.l.deps.Admission, slot: c.slot, gone: c.refused.Load, begin: begin}
	defer func() {
		c.raw.turn.giveBack()
		c.raw.turn = nil
	}()
	tc := tls.Server(c.raw, cfg)
	if err := tc.HandshakeContext(context.WithoutCancel(c.l.serving)); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	c.l.metrics.shaken(tc.ConnectionState())
	return tc, nil
}

// webConfig is a copy of TLS settings for WebSocket.
type webConfig struct{ from, to *tls.Config }

// webSettings returns cfg with the one protocol that a WebSocket can be opened
// in. The copy is kept as long as the settings are the same: session tickets of
// one copy are worth nothing to another.
func (l *Listener) webSettings(cfg *tls.Config) *tls.Config {
	if w := l.webTLS.Load(); w != nil && w.from == cfg {
		return w.to
	}
	to := cfg.Clone()
	to.NextProtos = []string{"http/1.1"}
	l.webTLS.Store(&webConfig{from: cfg, to: to})
	return to
}
