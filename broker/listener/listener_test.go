package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTCP(t *testing.T) {
	h := open(t, Config{Kind: KindTCP}, nil)
	c := h.dial(t)
	echo(t, c, "hello")
	i := h.info(t)
	want, _ := netip.ParseAddrPort(c.LocalAddr().String())
	if i.Remote != want || i.TLS != nil || i.Protocol != "tcp" || i.Listener != "test" || i.Accepted.IsZero() {
		t.Errorf("info %+v", i)
	}
	if h.metric("mqcluster_listener_connections", "") != 1 || h.metric("mqcluster_listener_accepted_total", "") != 1 ||
		h.metric("mqcluster_listener_handshake_seconds", "") != 1 {
		t.Error("metrics do not show the connection")
	}
	_ = c.Close()
	eventually(t, "connection gone", func() bool { return h.metric("mqcluster_listener_connections", "") == 0 })
}

// A connection to plain TCP writes several buffers in one system call, which it
// does only if it has the methods of *net.TCPConn.
func TestTCPWritesVectors(t *testing.T) {
	h := open(t, Config{Kind: KindTCP}, func(h *harness, _ *Deps) {
		h.serve = func(_ context.Context, c net.Conn, _ Info) {
			if _, ok := c.(interface {
				SyscallConn() (syscall.RawConn, error)
			}); !ok {
				t.Error("the connection hides its socket")
			}
			_, _ = (&net.Buffers{[]byte("a"), []byte("b")}).WriteTo(c)
		}
	})
	if got, err := io.ReadAll(h.dial(t)); string(got) != "ab" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestTLS(t *testing.T) {
	server, client := settings(t)
	h := open(t, Config{Kind: KindTLS}, withTLS(server))
	client.Certificates = server.Certificates
	c := tls.Client(h.dial(t), client)
	echo(t, c, "hello")
	if i := h.info(t); i.TLS == nil || len(i.TLS.PeerCertificates) != 1 || i.Protocol != "tls" {
		t.Errorf("info %+v", i)
	}
	plain := h.dial(t)
	_, _ = io.WriteString(plain, "\x10\x0C\x00\x04MQTT\x04\x02\x00\x3C\x00\x00")
	expectClosed(t, plain)
	eventually(t, "plain text refused", func() bool { return h.refused(reasonTLS) == 1 })
}

func TestMaxConnections(t *testing.T) {
	h := open(t, Config{Kind: KindTCP, MaxConnections: 1}, nil)
	first := h.dial(t)
	echo(t, first, "x")
	h.dialRefused(t)
	if h.refused(reasonMax) != 1 {
		t.Error("the refusal was not counted")
	}
	_ = first.Close()
	eventually(t, "place free", func() bool { return h.metric("mqcluster_listener_connections", "") == 0 })
	echo(t, h.dial(t), "x")
}

func TestConnectRate(t *testing.T) {
	h := open(t, Config{Kind: KindTCP, ConnectRate: 0.001, ConnectBurst: 2}, nil)
	echo(t, h.dial(t), "x")
	echo(t, h.dial(t), "x")
	h.dialRefused(t)
	if h.refused(reasonRate) != 1 {
		t.Error("the refusal was not counted")
	}
}

func TestSilentConnectionIsClosed(t *testing.T) {
	server, _ := settings(t)
	for _, cfg := range []Config{
		{Kind: KindTLS}, {Kind: KindWS}, {Kind: KindWSS}, {Kind: KindTCP, ProxyFrom: []string{"127.0.0.0/8"}},
	} {
		cfg.HandshakeTimeout = 50 * time.Millisecond
		h := open(t, cfg, withTLS(server))
		expectClosed(t, h.dial(t))
		eventually(t, "timeout counted", func() bool { return h.refused(reasonTimeout) == 1 })
		eventually(t, "budget given back", func() bool { n, b := h.budget.Used(); return n == 0 && b == 0 })
	}
	if DefaultHandshakeTimeout != 10*time.Second {
		t.Error("a silent connection is to be closed in 10 s")
	}
}

// A client that sends an endless first flight costs 64 KiB at most.
func TestHandshakeBytesAreBounded(t *testing.T) {
	server, _ := settings(t)
	h := open(t, Config{Kind: KindTLS}, withTLS(server))
	c := h.dial(t)
	// Records of a ClientHello that says it is large and never ends.
	record := append([]byte{22, 3, 1, 0x40, 0x00}, make([]byte, 0x4000)...)
	copy(record[5:], []byte{1, 0, 0xFF, 0xFF})
	sent := 0
	for range 64 {
		n, err := c.Write(record)
		sent += n
		if err != nil {
			break
		}
	}
	expectClosed(t, c)
	eventually(t, "refused", func() bool { return h.refused(reasonTLS)+h.refused(reasonTooMuch) == 1 })

	web := open(t, Config{Kind: KindWS}, nil)
	c = web.dial(t)
	_, _ = io.WriteString(c, "GET /mqtt HTTP/1.1\r\n")
	for range 64 {
		if _, err := fmt.Fprintf(c, "X: %s\r\n", strings.Repeat("x", 4000)); err != nil {
			break
		}
	}
	expectClosed(t, c)
	eventually(t, "refused", func() bool { return web.refused(reasonTooMuch) == 1 })
}

// A flood of silent connections cannot keep a client out, and holds no more
// than its places.
func TestHandshakeFloodIsBounded(t *testing.T) {
	server, client := settings(t)
	var most atomic.Int64
	h := open(t, Config{Kind: KindTLS}, func(h *harness, d *Deps) {
		h.budget = NewBudget(10, 1<<20)
		d.TLS = func() *tls.Config {
			n, _ := h.budget.Used()
			most.Store(max(most.Load(), int64(n)))
			return server
		}
	})
	for range 15 {
		h.dial(t)
	}
	c := tls.Client(h.dial(t), client)
	echo(t, c, "hello")
	if h.refused(reasonBudget) == 0 || most.Load() > 10 {
		t.Errorf("%v made room, %d at once", h.refused(reasonBudget), most.Load())
	}
}

func TestPanicEndsOneConnection(t *testing.T) {
	for _, greets := range []bool{true, false} {
		t.Run(fmt.Sprintf("greets=%v", greets), func(t *testing.T) {
			var logged bytes.Buffer
			var mu sync.Mutex
			h := open(t, Config{Kind: KindTCP}, func(h *harness, d *Deps) {
				d.Logger = slog.New(slog.NewTextHandler(&lockedWriter{&mu, &logged}, nil))
				echoes := h.serve
				h.greets = greets
				h.serve = func(ctx context.Context, c net.Conn, info Info) {
					b := make([]byte, 1)
					if _, err := c.Read(b); err == nil && b[0] == '!' {
						panic("at the " + string(b))
					}
					echoes(ctx, c, info)
				}
			})
			good, bad := h.dial(t), h.dial(t)
			_, _ = io.WriteString(good, "x")
			_, _ = io.WriteString(bad, "!")
			expectClosed(t, bad)
			echo(t, good, "still here")
			eventually(t, "panic counted", func() bool { return h.metric("mqcluster_listener_panics_total", "") == 1 })
			mu.Lock()
			defer mu.Unlock()
			if s := logged.String(); !strings.Contains(s, "at the !") || !strings.Contains(s, "listener_test.go") {
				t.Errorf("log %q", s)
			}
		})
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

func TestCloseAndDrain(t *testing.T) {
	h := open(t, Config{Kind: KindTCP}, nil)
	c := h.dial(t)
	echo(t, c, "x")
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", h.Addr().String()); err == nil {
		t.Error("closed listener accepts")
	}
	echo(t, c, "clients live on")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := h.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v", err)
	}
	expectClosed(t, c)
	if err := h.Drain(t.Context()); err != nil {
		t.Errorf("second Drain: %v", err)
	}
}

func TestCloseEndsHandshakes(t *testing.T) {
	server, _ := settings(t)
	h := open(t, Config{Kind: KindTLS}, withTLS(server))
	c := h.dial(t)
	eventually(t, "accepted", func() bool { n, _ := h.budget.Used(); return n == 1 })
	if err := h.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectClosed(t, c)
}

// A process without descriptors tries again in ever longer intervals.
func TestAcceptErrorsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		l := &Listener{cfg: Config{Name: "test"}, log: slog.New(slog.DiscardHandler)}
		l.metrics, _ = newMetrics(nil, "test")
		l.accept = func() (*net.TCPConn, error) { tries.Add(1); return nil, syscall.EMFILE }
		l.start(t.Context())
		time.Sleep(10 * time.Second) // the bubble's clock
		l.stopAccept()
		l.acceptor.Wait()
		if n := tries.Load(); n < 10 || n > 20 {
			t.Errorf("%d tries in 10 s", n)
		}
	})
}

