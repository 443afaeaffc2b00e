package listener

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a listener whose Serve echoes and tells what it was given.
type harness struct {
	*Listener
	reg    *prometheus.Registry
	budget *Budget
	infos  chan Info
	serve  func(ctx context.Context, c net.Conn, info Info)
}

// open opens a listener on a free port. edit may change what it is given.
func open(t *testing.T, cfg Config, edit func(h *harness, d *Deps)) *harness {
	t.Helper()
	h := &harness{reg: prometheus.NewRegistry(), budget: NewBudget(100, 10<<20), infos: make(chan Info, 100)}
	h.serve = func(_ context.Context, c net.Conn, info Info) {
		info.Authenticated()
		h.infos <- info
		_, _ = io.Copy(c, c)
	}
	cfg.Name, cfg.Address = "test", "127.0.0.1:0"
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = 5 * time.Second
	}
	d := Deps{Registerer: h.reg, Logger: slog.New(slog.DiscardHandler)}
	d.Serve = func(ctx context.Context, c net.Conn, info Info) { h.serve(ctx, c, info) }
	if edit != nil {
		edit(h, &d)
	}
	d.Budget = h.budget
	l, err := Open(t.Context(), cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	h.Listener = l
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = h.Drain(ctx) // cuts what the test left open
		h.clients.Wait()
	})
	return h
}

func (h *harness) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// dialRefused expects that a connection is closed as soon as it is accepted,
// which the dial itself may notice.
func (h *harness) dialRefused(t *testing.T) {
	t.Helper()
	c, err := net.Dial("tcp", h.Addr().String())
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	expectClosed(t, c)
}

// info waits for the next connection that Serve got.
func (h *harness) info(t *testing.T) Info {
	t.Helper()
	select {
	case i := <-h.infos:
		return i
	case <-time.After(10 * time.Second):
		t.Fatal("Serve got no connection")
	}
	panic("unreachable")
}

// refused returns how many connections were refused for reason.
func (h *harness) refused(reason string) float64 {
	return h.metric("mqcluster_listener_refused_total", reason)
}

func (h *harness) metric(name, reason string) float64 {
	fs, err := h.reg.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range fs {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := reason == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetValue() == reason
			}
			if matches {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never came about: %s", what)
		}
	}
}

// echo sends s over c and expects it back.
func echo(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(s))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != s {
		t.Fatalf("echo of %q = %q, %v", s, got, err)
	}
}

// expectClosed waits until the other end has closed c.
func expectClosed(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatal("connection was not closed")
	}
}

// settings returns TLS settings for a server and for a client that trusts it.
func settings(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool, NextProtos: []string{"mqtt"}}
	return server, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

func withTLS(server *tls.Config) func(*harness, *Deps) {
	return func(_ *harness, d *Deps) { d.TLS = func() *tls.Config { return server } }
}

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

func TestProxyHeader(t *testing.T) {
	v1 := "PROXY TCP4 192.0.2.7 127.0.0.1 4711 8883\r\n"
	format := func(hd *proxyproto.Header) string {
		b, err := hd.Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	v2 := &proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}, DestinationAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8883}}
	if err := v2.SetTLVs([]proxyproto.TLV{{Type: 0x20, Value: []byte("\x01\x00\x00\x00\x00CN=admin")}}); err != nil {
		t.Fatal(err)
	}
	local := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}
	tests := []struct {
		name, from, header, remote string
	}{
		{"version 1", "127.0.0.0/8", v1, "192.0.2.7:4711"},
		{"version 2 with TLVs", "127.0.0.1", format(v2), "192.0.2.7:4711"},
		{"LOCAL", "127.0.0.0/8", format(local), "127.0.0.1"},
		{"missing", "127.0.0.0/8", "", ""},
		{"cut short", "127.0.0.0/8", "PROXY TCP4\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, Config{Kind: KindTCP, ProxyFrom: []string{tt.from}}, nil)
			c := h.dial(t)
			if _, err := io.WriteString(c, tt.header+"\x10\x00"); err != nil {
				t.Fatal(err)
			}
			if tt.remote == "" {
				expectClosed(t, c)
				eventually(t, "refused", func() bool { return h.refused(reasonProxy) == 1 })
				return
			}
			got := make([]byte, 2)
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "\x10\x00" {
				t.Errorf("what follows the header came as %q, %v", got, err)
			}
			if i := h.info(t); !strings.HasPrefix(i.Remote.String(), tt.remote) {
				t.Errorf("remote %v, want %s", i.Remote, tt.remote)
			}
		})
	}
}

