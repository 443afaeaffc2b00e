package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open serves deps on a socket and a free port.
func open(t *testing.T, deps Deps) (*Server, *Client, string) {
	t.Helper()
	deps.Logger = slog.New(slog.DiscardHandler)
	socket := filepath.Join(t.TempDir(), "s")
	s, err := Open(t.Context(), Config{Socket: socket, HealthListen: "127.0.0.1:0"}, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, NewClient(socket), socket
}

// Every operation carries its request and its answer over the socket unharmed.
func TestOperations(t *testing.T) {
	f := &fake{}
	_, c, _ := open(t, Deps{Backend: f.backend()})
	ctx := t.Context()
	yes, roles := true, []string{"r"}
	requests := []any{
		LeaveRequest{Node: "b", Force: true}, DrainRequest{Timeout: time.Second, Off: true}, TokenRequest{Uses: 2, TTL: time.Hour}, "id",
		UserAdd{Name: "n/ü", Password: []byte{0, 255, 'x'}, Roles: roles}, UserSet{Name: "n", Disabled: &yes, Roles: &roles}, "..",
		Acl{Subject: "user:a", Rules: []string{"allow publish #"}}, CertRequest{Name: "d", Lifetime: time.Hour, Algorithm: AlgorithmRSA}, "0f", "client\x01",
		UserImport{Users: []UserEntry{{Name: "a", Password: []byte("p")}, {Name: "b", Hash: "$argon2id$"}}, Roles: &roles},
	}
	var errs []error
	try := func(_ any, err error) { errs = append(errs, err) }
	try(c.Leave(ctx, requests[0].(LeaveRequest)))
	try(c.Drain(ctx, requests[1].(DrainRequest)))
	try(c.CreateToken(ctx, requests[2].(TokenRequest)))
	try(c.RevokeToken(ctx, requests[3].(string)))
	try(c.AddUser(ctx, requests[4].(UserAdd)))
	try(c.SetUser(ctx, requests[5].(UserSet)))
	try(c.RemoveUser(ctx, requests[6].(string)))
	try(c.SetAcl(ctx, requests[7].(Acl)))
	try(c.IssueCert(ctx, requests[8].(CertRequest)))
	try(c.RevokeCert(ctx, requests[9].(string)))
	try(c.EndSession(ctx, requests[10].(string)))
	change, err := c.ImportUsers(ctx, requests[11].(UserImport))
	try(nil, err)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(requests, f.calls); diff != "" {
		t.Error(diff)
	}
	if want := (UserImportResult{Change: Change{Index: 12, NotApplied: []string{}}, Added: 2}); !cmp.Equal(want, change) {
		t.Errorf("change: %+v", change)
	}
}

func TestReads(t *testing.T) {
	f := &fake{}
	_, c, _ := open(t, Deps{Backend: f.backend()})
	ctx := t.Context()
	if got, err := c.Status(ctx); err != nil || got.Node != "a" || !got.Ready() {
		t.Error(got, err)
	}
	shares := []Share{{Node: "a", Clients: 30, Share: 20, Sent: 10}, {Node: "b", Out: true}}
	if got, err := c.Balance(ctx); err != nil || !cmp.Equal(shares, got) {
		t.Error(got, err)
	}
	if got, err := c.ListTokens(ctx); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
	if got, err := c.ListUsers(ctx, "x"); err != nil || got[0].Name != "x" {
		t.Error(got, err)
	}
	if got, err := c.ListAcls(ctx, "*"); err != nil || got[0].Subject != "*" {
		t.Error(got, err)
	}
	if got, err := c.ExplainAcl(ctx, AclQuestion{Topic: "t"}); err != nil || got.Rule != "t" {
		t.Error(got, err)
	}
	if got, err := c.ListCerts(ctx); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if got, err := c.CA(ctx); err != nil || string(got) != "ca" {
		t.Error(got, err)
	}
	if got, err := c.ListSessions(ctx, SessionRequest{Prefix: "p"}); err != nil || got[0].Client != "p" {
		t.Error(got, err)
	}
}

// An error keeps its kind and its sentence, also where it was wrapped.
func TestErrors(t *testing.T) {
	f := &fake{}
	_, c, _ := open(t, Deps{Backend: f.backend()})
	for _, test := range []struct {
		err  error
		kind Kind
		is   error
	}{
		{&Error{NotFound, "there is no user x"}, NotFound, ErrNotFound},
		{fmt.Errorf("member b: %w", &Error{Conflict, "it is up"}), Conflict, ErrConflict},
		{&Error{Invalid, "a rule is wrong"}, Invalid, nil},
		{&Error{Unavailable, "no quorum"}, Unavailable, ErrUnavailable},
		{&Error{Denied, "no"}, Denied, nil},
		{errors.New("disk"), Internal, nil},
		{context.DeadlineExceeded, Unavailable, ErrUnavailable},
	} {
		f.err = test.err
		_, err := c.RemoveUser(t.Context(), "x")
		var got *Error
		if !errors.As(err, &got) || got.Kind != test.kind || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%v came as %#v", test.err, err)
			continue
		}
		if test.kind != Unavailable && got.Msg != test.err.Error() {
			t.Errorf("%q came as %q", test.err, got.Msg)
		}
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	f := &fake{}
	_, c, _ := open(t, Deps{Backend: Backend{Users: f}})
	post := func(method, path, body string) *http.Response {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://node"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := c.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/user/add", `{"name":"x","colour":1}`, 400},
		{"POST", "/v1/user/add", `{"name":"x"} {}`, 400},
		{"POST", "/v1/user/add", `{`, 400},
		{"GET", "/v1/user/add", ``, 404},
		{"GET", "/v1/user/list", ``, 200},
		{"POST", "/v1/status", ``, 404}, // no such part in this backend
		{"POST", "/v1/user/add", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400},
	} {
		if got := post(test.method, test.path, test.body).StatusCode; got != test.status {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, got, test.status)
		}
	}
	if len(f.calls) != 0 {
		t.Error("a request that makes no sense was done:", f.calls)
	}
}