func TestOpenErrors(t *testing.T) {
	h := open(t, Config{Kind: KindTCP}, nil)
	_, err := Open(t.Context(), Config{Name: "second", Address: h.Addr().String(), Kind: KindTCP},
		Deps{Serve: func(context.Context, net.Conn, Info) func() { return nil }, Budget: h.budget, Registerer: h.reg})
	if err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("Open of a used port: %v", err)
	}
	if _, err := Open(t.Context(), Config{Name: "x", Address: ":0", Kind: KindTLS}, Deps{}); err == nil {
		t.Error("Open without its needs")
	}
}

func TestValidate(t *testing.T) {
	good := Config{Name: "a", Address: "127.0.0.1:8883", Kind: "tls"}
	tests := []struct {
		want string
		edit func(c *Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.ProxyFrom = []string{"10.1.2.3/8", "::1", "192.0.2.1"} }},
		{"", func(c *Config) { c.Kind, c.Path, c.AllowedOrigins = "wss", "/ws", []string{"https://*.example.com"} }},
		{"no name", func(c *Config) { c.Name = "" }},
		{"not host:port", func(c *Config) { c.Address = "8883" }},
		{"kind", func(c *Config) { c.Kind = "ssl" }},
		{"maximum connections", func(c *Config) { c.MaxConnections = -1 }},
		{"connect rate", func(c *Config) { c.ConnectRate = -1 }},
		{"handshake timeout", func(c *Config) { c.HandshakeTimeout = -1 }},
		{"PROXY source", func(c *Config) { c.ProxyFrom = []string{"balancer"} }},
		{"are for kinds ws and wss", func(c *Config) { c.Path = "/mqtt" }},
		{"slash", func(c *Config) { c.Kind, c.Path = "ws", "mqtt" }},
		{"allowed origin", func(c *Config) { c.Kind, c.AllowedOrigins = "ws", []string{"["} }},
	}
	for _, tt := range tests {
		c := good
		tt.edit(&c)
		err := c.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("Validate of %+v: %v, want %q", c, err, tt.want)
		}
	}
}