// From a source that is not listed the header is garbage: the engine sees it and
// closes, TLS fails, and nobody believes it.
func TestProxyHeaderFromElsewhere(t *testing.T) {
	const header = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 8883\r\n"
	h := open(t, Config{Kind: KindTCP, ProxyFrom: []string{"10.0.0.0/8"}}, nil)
	echo(t, h.dial(t), header)
	if i := h.info(t); !i.Remote.Addr().IsLoopback() {
		t.Errorf("remote %v", i.Remote)
	}
	server, _ := settings(t)
	h = open(t, Config{Kind: KindTLS, ProxyFrom: []string{"10.0.0.0/8"}}, withTLS(server))
	c := h.dial(t)
	_, _ = io.WriteString(c, header)
	expectClosed(t, c)
	eventually(t, "refused", func() bool { return h.refused(reasonTLS) == 1 })
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
	var logged bytes.Buffer
	var mu sync.Mutex
	h := open(t, Config{Kind: KindTCP}, func(h *harness, d *Deps) {
		d.Logger = slog.New(slog.NewTextHandler(&lockedWriter{&mu, &logged}, nil))
		echoes := h.serve
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
		Deps{Serve: func(context.Context, net.Conn, Info) {}, Budget: h.budget, Registerer: h.reg})
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

// dialWeb opens a WebSocket to h.
func (h *harness) dialWeb(t *testing.T, scheme string, o *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, r, err := websocket.Dial(ctx, scheme+"://"+h.Addr().String()+"/mqtt", o)
	if err == nil {
		t.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, r, err
}

func TestWebSocket(t *testing.T) {
	server, client := settings(t)
	for _, scheme := range []string{KindWS, KindWSS} {
		for _, proto := range []string{"mqtt", "mqttv3.1"} {
			t.Run(scheme+" "+proto, func(t *testing.T) {
				h := open(t, Config{Kind: scheme}, withTLS(server))
				o := &websocket.DialOptions{Subprotocols: []string{proto}}
				tr := &http.Transport{TLSClientConfig: client}
				defer tr.CloseIdleConnections()
				o.HTTPClient = &http.Client{Transport: tr}
				c, _, err := h.dialWeb(t, scheme, o)
				if err != nil {
					t.Fatal(err)
				}
				if i := h.info(t); i.Protocol != scheme || !i.Remote.IsValid() || (i.TLS != nil) != (scheme == KindWSS) {
					t.Errorf("info %+v", i)
				}
				ctx := t.Context()
				// One packet in two messages, then two in one.
				for _, s := range []string{"\xC0", "\x00", "\xC0\x00\xC0\x00"} {
					if err := c.Write(ctx, websocket.MessageBinary, []byte(s)); err != nil {
						t.Fatal(err)
					}
				}
				nc := websocket.NetConn(ctx, c, websocket.MessageBinary)
				got := make([]byte, 6)
				if _, err := io.ReadFull(nc, got); err != nil || string(got) != "\xC0\x00\xC0\x00\xC0\x00" {
					t.Errorf("read %x, %v", got, err)
				}
				if err := nc.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
	}
}

func TestWebSocketRefusals(t *testing.T) {
	mqtt := []string{"mqtt"}
	h := open(t, Config{Kind: KindWS, AllowedOrigins: []string{"https://app.example.com"}}, nil)

	_, r, err := h.dialWeb(t, "ws", &websocket.DialOptions{Subprotocols: mqtt, HTTPHeader: http.Header{"Origin": {"https://evil.example.com"}}})
	if err == nil || r == nil || r.StatusCode != http.StatusForbidden {
		t.Errorf("other origin: %v", err)
	}
	c, _, err := h.dialWeb(t, "ws", &websocket.DialOptions{Subprotocols: mqtt, HTTPHeader: http.Header{"Origin": {"https://app.example.com"}}})
	if err != nil {
		t.Errorf("allowed origin: %v", err)
	} else {
		_ = c.CloseNow()
	}
	// The listener's own host is the same origin.
	if c, _, err = h.dialWeb(t, "ws", &websocket.DialOptions{Subprotocols: mqtt, HTTPHeader: http.Header{"Origin": {"http://" + h.Addr().String()}}}); err != nil {
		t.Errorf("same origin: %v", err)
	}

	// [MQTT-6.0.0-1]: a text message ends the connection.
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("after a text message: %v", err)
	}

	// [MQTT-6.0.0-3]: without the subprotocol there is no MQTT.
	c, _, err = h.dialWeb(t, "ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("without subprotocol: %v", err)
	}

	plain := h.dial(t)
	_, _ = io.WriteString(plain, "GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(plain), nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("other path: %v, %v", resp, err)
	}
	expectClosed(t, plain)
	eventually(t, "refusals counted", func() bool { return h.refused(reasonWebSocket) == 3 })
}

// Close of a WebSocket returns at once and ends its reader, even if the client
// does not take part.
func TestWebSocketCloseDoesNotWait(t *testing.T) {
	took := make(chan time.Duration, 1)
	h := open(t, Config{Kind: KindWS}, func(h *harness, _ *Deps) {
		h.serve = func(_ context.Context, c net.Conn, info Info) {
			h.infos <- info
			start := time.Now()
			_ = c.Close()
			took <- time.Since(start)
			_, _ = c.Read(make([]byte, 1))
		}
	})
	c := h.dial(t)
	_, _ = io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	h.info(t)
	if d := <-took; d > 500*time.Millisecond {
		t.Errorf("Close took %v", d)
	}
	expectClosed(t, c)
	eventually(t, "gone", func() bool { return h.metric("mqcluster_listener_connections", "") == 0 })
}
