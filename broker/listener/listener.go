// Package listener accepts the connections of MQTT clients over TCP, TLS,
// WebSocket and secure WebSocket, and hands the engine a net.Conn that carries
// MQTT and nothing else. It is where connections are counted, limited and
// refused before they cost anything; it knows no packet.
package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/mqcluster/mqcluster/broker/refused"
)

// Info is what the listener knows of a connection that it hands over.
type Info struct {
	// Listener is Config.Name.
	Listener string
	// Remote is the client's address: that of the PROXY header where one was
	// accepted, else the socket's.
	Remote netip.AddrPort
	// TLS is nil without TLS.
	TLS *tls.ConnectionState
	// Protocol is Config.Kind: tcp, tls, ws or wss.
	Protocol string
	// Accepted is when the connection was accepted: the time that it has to send
	// CONNECT runs from here.
	Accepted time.Time
	// Greeted is to be called when a whole CONNECT came: from then on the
	// connection is not closed to make room for another that is not
	// authenticated. Calling it is optional.
	Greeted func()
	// Authenticated is to be called when CONNECT succeeded: it gives back the
	// connection's share of the Budget. It may be called more than once. Until
	// then the connection may read 256 KiB.
	Authenticated func()
}

// Deps is what a Listener needs of others.
type Deps struct {
	// TLS returns the settings of now; called for every connection. Needed for
	// tls and wss only.
	TLS func() *tls.Config
	// Serve greets a client, on a goroutine of its own, and returns what serves it
	// until it has gone, which runs on another; nil if it has gone already. Then the
	// connection is closed. ctx ends when Drain loses patience. A panic is
	// recovered, counted and logged, and ends this connection only. No deadline
	// is set on c when Serve gets it.
	Serve func(ctx context.Context, c net.Conn, info Info) (rest func())
	// Budget is shared by all listeners of a node.
	Budget *Budget
	// Admission, too; nil means one of this listener's own without limits but that
	// on handshakes.
	Admission *Admission
	// Explain says in one sentence why a handshake failed, for the log; nil means
	// the error's own words.
	Explain func(error) string
	// Banned tells whether nobody may connect from an address: that of the PROXY
	// header where there is one. nil means none. It is asked for every connection.
	Banned func(netip.Addr) bool
	// Refused is told of every connection that is refused, by reason as in the
	// metric, unless nothing but a balancer's address is known of it; nil is nobody. It
	// must not block.
	Refused func(reason string, remote netip.AddrPort)
	Logger  *slog.Logger
	// Registerer may be shared by all listeners of a node; nil means no metrics.
	Registerer prometheus.Registerer
}

// Listener accepts connections until it is closed.
type Listener struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	ln      *net.TCPListener
	accept  func() (*net.TCPConn, error)
	sources []netip.Prefix
	limiter *rate.Limiter // nil without a limit
	metrics *metrics
	webTLS  atomic.Pointer[webConfig]
	told    refusals

	// accepting ends with Close, serving when Drain loses patience.
	accepting, serving     context.Context
	stopAccept, stopServes context.CancelFunc
	acceptor, clients      sync.WaitGroup

	mu    sync.Mutex
	conns map[*client]struct{}
}

// Open binds the address and starts to accept. ctx bounds the binding only.
func Open(ctx context.Context, cfg Config, deps Deps) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Serve == nil || deps.Budget == nil || cfg.encrypted() && deps.TLS == nil {
		return nil, fmt.Errorf("listener %s: Serve, Budget and, for %s, TLS are needed", cfg.Name, cfg.Kind)
	}
	l := &Listener{cfg: cfg.withDefaults(), deps: deps, log: deps.Logger, conns: map[*client]struct{}{}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.log = l.log.With("listener", cfg.Name)
	if deps.Admission == nil {
		l.deps.Admission = NewAdmission(AdmissionConfig{})
	}
	var err error
	if l.sources, err = cfg.sources(); err != nil {
		return nil, err
	}
	if l.metrics, err = newMetrics(deps.Registerer, cfg.Name); err != nil {
		return nil, fmt.Errorf("listener %s: register metrics: %w", cfg.Name, err)
	}
	if cfg.ConnectRate > 0 {
		l.limiter = rate.NewLimiter(rate.Limit(cfg.ConnectRate), l.cfg.ConnectBurst)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, bindError(cfg, err)
	}
	l.ln = ln.(*net.TCPListener)
	l.accept = l.ln.AcceptTCP
	l.start(context.WithoutCancel(ctx))
	return l, nil
}

