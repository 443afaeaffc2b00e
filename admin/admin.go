package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says where a Server listens. An empty address opens nothing.
type Config struct {
	Node         string // this node's id
	Socket       string // path of the Unix socket of the API
	HealthListen string // host:port of the probes and metrics
	APIListen    string // host:port of the API with TLS, and of the dashboard
}

// Deps are what a Server serves.
type Deps struct {
	Backend Backend
	// TLS and Access are needed for APIListen.
	TLS      *tls.Config
	Access   Access
	Health   Health
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
}

// Server serves the API and the probes until Close.
type Server struct {
	log     *slog.Logger
	auditor Auditor
	health  net.Listener
	socket  net.Listener
	api     net.Listener
	servers []*http.Server
	serving sync.WaitGroup
	stop    context.CancelFunc
	// watching ends when the server begins to close.
	watching context.Context //nolint:containedctx // it is the server's life
	unwatch  context.CancelFunc
	closing  sync.Once
	err      error
}

// Bounds of one HTTP connection.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	closeTimeout  = 3 * time.Second
)

// Open listens and serves. It fails where another process answers on the socket,
// and takes the place of a socket that a dead one left.
func Open(ctx context.Context, config Config, deps Deps) (*Server, error) {
	s := &Server{log: deps.Logger, auditor: deps.Backend.Auditor}
	// Requests outlive the context of Open but not Close.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.watching, s.unwatch = context.WithCancel(base)
	api := s.apiHandler(deps.Backend)
	if config.Socket != "" {
		listener, err := listenUnix(ctx, config.Socket)
		if err != nil {
			stop()
			return nil, err
		}
		s.socket = listener
		s.serve(base, listener, api)
	}
	if config.APIListen != "" {
		if err := s.openSecure(ctx, base, config, deps, api); err != nil {
			_ = s.Close()
			return nil, err
		}
	}
	if config.HealthListen != "" {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.HealthListen)
		if err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("the health listener cannot be opened: set health.listen to a free address: %w", err)
		}
		s.health = listener
		// Balancers put a PROXY header before their checks, or do not. What it
		// says is of no use here.
		optional := &proxyproto.Listener{
			Listener:          listener,
			ReadHeaderTimeout: headerTimeout,
			ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
				return proxyproto.IGNORE, nil
			},
		}
		s.serve(base, optional, probeHandler(deps.Health, deps.Gatherer))
	}
	return s, nil
}

// HealthAddr returns the address of the health listener, nil if there is none.
func (s *Server) HealthAddr() net.Addr {
	if s.health == nil {
		return nil
	}
	return s.health.Addr()
}

// Close ends requests under way after a short grace and frees the addresses.
func (s *Server) Close() error {
	s.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		s.unwatch()
		var errs []error
		// Only those who wait on a context end by themselves: give the others
		// the grace first.
		for _, server := range s.servers {
			if err := server.Shutdown(ctx); err != nil {
				s.stop()
				errs = append(errs, server.Close())
			}
		}
		s.stop()
		s.serving.Wait()
		s.err = errors.Join(errs...)
	})
	return s.err
}

func (s *Server) serve(base context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       time.Minute,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.servers = append(s.servers, server)
	s.serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the admin listener ended: restart the node", "address", listener.Addr().String(), "err", err)
		}
	})
}

// listenUnix makes a socket that only its owner may open.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another node answers on %s: stop it, or give this one its own data directory", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("the admin socket that an ended process left cannot be removed: %w", err)
		}
	}
	// Linux gives the file the mode of the unbound socket: nobody else can
	// connect, not even between bind and a chmod.
	private := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var modeErr error
		if err := raw.Control(func(fd uintptr) { modeErr = syscall.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return modeErr
	}}
	listener, err := private.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the admin socket cannot be opened: set admin.socket to a path of at most 107 bytes in a directory of this user: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("the admin socket cannot be made private: %w", err)
	}
	return listener, nil
}

// probeHandler serves the probes and the metrics.
func probeHandler(health Health, gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	if health != nil {
		mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
			if err := health.Live(); err != nil {
				writeError(w, &Error{Unavailable, err.Error()})
				return
			}
			writeJSON(w, http.StatusOK, map[string]bool{"live": true})
		})
		mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
			ready, status := health.Ready(), http.StatusOK
			switch {
			case ready.Ready():
			case ready.Draining && ready.Lease && ready.CaughtUp && r.URL.Query().Get("draining") == "404":
				// HAProxy (http-check disable-on-404) sends nobody new there and leaves alone
				// who is connected, until the node sends them away.
				status = http.StatusNotFound
			default:
				status = http.StatusServiceUnavailable
			}
			writeJSON(w, status, struct {
				Ready bool `json:"ready"`
				Readiness
			}{ready.Ready(), ready})
		})
	}
	if gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	}
	return mux
}