func TestSocket(t *testing.T) {
	_, c, socket := open(t, Deps{Backend: (&fake{}).backend()})
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Open(t.Context(), Config{Socket: socket}, Deps{Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "another node answers") {
		t.Error("a second node took the socket:", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error("the first one lost it:", err)
	}
	_, err = NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, ErrNoNode) {
		t.Error("nobody there:", err)
	}
}

// A process that was killed leaves its socket behind.
func TestStaleSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(socket).Status(t.Context()); !errors.Is(err, ErrNoNode) {
		t.Error("a dead socket:", err)
	}
	s, err := Open(t.Context(), Config{Socket: socket}, Deps{Backend: (&fake{}).backend(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket stayed:", err)
	}
}

// The deadline of the caller bounds a node that hangs.
func TestDeadline(t *testing.T) {
	f := &fake{wait: make(chan struct{})}
	_, c, _ := open(t, Deps{Backend: f.backend()})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func TestProbes(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "mqcluster_test_total", Help: "x"})
	registry.MustRegister(counter)
	health := &fakeHealth{ready: Readiness{Lease: true, CaughtUp: true, Serving: true}}
	s, _, _ := open(t, Deps{Health: health, Gatherer: registry})
	get := func(path, before string) (int, string) {
		t.Helper()
		conn, err := net.Dial("tcp", s.HealthAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%sGET %s HTTP/1.0\r\n\r\n", before, path)
		text, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		var status int
		if _, err := fmt.Sscanf(string(text), "HTTP/1.0 %d", &status); err != nil {
			t.Fatalf("%s: %q", path, text)
		}
		return status, string(text)
	}
	check := func(path, before string, want int, inside string) {
		t.Helper()
		if status, text := get(path, before); status != want || !strings.Contains(text, inside) {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	check("/livez", "", 200, `"live":true`)
	check("/readyz", "", 200, `"ready":true`)
	check("/metrics", "", 200, "mqcluster_test_total 0")
	check("/v1/status", "", 404, "")
	check("/readyz", "PROXY UNKNOWN\r\n", 200, `"ready":true`)
	check("/readyz", "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n", 200, `"ready":true`)
	// A LOCAL command of version 2: a balancer's own check.
	check("/readyz", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", 200, `"ready":true`)
	health.ready = Readiness{CaughtUp: true, Serving: true, Reasons: []string{"the lease ran out"}}
	health.live = errors.New("apply stands still")
	check("/readyz", "", 503, `"reasons":["the lease ran out"]`)
	check("/livez", "", 503, "apply stands still")
	// Who asks so is told apart what drains from what is down.
	check("/readyz?draining=404", "", 503, `"ready":false`)
	health.ready = Readiness{Lease: true, CaughtUp: true, Draining: true, Reasons: []string{"the node is draining"}}
	check("/readyz", "", 503, `"draining":true`)
	check("/readyz?draining=404", "", 404, `"reasons":["the node is draining"]`)
	check("/readyz?draining=200", "", 503, `"draining":true`)
	health.ready.Lease = false
	check("/readyz?draining=404", "", 503, `"draining":true`)
}

// A drain at a slow pace takes longer than a request may take to come.
func TestLongChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = 2 * time.Hour
		s := &Server{log: slog.New(slog.DiscardHandler)}
		mux := newMux()
		change(s, mux, opDrain, func(ctx context.Context, _ DrainRequest) (DrainResult, error) {
			select {
			case <-ctx.Done():
				return DrainResult{}, ctx.Err()
			case <-time.After(long):
				return DrainResult{Sent: 1}, nil
			}
		})
		here, there := net.Pipe()
		accepted := make(chan net.Conn, 1)
		accepted <- there
		l := &pipes{accepted: accepted, closed: make(chan struct{})}
		s.serve(t.Context(), l, mux)
		defer func() {
			if err := s.servers[0].Close(); err != nil {
				t.Error(err)
			}
			s.serving.Wait()
		}()
		start := time.Now()
		fmt.Fprint(here, "POST /v1/drain HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
		answer, err := io.ReadAll(here)
		if err != nil || !strings.Contains(string(answer), `"sent":1`) || time.Since(start) < long {
			t.Errorf("after %v: %q %v", time.Since(start), answer, err)
		}
	})
}

// pipes is a listener of connections that are there already.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func TestHealthAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	socket := filepath.Join(t.TempDir(), "s")
	_, err = Open(t.Context(), Config{Socket: socket, HealthListen: taken.Addr().String()}, Deps{Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "health.listen") {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Error("a failed Open left its socket")
	}
}
