package listener

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// harness is a listener whose Serve echoes and tells what it was given.
type harness struct {
	*Listener
	reg    *prometheus.Registry
	budget *Budget
	infos  chan Info
	serve  func(ctx context.Context, c net.Conn, info Info)
	greets bool // serve is over before the connection has a goroutine of its own
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
	d.Serve = func(ctx context.Context, c net.Conn, info Info) func() {
		if h.greets {
			h.serve(ctx, c, info)
			return nil
		}
		return func() { h.serve(ctx, c, info) }
	}
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
