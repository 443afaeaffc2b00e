package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The protocols that this package speaks over the mesh, as their ALPN names.
const (
	ProtoRaft  = "mqc-raft/1"
	ProtoPack  = "mqc-pack/1"
	ProtoLease = "mqc-lease/1"
)

// Raft's names for a server carry what our side needs: the id of its node, which
// the certificate must prove, and of its store, so that a node that comes back
// with an empty disk is another server.
func serverID(node, store string) raft.ServerID { return raft.ServerID(node + "/" + store) }

func serverAddress(node, store, address string) raft.ServerAddress {
	return raft.ServerAddress(node + "/" + store + "@" + address)
}

func splitID(id raft.ServerID) (node, store string) {
	node, store, _ = strings.Cut(string(id), "/")
	return node, store
}

func splitAddress(a raft.ServerAddress) (node, store, address string) {
	id, address, _ := strings.Cut(string(a), "@")
	node, store = splitID(raft.ServerID(id))
	return node, store, address
}

// raftAddr is a raft.ServerAddress as a net.Addr.
type raftAddr string

func (raftAddr) Network() string  { return "mesh" }
func (a raftAddr) String() string { return string(a) }

// streamLayer gives raft's network transport connections of the mesh. It knows
// every one of them, because raft's transport leaves accepted and pooled ones
// open when it closes.
type streamLayer struct {
	self   raft.ServerAddress
	dial   func(ctx context.Context, node, store, proto string) (net.Conn, error)
	learn  func(node, address string)
	accept chan net.Conn
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	conns map[*trackedConn]struct{}
}

func newStreamLayer(c *Consensus, self raft.ServerAddress) *streamLayer {
	ctx, cancel := context.WithCancel(context.Background())
	return &streamLayer{
		self: self, dial: c.dialPeer, learn: c.deps.Learn,
		accept: make(chan net.Conn), ctx: ctx, cancel: cancel,
		conns: map[*trackedConn]struct{}{},
	}
}

// Accept implements net.Listener.
func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-s.accept:
		return s.track(c)
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// hand gives raft a connection that the mesh accepted.
func (s *streamLayer) hand(c net.Conn) error {
	select {
	case s.accept <- c:
		return nil
	case <-s.ctx.Done():
		return errors.Join(net.ErrClosed, c.Close())
	}
}

// Dial implements raft.StreamLayer. A server that dials itself gets a pipe: that
// is how a lone voter tells itself to stand for election (see elect).
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if address == s.self {
		near, far := net.Pipe()
		if err := s.hand(far); err != nil {
			return nil, errors.Join(err, near.Close())
		}
		return s.track(near)
	}
	node, store, host := splitAddress(address)
	if s.learn != nil {
		s.learn(node, host)
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	c, err := s.dial(ctx, node, store, ProtoRaft)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return s.track(c)
}

func (s *streamLayer) track(c net.Conn) (net.Conn, error) {
	t := &trackedConn{Conn: c, layer: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	s.conns[t] = struct{}{}
	return t, nil
}

// Close implements net.Listener: it ends every connection, so that nothing of
// raft waits for a dead peer.
func (s *streamLayer) Close() error {
	s.cancel()
	s.mu.Lock()
	conns := s.conns
	s.conns = map[*trackedConn]struct{}{}
	s.mu.Unlock()
	var errs []error
	for c := range conns {
		errs = append(errs, c.Conn.Close())
	}
	return errors.Join(errs...)
}

// Addr implements net.Listener.
func (s *streamLayer) Addr() net.Addr { return raftAddr(s.self) }

type trackedConn struct {
	net.Conn
	layer *streamLayer
}

func (t *trackedConn) Close() error {
	t.layer.mu.Lock()
	delete(t.layer.conns, t)
	t.layer.mu.Unlock()
	return t.Conn.Close()
}

// elect makes a lone voter stand for election at once instead of waiting a
// heartbeat timeout for a leader that cannot exist.
func elect(t raft.Transport, id raft.ServerID, address raft.ServerAddress) error {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(address)}
	err := t.TimeoutNow(id, address, &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
	if err != nil {
		return fmt.Errorf("stand for election: %w", err)
	}
	return nil
}