func (l *Listener) start(ctx context.Context) {
	l.accepting, l.stopAccept = context.WithCancel(ctx)
	l.serving, l.stopServes = context.WithCancel(ctx)
	l.acceptor.Go(l.run)
}

// bindError says in one sentence why the address cannot be listened on.
func bindError(cfg Config, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listener %s: %s is in use: stop the program that listens there or choose another port: %w", cfg.Name, cfg.Address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listener %s: %s may not be bound: choose a port above 1023 or grant CAP_NET_BIND_SERVICE: %w", cfg.Name, cfg.Address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listener %s: no interface has the address of %s: choose one of this machine's or 0.0.0.0: %w", cfg.Name, cfg.Address, err)
	}
	return fmt.Errorf("listener %s: cannot listen on %s: check the address: %w", cfg.Name, cfg.Address, err)
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Close stops accepting and ends the connections that are not with Serve yet.
// Those that are live on; Drain waits for them. It may be called more than once.
func (l *Listener) Close() error {
	l.stopAccept()
	err := l.ln.Close()
	l.acceptor.Wait()
	l.mu.Lock()
	for c := range l.conns {
		if !c.handed {
			c.shut(reasonShutdown)
		}
	}
	l.mu.Unlock()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("listener %s: close: %w", l.cfg.Name, err)
	}
	return nil
}

// Drain closes the listener and waits until every Serve has returned. When ctx
// ends before that, it cancels the context of Serve, closes the connections
// left, and returns ctx's error without waiting longer.
func (l *Listener) Drain(ctx context.Context) error {
	err := l.Close()
	done := make(chan struct{})
	go func() {
		l.clients.Wait()
		close(done)
	}()
	select {
	case <-done:
		l.stopServes()
		return err
	case <-ctx.Done():
	}
	l.stopServes()
	l.mu.Lock()
	n := len(l.conns)
	for c := range l.conns {
		c.raw.cut()
	}
	l.mu.Unlock()
	return errors.Join(err, fmt.Errorf("listener %s: %d connections were cut: %w", l.cfg.Name, n, ctx.Err()))
}

// Backoff between failed accepts. Descriptors come free in their own time;
// trying at once would only heat a core.
const (
	firstBackoff = 5 * time.Millisecond
	mostBackoff  = time.Second
)

// run accepts until the listener is closed.
func (l *Listener) run() {
	backoff := firstBackoff
	for {
		c, err := l.accept()
		switch {
		case l.accepting.Err() != nil:
			if err == nil {
				_ = c.Close() // it came with the end; nothing was promised to it
			}
			return
		case err != nil:
			l.metrics.acceptErrors.Inc()
			l.log.Warn("cannot accept connections: raise the limit of open files if that is the cause", "err", err, "retry", backoff)
			if waitFor(l.accepting, nil, backoff) != nil {
				return
			}
			backoff = min(2*backoff, mostBackoff)
		default:
			backoff = firstBackoff
			l.admit(c)
		}
	}
}

// admit gives an accepted connection its place or closes it.
func (l *Listener) admit(tc *net.TCPConn) {
	c := &client{l: l, accepted: time.Now(), raw: &tcpConn{TCPConn: tc, remote: remoteOf(tc), ends: l.deps.Admission.ends}}
	if l.banned(c) && !l.trusts(c.raw.remote.Addr()) {
		c.shut(reasonBanned)
		return
	}
	if l.limiter != nil && !l.limiter.Allow() {
		c.shut(reasonRate)
		return
	}
	if reason := l.enter(c); reason != "" {
		c.shut(reason)
		return
	}
	l.metrics.open.Inc()
	s, err := l.deps.Budget.acquire(l.accepting, l.sourceOf(c), c.evict)
	if err != nil {
		c.shut(reasonShutdown)
		c.finish()
		return
	}
	c.slot = s
	c.raw.slot.Store(s)
	l.clients.Go(c.run)
}

// banned tells whether the connection's address is.
func (l *Listener) banned(c *client) bool {
	return l.deps.Banned != nil && l.deps.Banned(c.raw.remote.Addr())
}

// sourceOf is whose the connection is, as far as the Budget tells sources apart:
// nobody's where a balancer stands for many.
func (l *Listener) sourceOf(c *client) netip.Addr {
	if a := c.raw.remote.Addr(); !l.trusts(a) {
		return refused.Source(a)
	}
	return netip.Addr{}
}

// enter counts the connection, or says why it may not be.
func (l *Listener) enter(c *client) (reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.MaxConnections > 0 && len(l.conns) >= l.cfg.MaxConnections {
		return reasonMax
	}
	if reason := l.deps.Admission.enter(); reason != "" {
		return reason
	}
	l.conns[c] = struct{}{}
	return ""
}
