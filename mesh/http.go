package mesh

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The limits of HTTP on the mesh. A request that takes longer is one that
// should have been answered with "later".
const (
	httpHeaderTimeout = 10 * time.Second
	httpReadTimeout   = 30 * time.Second
	httpWriteTimeout  = 60 * time.Second
	httpIdleTimeout   = 2 * time.Minute
	httpMaxHeader     = 16 << 10
	// A client drops an idle connection before the server does, so that no
	// request meets a connection that is being closed.
	httpClientIdle = 90 * time.Second
)

type peerKey struct{}

// PeerFrom returns the node id in the certificate of the peer that sent the
// request of ctx; "" for ProtoJoin, and for a ctx that is not from ServeHTTP.
func PeerFrom(ctx context.Context) string {
	peer, _ := ctx.Value(peerKey{}).(string)
	return peer
}

// ServeHTTP registers h for the connections of a protocol, as HTTP/1.1 with
// bounded times and bodies (Config.MaxBody). A panic in h ends its connection,
// counted and logged. It must be called before Start.
func (m *Mesh) ServeHTTP(proto string, h http.Handler) {
	h = http.MaxBytesHandler(m.recovered(proto, h), m.cfg.MaxBody)
	ln := m.Listener(proto)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	srv := &http.Server{
		Handler:           h,
		Protocols:         &protocols,
		ReadHeaderTimeout: httpHeaderTimeout,
		ReadTimeout:       httpReadTimeout,
		WriteTimeout:      httpWriteTimeout,
		IdleTimeout:       httpIdleTimeout,
		MaxHeaderBytes:    httpMaxHeader,
		ErrorLog:          log.New(debugWriter{m.log}, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if mc, ok := c.(*Conn); ok {
				ctx = context.WithValue(ctx, peerKey{}, mc.peer)
			}
			return ctx
		},
		// Close waits for the handlers too. The goroutine that reports a new
		// connection is itself waited for, so the count never starts from zero.
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				m.wg.Add(1)
			case http.StateClosed, http.StateHijacked:
				m.wg.Done()
			}
		},
	}
	if proto == ProtoJoin {
		srv.SetKeepAlivesEnabled(false)
	}
	m.mu.Lock()
	m.cleanups = append(m.cleanups, func() { _ = srv.Close() })
	m.mu.Unlock()
	m.wg.Go(func() {
		if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			m.log.Error("mesh: HTTP server ended", "protocol", proto, "err", err)
		}
	})
}

func (m *Mesh) recovered(proto string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					m.caught(proto, PeerFrom(r.Context()), v)
				}
				panic(http.ErrAbortHandler) // ends the connection, silently
			}
		}()
		h.ServeHTTP(w, r)
	})
}

type clientKey struct{ peer, proto string }

// HTTPClient returns the client that reaches a peer's ServeHTTP of the
// protocol; the host of its URLs is of no meaning, the scheme is http (the mesh
// is the TLS). It reuses connections and never follows a redirect.
func (m *Mesh) HTTPClient(peer, proto string) *http.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := clientKey{peer, proto}
	if c, ok := m.clients[key]; ok {
		return c
	}
	c := &http.Client{
		Timeout: httpWriteTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return m.Dial(ctx, peer, proto)
			},
			MaxConnsPerHost:        16,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        httpClientIdle,
			ResponseHeaderTimeout:  httpReadTimeout,
			MaxResponseHeaderBytes: httpMaxHeader,
			DisableCompression:     true,
		},
	}
	if !m.closed {
		m.clients[key] = c
	}
	return c
}

// Listener registers a protocol and returns its incoming connections as a
// net.Listener, for users that want one; they are *Conn. Connections wait in it
// for at most Config.HandshakeTimeout. It must be called before Start.
func (m *Mesh) Listener(proto string) net.Listener {
	l := &listener{mesh: m, conns: make(chan net.Conn), done: make(chan struct{})}
	m.Handle(proto, l.hand)
	return l
}

type listener struct {
	mesh  *Mesh
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) hand(_ string, c net.Conn) {
	late := time.NewTimer(l.mesh.cfg.HandshakeTimeout)
	defer late.Stop()
	select {
	case l.conns <- c:
		return
	case <-l.done:
	case <-l.mesh.ctx.Done():
	case <-late.C:
	}
	_ = c.Close()
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
	case <-l.mesh.ctx.Done():
	}
	return nil, net.ErrClosed
}

// Close stops Accept; the mesh goes on.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.mesh.Addr() }

// debugWriter turns the lines of a log.Logger into debug records.
type debugWriter struct{ log *slog.Logger }

var _ io.Writer = debugWriter{}

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug("mesh: " + strings.TrimSpace(string(p)))
	return len(p), nil
}
