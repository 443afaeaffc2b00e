package mesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// Dial opens a connection to a member for a protocol. It blocks for at most
// Config.DialTimeout. The other side judges our certificate after Dial has
// returned (TLS 1.3), so a refusal shows in the first Read.
func (m *Mesh) Dial(ctx context.Context, peer, proto string) (net.Conn, error) {
	addr, ok := m.deps.Addresses(peer)
	if !ok {
		return nil, fmt.Errorf("dial node %s: %w", peer, ErrUnknownPeer)
	}
	return m.DialAddr(ctx, addr, peer, proto)
}

// DialAddr is Dial to an address that is not, or not yet, a member's.
func (m *Mesh) DialAddr(ctx context.Context, addr, peer, proto string) (net.Conn, error) {
	c, err := m.dial(ctx, addr, peer, proto)
	if err != nil {
		m.metrics.handshakes.WithLabelValues("out", "failed").Inc()
		return nil, fmt.Errorf("dial node %s at %s for %s: %w", peer, addr, proto, err)
	}
	m.metrics.handshakes.WithLabelValues("out", "ok").Inc()
	return c, nil
}

func (m *Mesh) dial(ctx context.Context, addr, peer, proto string) (*Conn, error) {
	if m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.DialTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()

	base := m.deps.TLS.Client(peer)
	if base == nil {
		return nil, fmt.Errorf("this node has no certificate for the mesh")
	}
	cfg := base.Clone()
	cfg.NextProtos = []string{proto}
	cfg.MinVersion = tls.VersionTLS13
	cfg.ClientSessionCache = nil

	raw, err := m.deps.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(raw, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	c := newConn(m, tc, raw, peer, proto)
	if err := m.check(tc.ConnectionState(), peer, proto); err != nil {
		c.abort()
		return nil, err
	}
	if err := m.adopt(c); err != nil {
		c.abort()
		return nil, err
	}
	return c, nil
}

func (m *Mesh) check(state tls.ConnectionState, peer, proto string) error {
	if state.NegotiatedProtocol != proto {
		return errNoProtocol
	}
	got, err := m.deps.TLS.Peer(state)
	if err != nil {
		return fmt.Errorf("peer's certificate: %w", err)
	}
	if got != peer {
		return fmt.Errorf("%w (%s)", ErrWrongPeer, got)
	}
	return nil
}
