// Package mesh is the one port between the nodes: TLS 1.3 with a certificate of
// the cluster on both sides, ALPN to choose the protocol, and a deadline on
// every dial, handshake and write. It knows who a peer is (from the certificate,
// never from a frame) and nothing of what the protocols say.
package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The protocols of the mesh, as ALPN names.
const (
	ProtoRaft    = "mqc-raft/1"
	ProtoGossip  = "mqc-gossip/1"
	ProtoForward = "mqc-forward/1"
	ProtoControl = "mqc-control/1"
	ProtoPack    = "mqc-pack/1"
	// ProtoJoin asks for no client certificate: its peer is "" and its
	// connections stay in the budget of the unauthenticated, for JoinLifetime at
	// most.
	ProtoJoin = "mqc-join/1"
)

var (
	// ErrClosed: the mesh was closed.
	ErrClosed = errors.New("the mesh of this node is closed")
	// ErrUnknownPeer: no address is known for the node.
	ErrUnknownPeer = errors.New("no mesh address is known for the node: it is not a member, or this node has not caught up yet")
	// ErrWrongPeer: the other side's certificate names another node.
	ErrWrongPeer = errors.New("the certificate names another node: check the member's mesh address")
)

// TLS is what the mesh needs of the node's certificates. Server and Client are
// asked anew for every handshake, so that renewed certificates and a rotated CA
// act at once; what they return is not changed by the mesh.
type TLS interface {
	// Server returns the configuration of the accepting side; ClientCAs must be
	// set.
	Server() *tls.Config
	// Client returns the configuration for a connection to peer; it must verify
	// that the other side's certificate is the peer's.
	Client(peer string) *tls.Config
	// Peer returns the node id in the certificate of a verified connection.
	Peer(tls.ConnectionState) (string, error)
}

// Config says where the mesh listens and what it puts up with. Zero values take
// the defaults given.
type Config struct {
	// Node is this node's id.
	Node string
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// HandshakeTimeout bounds an incoming handshake; 5 s.
	HandshakeTimeout time.Duration
	// DialTimeout bounds connect and handshake of an outgoing one; 5 s.
	DialTimeout time.Duration
	// WriteTimeout bounds each Write; 10 s.
	WriteTimeout time.Duration
	// MaxUnauthenticated bounds the connections that have not proved a node id;
	// beyond it the oldest of them is closed; 64.
	MaxUnauthenticated int
	// MaxPerPeer bounds the incoming connections of one peer; 256.
	MaxPerPeer int
	// JoinLifetime bounds a connection without a client certificate; 60 s.
	JoinLifetime time.Duration
	// MaxBody bounds the body of an HTTP request, in bytes; 4 MiB.
	MaxBody int64
}

func (c *Config) setDefaults() {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&c.HandshakeTimeout, 5*time.Second)
	or(&c.DialTimeout, 5*time.Second)
	or(&c.WriteTimeout, 10*time.Second)
	or(&c.JoinLifetime, time.Minute)
	if c.MaxUnauthenticated <= 0 {
		c.MaxUnauthenticated = 64
	}
	if c.MaxPerPeer <= 0 {
		c.MaxPerPeer = 256
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 4 << 20
	}
}

// Deps are the parts that the mesh is plugged into.
type Deps struct {
	TLS TLS
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// Addresses returns the mesh address (host:port) of a node.
	Addresses func(node string) (addr string, ok bool)
	// Dial and Listen replace the network, for tests that cut it; nil is TCP.
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Listen func(ctx context.Context, network, addr string) (net.Listener, error)
}

// Handler serves one incoming connection. It owns c and closes it, and may
// return before c is done with; a panic in it closes c. peer is the node id in
// the certificate, "" for ProtoJoin.
type Handler func(peer string, c net.Conn)

// Mesh is one node's end of the mesh. It is safe for concurrent use.
type Mesh struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	ln      net.Listener
	tls     *tls.Config // of the accepting side, chooses by client
	budget  *budget

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	started  bool
	closed   bool
	handlers map[string]Handler // fixed once started
	conns    map[*Conn]struct{}
	perPeer  map[string]int // incoming
	clients  map[clientKey]*http.Client
	cleanups []func()
	refused  refusals
}

// Open binds the port, so that it is known to be free; nobody is served before
// Start.
func Open(ctx context.Context, cfg Config, deps Deps) (*Mesh, error) {
	cfg.setDefaults()
	if deps.TLS == nil || deps.Addresses == nil {
		return nil, errors.New("mesh: Deps.TLS and Deps.Addresses are required")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}
	if deps.Dial == nil {
		deps.Dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	if deps.Listen == nil {
		deps.Listen = (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen
	}
	met, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the mesh metrics: %w", err)
	}
	ln, err := deps.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		met.unregister()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("the mesh address %s is in use by another process: stop it or choose another mesh address: %w", cfg.Listen, err)
		}
		return nil, fmt.Errorf("listen on the mesh address %s: %w", cfg.Listen, err)
	}
	m := &Mesh{
		cfg: cfg, deps: deps, log: deps.Logger, metrics: met, ln: ln,
		handlers: map[string]Handler{},
		conns:    map[*Conn]struct{}{},
		perPeer:  map[string]int{},
		clients:  map[clientKey]*http.Client{},
	}
	m.budget = newBudget(cfg.MaxUnauthenticated, met)
	m.tls = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: m.serverConfig}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

// Handle registers the handler of a protocol. It must be called before Start,
// and once per protocol; otherwise it panics.
func (m *Mesh) Handle(proto string, h Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started {
		panic("mesh: Handle after Start")
	}
	if _, ok := m.handlers[proto]; ok {
		panic("mesh: two handlers of " + proto)
	}
	m.handlers[proto] = h
}

// Start begins to accept connections.
func (m *Mesh) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started || m.closed {
		return
	}
	m.started = true
	m.wg.Go(m.accept)
}

// Addr returns the address that the mesh is bound to.
func (m *Mesh) Addr() net.Addr { return m.ln.Addr() }

// Disconnect ends every connection with a peer, incoming and dialled: its
// certificate was revoked, or it is no member any more. New ones are for TLS and
// Addresses to refuse. It does not wait for handlers.
func (m *Mesh) Disconnect(peer string) {
	m.mu.Lock()
	var conns []*Conn
	for c := range m.conns {
		if c.peer == peer {
			conns = append(conns, c)
		}
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.abort()
	}
}

// Close ends the listener and every connection, dialled ones included, and
// waits until every handler has returned. It is idempotent.
func (m *Mesh) Close() error {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	conns := make([]*Conn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	cleanups := m.cleanups
	m.cleanups = nil
	clients := m.clients
	m.clients = map[clientKey]*http.Client{}
	m.mu.Unlock()

	var err error
	if first {
		m.cancel()
		err = m.ln.Close()
	}
	for _, f := range cleanups {
		f()
	}
	for _, c := range conns {
		c.abort()
	}
	m.wg.Wait()
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	if first {
		m.metrics.unregister()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the mesh listener: %w", err)
	}
	return nil
}
