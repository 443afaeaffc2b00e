package mesh

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// accept runs until the listener is closed. An error of the listener itself
// (no file descriptors left) is waited out, because nothing else would bring
// the node back.
func (m *Mesh) accept() {
	const maxPause = time.Second
	pause := time.Duration(0)
	for {
		raw, err := m.ln.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			pause = min(max(2*pause, 5*time.Millisecond), maxPause)
			m.log.Warn("mesh: cannot accept", "err", err)
			select {
			case <-time.After(pause):
			case <-m.ctx.Done():
				return
			}
			continue
		}
		pause = 0
		slot := m.budget.take(raw)
		m.wg.Go(func() { m.serve(raw, slot) })
	}
}

// serve takes one incoming connection through its handshake and runs the
// handler of its protocol.
func (m *Mesh) serve(raw net.Conn, slot *slot) {
	c, h, err := m.admit(raw, slot)
	if err != nil {
		slot.release()
		_ = raw.Close()
		m.metrics.handshakes.WithLabelValues("in", "refused").Inc()
		m.refused.note(m.log, raw.RemoteAddr(), err)
		return
	}
	m.metrics.handshakes.WithLabelValues("in", "ok").Inc()
	defer func() {
		if v := recover(); v != nil {
			m.caught(c.proto, c.peer, v)
			c.abort()
		}
	}()
	h(c.peer, c)
}

func (m *Mesh) admit(raw net.Conn, slot *slot) (*Conn, Handler, error) {
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.HandshakeTimeout)
	defer cancel()
	if err := raw.SetDeadline(time.Now().Add(m.cfg.HandshakeTimeout)); err != nil {
		return nil, nil, fmt.Errorf("set the handshake deadline: %w", err)
	}
	tc := tls.Server(raw, m.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	state := tc.ConnectionState()
	proto := state.NegotiatedProtocol
	h, ok := m.handlers[proto]
	if !ok {
		return nil, nil, errNoProtocol
	}
	peer := ""
	if proto != ProtoJoin {
		var err error
		if peer, err = m.deps.TLS.Peer(state); err != nil {
			return nil, nil, fmt.Errorf("peer's certificate: %w", err)
		}
		if peer == "" {
			return nil, nil, errors.New("the peer's certificate has no node id")
		}
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, nil, fmt.Errorf("clear the handshake deadline: %w", err)
	}
	c := newConn(m, tc, raw, peer, proto)
	c.incoming = true
	if peer == "" {
		c.expire = time.AfterFunc(m.cfg.JoinLifetime, c.abort)
		c.slot = slot // for as long as it lives
	}
	if err := m.adopt(c); err != nil {
		c.abort()
		return nil, nil, err
	}
	if peer != "" {
		slot.release()
	}
	return c, h, nil
}

var errNoProtocol = errors.New("the other side offers no protocol of the mesh: check that its address is not meant for MQTT clients, and the version of the node")

// serverConfig chooses what to ask of a client by the protocol it wants. It
// wants exactly one, so that nobody can ask for the open protocol and get
// another.
func (m *Mesh) serverConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if len(hello.SupportedProtos) != 1 {
		return nil, errNoProtocol
	}
	proto := hello.SupportedProtos[0]
	if _, ok := m.handlers[proto]; !ok {
		return nil, errNoProtocol
	}
	base := m.deps.TLS.Server()
	if base != nil && base.GetConfigForClient != nil {
		chosen, err := base.GetConfigForClient(hello)
		if err != nil {
			return nil, err
		}
		if chosen != nil {
			base = chosen
		}
	}
	if base == nil {
		return nil, errors.New("this node has no certificate for the mesh")
	}
	cfg := base.Clone()
	cfg.GetConfigForClient = nil
	cfg.NextProtos = []string{proto}
	cfg.MinVersion = tls.VersionTLS13
	// A resumed connection would skip what a revocation must reach.
	cfg.SessionTicketsDisabled = true
	if proto == ProtoJoin {
		cfg.ClientAuth = tls.NoClientCert
		cfg.VerifyPeerCertificate, cfg.VerifyConnection = nil, nil
		return cfg, nil
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if cfg.ClientCAs == nil {
		// Without it crypto/tls would trust the system's authorities.
		return nil, errors.New("this node has no cluster CA for the mesh")
	}
	return cfg, nil
}

func (m *Mesh) caught(proto, peer string, v any) {
	m.metrics.panics.WithLabelValues(proto).Inc()
	m.log.Error("mesh: a handler panicked; its connection is closed",
		"protocol", proto, "member", peer, "err", fmt.Sprint(v), "stack", string(debug.Stack()))
}

// adopt makes c one of the connections that Close ends.
func (m *Mesh) adopt(c *Conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if c.incoming && c.peer != "" {
		if m.perPeer[c.peer] >= m.cfg.MaxPerPeer {
			return fmt.Errorf("node %s has %d connections already", c.peer, m.cfg.MaxPerPeer)
		}
		m.perPeer[c.peer]++
	}
	m.conns[c] = struct{}{}
	c.adopted = true
	m.metrics.conns.WithLabelValues(c.proto, c.direction()).Inc()
	return nil
}

// abandon is the opposite of adopt.
func (m *Mesh) abandon(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !c.adopted {
		return
	}
	c.adopted = false
	delete(m.conns, c)
	if c.incoming && c.peer != "" {
		if m.perPeer[c.peer]--; m.perPeer[c.peer] == 0 {
			delete(m.perPeer, c.peer)
		}
	}
	m.metrics.conns.WithLabelValues(c.proto, c.direction()).Dec()
}

// budget bounds the connections that have not proved who they are. When it is
// full the oldest goes: a member's handshake takes milliseconds, so whoever
// holds connections open only drives out his own.
type budget struct {
	max     int
	metrics *metrics
	mu      sync.Mutex
	slots   list.List // of *slot, oldest first
}

type slot struct {
	b    *budget
	conn net.Conn
	elem *list.Element // nil once released
}

func newBudget(n int, met *metrics) *budget { return &budget{max: n, metrics: met} }

func (b *budget) take(c net.Conn) *slot {
	s := &slot{b: b, conn: c}
	var victim net.Conn
	b.mu.Lock()
	if b.slots.Len() >= b.max {
		oldest := b.slots.Remove(b.slots.Front()).(*slot)
		oldest.elem = nil
		victim = oldest.conn
	}
	s.elem = b.slots.PushBack(s)
	b.metrics.unauthenticated.Set(float64(b.slots.Len()))
	b.mu.Unlock()
	if victim != nil {
		b.metrics.evicted.Inc()
		_ = victim.Close()
	}
	return s
}

func (s *slot) release() {
	if s == nil {
		return
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.elem != nil {
		s.b.slots.Remove(s.elem)
		s.elem = nil
		s.b.metrics.unauthenticated.Set(float64(s.b.slots.Len()))
	}
}
