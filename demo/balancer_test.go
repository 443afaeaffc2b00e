package demo

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// backend is a fake node: it names itself, repeats what it reads and says bye at
// the end.
type backend struct {
	*target
	healthy atomic.Bool
	clients chan net.Addr // as the PROXY header names them
}

func newBackend(t *testing.T, name string) *backend {
	t.Helper()
	b := &backend{clients: make(chan net.Addr, 100)}
	b.healthy.Store(true)
	probes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !b.healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(probes.Close)
	l := listenFree(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(c, name)
		}
	}()
	b.target = &target{name: name, address: l.Addr().String(), health: strings.TrimPrefix(probes.URL, "http://")}
	return b
}

func (b *backend) serve(c net.Conn, name string) {
	defer c.Close()
	in := bufio.NewReader(c)
	header, err := proxyproto.Read(in)
	if err != nil || header.Version != 2 {
		return
	}
	b.clients <- header.SourceAddr
	io.WriteString(c, name+"\n")
	if _, err := io.Copy(c, in); err == nil {
		io.WriteString(c, "bye")
	}
}

func listenFree(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newTestBalancer returns when it knows every backend as it is.
func newTestBalancer(t *testing.T, backends ...*backend) *balancer {
	t.Helper()
	var targets []*target
	for _, b := range backends {
		targets = append(targets, b.target)
	}
	b := openBalancer(listenFree(t), targets)
	t.Cleanup(func() { b.Close() })
	for _, back := range backends {
		awaitReady(t, back, back.healthy.Load())
	}
	return b
}

func awaitReady(t *testing.T, b *backend, want bool) {
	t.Helper()
	eventually(t, func() bool { return b.ready.Load() == want })
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not happen within 10 s")
		}
	}
}

// visit connects through b and returns the connection and who answered.
func visit(t *testing.T, b *balancer) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", b.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	// One byte at a time, so that nothing is read ahead.
	var name []byte
	for one := make([]byte, 1); ; {
		if _, err := c.Read(one); err != nil {
			return c, ""
		}
		if one[0] == '\n' {
			return c, string(name)
		}
		name = append(name, one[0])
	}
}

func TestBalancerTakesTurns(t *testing.T) {
	b := newTestBalancer(t, newBackend(t, "a"), newBackend(t, "b"), newBackend(t, "c"))
	var got string
	for range 7 {
		_, name := visit(t, b)
		got += name
	}
	if got != "abcabca" {
		t.Errorf("the turns are %s", got)
	}
}

func TestBalancerSkipsWhoIsNotReady(t *testing.T) {
	one, two, three := newBackend(t, "a"), newBackend(t, "b"), newBackend(t, "c")
	two.healthy.Store(false)
	b := newTestBalancer(t, one, two, three)
	kept, first := visit(t, b)
	_, second := visit(t, b)
	_, third := visit(t, b)
	if got := first + second + third; got != "aca" {
		t.Errorf("the turns are %s", got)
	}
	one.healthy.Store(false)
	two.healthy.Store(true)
	awaitReady(t, one, false)
	awaitReady(t, two, true)
	if _, name := visit(t, b); name != "b" {
		t.Errorf("after a change %q served", name)
	}
	// Who is served stays so: the balancer ends nothing by itself.
	io.WriteString(kept, "still")
	answer := make([]byte, 5)
	if _, err := io.ReadFull(kept, answer); err != nil || string(answer) != "still" {
		t.Errorf("a connection to a node that is not ready got %q, %v", answer, err)
	}
}

func TestBalancerGoesOnWhereNobodyListens(t *testing.T) {
	dead, well := newBackend(t, "a"), newBackend(t, "b")
	l := listenFree(t)
	dead.address = l.Addr().String()
	l.Close()
	b := newTestBalancer(t, dead, well)
	for range 3 {
		if _, name := visit(t, b); name != "b" {
			t.Errorf("%q served", name)
		}
	}
}

func TestBalancerSendsAwayWithoutNodes(t *testing.T) {
	sick := newBackend(t, "a")
	sick.healthy.Store(false)
	b := newTestBalancer(t, sick)
	if _, name := visit(t, b); name != "" {
		t.Errorf("%q served", name)
	}
}

func TestBalancerTellsTheClientsAddress(t *testing.T) {
	back := newBackend(t, "a")
	b := newTestBalancer(t, back)
	c, _ := visit(t, b)
	if got := (<-back.clients).String(); got != c.LocalAddr().String() {
		t.Errorf("the node was told %s, the client is %s", got, c.LocalAddr())
	}
	if got := b.node(c.LocalAddr().String()); got != "a" {
		t.Errorf("the client is said to be at %q", got)
	}
	if got := back.open.Load(); got != 1 {
		t.Errorf("%d connections are counted", got)
	}
	c.Close()
	eventually(t, func() bool { return back.open.Load() == 0 && b.node(c.LocalAddr().String()) == "" })
}

func TestBalancerPassesOnAHalfClose(t *testing.T) {
	b := newTestBalancer(t, newBackend(t, "a"))
	c, _ := visit(t, b)
	io.WriteString(c, "ping")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// What comes after the end of the other direction still comes.
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "pingbye" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestBalancerCloseEndsConnections(t *testing.T) {
	b := newTestBalancer(t, newBackend(t, "a"))
	c, _ := visit(t, b)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection has outlived the balancer")
	}
	if err := b.Close(); err != nil {
		t.Error("Close is not idempotent:", err)
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	l := listenFree(t)
	defer l.Close()
	_, err := listen(l.Addr().String())
	var op *net.OpError
	if err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "--endpoint") || errors.As(err, &op) {
		t.Errorf("the error is %v", err)
	}
}
