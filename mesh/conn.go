package mesh

import (
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"
)

// closeGrace is how long Close waits for the TLS goodbye to leave.
const closeGrace = 500 * time.Millisecond

// Conn is a connection of the mesh. Every Write has a deadline of its own,
// sooner than any that the user has set; after a Write that missed it the
// connection is broken.
type Conn struct {
	*tls.Conn
	mesh        *Mesh
	raw         net.Conn
	peer, proto string
	incoming    bool
	adopted     bool        // guarded by mesh.mu
	slot        *slot       // nil if authenticated
	expire      *time.Timer // nil if it may live for ever
	close       sync.Once

	mu     sync.Mutex
	writes time.Time // the user's write deadline
}

func newConn(m *Mesh, tc *tls.Conn, raw net.Conn, peer, proto string) *Conn {
	return &Conn{Conn: tc, mesh: m, raw: raw, peer: peer, proto: proto}
}

// Peer returns the node id in the other side's certificate, "" if it presented
// none (ProtoJoin).
func (c *Conn) Peer() string { return c.peer }

func (c *Conn) direction() string {
	if c.incoming {
		return "in"
	}
	return "out"
}

// Write writes all of p or fails, within Config.WriteTimeout.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetWriteDeadline(c.soonest())
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *Conn) soonest() time.Time {
	d := time.Now().Add(c.mesh.cfg.WriteTimeout)
	if !c.writes.IsZero() && c.writes.Before(d) {
		d = c.writes
	}
	return d
}

// SetWriteDeadline sets a deadline; the one of each Write stays.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = t
	return c.Conn.SetWriteDeadline(c.soonest())
}

// SetDeadline sets both deadlines; the one of each Write stays.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.Conn.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// Close says goodbye if the other side takes it at once and closes the
// connection. It is idempotent.
func (c *Conn) Close() error {
	var err error
	c.close.Do(func() {
		hurry := time.AfterFunc(closeGrace, func() { _ = c.raw.Close() })
		err = c.Conn.Close()
		hurry.Stop()
		c.gone()
	})
	return err
}

// abort closes the connection without a goodbye.
func (c *Conn) abort() {
	_ = c.raw.Close()
	c.close.Do(c.gone)
}

func (c *Conn) gone() {
	if c.expire != nil {
		c.expire.Stop()
	}
	c.slot.release()
	c.mesh.abandon(c)
}

// refusals keeps the log readable under a flood of bad connections.
type refusals struct {
	mu    sync.Mutex
	last  time.Time
	muted int
}

func (r *refusals) note(log *slog.Logger, from net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.last.IsZero() || now.Sub(r.last) > 10*time.Second {
		log.Warn("mesh: connection refused", "address", from.String(), "err", err, "unlogged", r.muted)
		r.last, r.muted = now, 0
		return
	}
	r.muted++
}
