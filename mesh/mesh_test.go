package mesh

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestDialTellsWhoIsThere(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b"})
	b.Handle(ProtoForward, echo)
	b.Start()

	c, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "hello"); got != "a:hello" {
		t.Errorf("got %q", got)
	}
	if got := c.(*Conn).Peer(); got != "b" {
		t.Errorf("peer %q", got)
	}
}

func TestDialRefusals(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b"})
	b.Handle(ProtoForward, echo)
	b.Start()
	foreign := open(t, newAuthority(t), addrs, Config{Node: "f"})
	foreign.Handle(ProtoForward, echo)
	foreign.Start()
	addrs["c"] = addrs["b"] // c's address leads to b
	tests := []struct {
		name, peer, proto string
		want              error
	}{
		{"unknown", "z", ProtoForward, ErrUnknownPeer},
		{"protocol nobody serves", "b", ProtoRaft, nil},
		{"another node at the address", "c", ProtoForward, nil},
		{"server of another CA", "f", ProtoForward, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := a.Dial(t.Context(), tt.peer, tt.proto)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// lenient verifies nothing by itself, as a broken TLS provider would.
type lenient struct{ nodeTLS }

func (l lenient) Client(peer string) *tls.Config {
	c := l.nodeTLS.Client(peer)
	c.InsecureSkipVerify = true
	return c
}

func TestDialChecksTheNameItself(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	b := open(t, ca, addrs, Config{Node: "b"})
	b.Handle(ProtoForward, echo)
	b.Start()
	a := open(t, ca, addrs, Config{Node: "a"})
	a.deps.TLS = lenient{a.deps.TLS.(nodeTLS)}
	if _, err := a.DialAddr(t.Context(), addrs["b"], "c", ProtoForward); !errors.Is(err, ErrWrongPeer) {
		t.Errorf("got %v", err)
	}
}

func TestServerRefusesStrangers(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	b := open(t, ca, addrs, Config{Node: "b"})
	served := make(chan string, 16)
	b.Handle(ProtoForward, func(peer string, c net.Conn) { served <- peer; c.Close() })
	b.Handle(ProtoJoin, func(peer string, c net.Conn) { served <- "join" + peer; c.Close() })
	b.Start()

	other := newAuthority(t)
	good := ca.issue("a")
	tests := []struct {
		name   string
		certs  []tls.Certificate
		protos []string
		tls12  bool
	}{
		{"certificate of another CA", []tls.Certificate{other.issue("a")}, []string{ProtoForward}, false},
		{"no certificate", nil, []string{ProtoForward}, false},
		{"no ALPN", []tls.Certificate{good}, nil, false},
		{"foreign ALPN", []tls.Certificate{good}, []string{"h2"}, false},
		{"two protocols, one of them open", nil, []string{ProtoJoin, ProtoForward}, false},
		{"TLS 1.2", []tls.Certificate{good}, []string{ProtoForward}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := &tls.Config{Certificates: tt.certs, RootCAs: ca.pool, ServerName: "b", NextProtos: tt.protos}
			if tt.tls12 {
				cfg.MaxVersion = tls.VersionTLS12
			}
			c, err := tls.Dial("tcp", addrs["b"], cfg)
			if err != nil {
				return
			}
			defer c.Close()
			// With TLS 1.3 the refusal comes after the client's handshake.
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			}
		})
	}
	select {
	case who := <-served:
		t.Errorf("a handler was reached by %q", who)
	default:
	}

	// The open protocol is there for those without a certificate.
	c, err := tls.Dial("tcp", addrs["b"], &tls.Config{RootCAs: ca.pool, ServerName: "b", NextProtos: []string{ProtoJoin}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if who := <-served; who != "join" {
		t.Errorf("got %q", who)
	}
}

func TestSilentPeerIsClosed(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	b := open(t, ca, addrs, Config{Node: "b", HandshakeTimeout: 50 * time.Millisecond})
	b.Handle(ProtoForward, echo)
	b.Start()
	c, err := net.Dial("tcp", addrs["b"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent connection stays open")
	}
}

func TestSilentPeersDoNotKeepMembersOut(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	b := open(t, ca, addrs, Config{Node: "b", HandshakeTimeout: time.Minute, MaxUnauthenticated: 4})
	b.Handle(ProtoForward, echo)
	b.Start()
	var silent []net.Conn
	for range 12 {
		c, err := net.Dial("tcp", addrs["b"])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	a := open(t, ca, addrs, Config{Node: "a"})
	c, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "x"); got != "a:x" {
		t.Errorf("got %q", got)
	}
	// The oldest are gone.
	_ = silent[0].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := silent[0].Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("over the budget and still open")
	}
	if n := value(t, b.metrics.evicted); n < 8 {
		t.Errorf("evicted %v", n)
	}
}

func TestPeerHasALimitOfConnections(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b", MaxPerPeer: 1})
	b.Handle(ProtoForward, echo)
	b.Start()
	first, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, first, "x")
	second, err := a.Dial(t.Context(), "b", ProtoForward)
	if err == nil {
		defer second.Close()
		if _, err := second.Read(make([]byte, 1)); err == nil {
			t.Error("a second connection is served")
		}
	}
	if got := ask(t, first, "y"); got != "a:y" {
		t.Errorf("the first suffered: %q", got)
	}
}

func TestHandlerPanicEndsOneConnection(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b"})
	b.Handle(ProtoRaft, func(string, net.Conn) { panic("oops") })
	b.Handle(ProtoForward, echo)
	b.Start()
	bad, err := a.Dial(t.Context(), "b", ProtoRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if _, err := bad.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
	good, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	ask(t, good, "x")
	if n := value(t, b.metrics.panics.WithLabelValues(ProtoRaft)); n != 1 {
		t.Errorf("panics counted: %v", n)
	}
}

func TestWriteHasADeadline(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a", WriteTimeout: 50 * time.Millisecond})
	b := open(t, ca, addrs, Config{Node: "b"})
	stop := make(chan struct{})
	b.Handle(ProtoForward, func(_ string, c net.Conn) { <-stop; c.Close() })
	b.Start()
	t.Cleanup(func() { close(stop) })
	c, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for range 1000 {
		if _, err = c.Write(buf); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b"})
	b.Handle(ProtoForward, echo)
	b.Start()
	c, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, c, "x")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Dial(t.Context(), "b", ProtoForward); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestDisconnectEndsOnePeer(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b"})
	c := open(t, ca, addrs, Config{Node: "c"})
	b.Handle(ProtoForward, echo)
	b.Start()
	fromA, err := a.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	defer fromA.Close()
	fromC, err := c.Dial(t.Context(), "b", ProtoForward)
	if err != nil {
		t.Fatal(err)
	}
	defer fromC.Close()
	ask(t, fromA, "x")
	ask(t, fromC, "x")
	b.Disconnect("a")
	if _, err := fromA.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
	if got := ask(t, fromC, "y"); got != "c:y" {
		t.Errorf("the other one suffered: %q", got)
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	_, err := Open(t.Context(), Config{Node: "b", Listen: a.Addr().String()}, Deps{
		TLS: nodeTLS{}, Addresses: addrs.find,
	})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
}

func TestHTTP(t *testing.T) {
	ca, addrs := newAuthority(t), book{}
	a := open(t, ca, addrs, Config{Node: "a"})
	b := open(t, ca, addrs, Config{Node: "b", MaxBody: 100})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /who", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
			return
		}
		_, _ = w.Write([]byte(PeerFrom(r.Context()) + ":" + string(body)))
	})
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("oops") })
	b.ServeHTTP(ProtoControl, mux)
	b.ServeHTTP(ProtoJoin, mux)
	b.Start()

	post := func(c *http.Client, size int) (int, string) {
		t.Helper()
		resp, err := c.Post("http://b/who", "text/plain", bytes.NewReader(bytes.Repeat([]byte("x"), size)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	client := a.HTTPClient("b", ProtoControl)
	for range 5 {
		if code, body := post(client, 3); code != 200 || body != "a:xxx" {
			t.Fatalf("%d %q", code, body)
		}
	}
	if n := value(t, a.metrics.handshakes.WithLabelValues("out", "ok")); n != 1 {
		t.Errorf("%v connections for five requests", n)
	}
	if a.HTTPClient("b", ProtoControl) != client {
		t.Error("another client for the same peer")
	}
	if code, _ := post(client, 1000); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit: %d", code)
	}
	if resp, err := client.Get("http://b/panic"); err == nil {
		resp.Body.Close()
		t.Error("a panic was answered")
	}
	if n := value(t, b.metrics.panics.WithLabelValues(ProtoControl)); n != 1 {
		t.Errorf("panics counted: %v", n)
	}
	if code, body := post(a.HTTPClient("b", ProtoJoin), 1); code != 200 || body != ":x" {
		t.Errorf("join: %d %q", code, body)
	}
}
