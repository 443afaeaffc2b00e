package admin

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
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// logText gathers what is logged.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// secured is an API on the network.
type secured struct {
	t       *testing.T
	url     string
	tokens  *fakeTokens
	cluster *fakeCluster
	ops     *fake
	book    *auditBook
	log     *logText
	pool    *x509.CertPool
	server  *Server
	// issue makes a client certificate.
	issue func(name string) tls.Certificate
}

func openSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{t: t, tokens: &fakeTokens{certs: map[string]Role{"anna": RoleOperator}}, cluster: &fakeCluster{}, ops: &fake{}, book: &auditBook{}, log: &logText{}, pool: x509.NewCertPool()}
	caKey, ca := certificate(t, nil, nil, "ca")
	s.pool.AddCert(ca)
	key, leaf := certificate(t, ca, caKey, "localhost")
	s.issue = func(name string) tls.Certificate {
		k, c := certificate(t, ca, caKey, name)
		return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: k}
	}
	b := allParts(s)
	var err error
	s.server, err = Open(t.Context(), Config{Node: "a", APIListen: "127.0.0.1:0"}, Deps{
		Backend: b, Access: s.tokens, Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		TLS: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}},
			ClientCAs:    s.pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.server.Close(); err != nil {
			t.Error(err)
		}
	})
	s.url = "https://" + s.server.APIAddr().String()
	return s
}

func certificate(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, name string) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ca == nil {
		c.IsCA, c.BasicConstraintsValid, ca, caKey = true, true, c, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key, c
}

// ask is one request.
type ask struct {
	method, path, body, token string
	header                    map[string]string
	cookies                   []*http.Cookie
	cert                      *tls.Certificate
}

func (s *secured) do(c ask) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), c.method, s.url+c.path, strings.NewReader(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for k, v := range c.header {
		r.Header.Set(k, v)
	}
	for _, k := range c.cookies {
		r.AddCookie(k)
	}
	settings := &tls.Config{RootCAs: s.pool, ServerName: "localhost"}
	if c.cert != nil {
		settings.Certificates = []tls.Certificate{*c.cert}
	}
	transport := &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func (s *secured) status(c ask) int {
	s.t.Helper()
	return s.do(c).StatusCode
}

func TestWhoMayDoWhat(t *testing.T) {
	s := openSecured(t)
	viewer, _ := s.tokens.add("v", RoleViewer)
	operator, _ := s.tokens.add("o", RoleOperator)
	admin, _ := s.tokens.add("a", RoleAdmin)
	anna, eve := s.issue("anna"), s.issue("eve")
	for _, tt := range []struct {
		name   string
		ask    ask
		status int
	}{
		{"nobody", ask{method: "GET", path: "/v1/overview"}, 401},
		{"an unknown path, nobody", ask{method: "GET", path: "/v1/nonsense"}, 401},
		{"a wrong token", ask{method: "GET", path: "/v1/overview", token: viewer[:len(viewer)-2] + "AA"}, 401},
		{"no token at all", ask{method: "GET", path: "/v1/overview", token: "hello"}, 401},
		{"another scheme", ask{method: "GET", path: "/v1/overview", header: map[string]string{"Authorization": "Basic " + viewer}}, 401},
		{"a token in the address", ask{method: "GET", path: "/v1/overview?token=" + viewer}, 401},
		{"viewer reads", ask{method: "GET", path: "/v1/overview", token: viewer}, 200},
		{"viewer reads as the program", ask{method: "POST", path: "/v1/status", token: viewer}, 200},
		{"viewer drains", ask{method: "PUT", path: "/v1/nodes/a/drain", token: viewer}, 403},
		{"viewer publishes", ask{method: "POST", path: "/v1/publish", body: `{"topic":"a"}`, token: viewer}, 403},
		{"operator drains", ask{method: "PUT", path: "/v1/nodes/a/drain", token: operator}, 200},
		{"operator ends a session", ask{method: "POST", path: "/v1/session/end", body: `{"name":"c"}`, token: operator}, 200},
		{"operator adds a user", ask{method: "PUT", path: "/v1/users/x", body: `{}`, token: operator}, 403},
		{"operator adds a user as the program", ask{method: "POST", path: "/v1/user/add", body: `{"name":"x"}`, token: operator}, 403},
		{"operator makes a token", ask{method: "POST", path: "/v1/api-tokens", body: `{"name":"x","role":"admin"}`, token: operator}, 403},
		{"operator removes a member", ask{method: "POST", path: "/v1/leave", body: `{}`, token: operator}, 403},
		{"operator issues a certificate", ask{method: "POST", path: "/v1/cert/issue", body: `{"name":"x"}`, token: operator}, 403},
		{"admin adds a user", ask{method: "PUT", path: "/v1/users/x", body: `{}`, token: admin}, 200},
		{"admin, unknown path", ask{method: "GET", path: "/v1/nonsense", token: admin}, 404},
		{"a certificate of an operator", ask{method: "PUT", path: "/v1/nodes/a/drain", cert: &anna}, 200},
		{"the same where an admin is needed", ask{method: "PUT", path: "/v1/users/x", body: `{}`, cert: &anna}, 403},
		{"a certificate of somebody without a role", ask{method: "GET", path: "/v1/overview", cert: &eve}, 403},
		{"a good certificate with a wrong token", ask{method: "GET", path: "/v1/overview", cert: &anna, token: "MQA1.x.y"}, 401},
	} {
		if got := s.status(tt.ask); got != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.status)
		}
	}
	for _, secret := range []string{viewer, operator, admin} {
		if strings.Contains(s.log.String(), secret[len(secret)-20:]) {
			t.Error("a token is in the log")
		}
	}
}

// What changes something is an admin's unless somebody has decided otherwise.
func TestRolesOfRoutes(t *testing.T) {
	s := openSecured(t)
	m := s.server.apiHandler(allParts(s))
	want := map[string]Role{
		"POST /v1/drain": RoleOperator, "POST /v1/balance": RoleOperator, "POST /v1/session/end": RoleOperator,
		"PUT /v1/nodes/{node}/drain": RoleOperator, "DELETE /v1/nodes/{node}/drain": RoleOperator,
		"DELETE /v1/clients/{client}": RoleOperator, "DELETE /v1/sessions/{client}": RoleOperator,
		"POST /v1/publish": RoleOperator, "PUT /v1/retained/{topic...}": RoleOperator, "DELETE /v1/retained/{topic...}": RoleOperator,
		"POST /v1/session/kick": RoleOperator, "POST /v1/session/purge": RoleOperator,
		"POST /v1/retained/set": RoleOperator, "POST /v1/retained/clear": RoleOperator,
		"POST /v1/trace": RoleOperator, "GET /v1/verify": RoleOperator, "POST /v1/verify": RoleOperator,
	}
	reads := map[string]bool{}
	for p, r := range m.routes {
		if r.method == "GET" {
			if want[p] == "" {
				reads[r.path] = true
			}
			if want[p] == "" && r.role != RoleViewer {
				t.Errorf("%s needs %s", p, r.role)
			}
		}
	}
	for p, r := range m.routes {
		role := RoleAdmin
		if want[p] != "" {
			role = want[p]
		}
		if r.method == "POST" && reads[r.path] && r.plain {
			role = RoleViewer // the program reads with POST
		}
		if r.method != "GET" && r.role != role {
			t.Errorf("%s needs %s, want %s", p, r.role, role)
		}
	}
}

// allParts is a backend with everything.
func allParts(s *secured) Backend {
	b := s.ops.backend()
	b.Observer, b.Clients, b.Messages, b.APITokens = s.cluster, s.cluster, s.cluster, s.tokens
	o := fakeOps{s.book}
	b.History, b.Bans, b.Auditor, b.Authority, b.Doctor, b.Verifier = o, o, o, o, o, o
	b.Retained, b.Repair, b.Topper, b.Tracer = o, o, o, o
	return b
}

func TestProblems(t *testing.T) {
	s := openSecured(t)
	token, _ := s.tokens.add("a", RoleAdmin)
	for _, tt := range []struct {
		ask    ask
		status int
		kind   Kind
	}{
		{ask{method: "GET", path: "/v1/clients?limit=5000", token: token}, 400, Invalid},
		{ask{method: "GET", path: "/v1/clients?limit=x", token: token}, 400, Invalid},
		{ask{method: "GET", path: "/v1/clients?colour=red", token: token}, 400, Invalid},
		{ask{method: "GET", path: "/v1/watch/messages", token: token}, 400, Invalid},
		{ask{method: "GET", path: "/v1/watch/messages?filter=a/%23/b", token: token}, 400, Invalid},
		{ask{method: "GET", path: "/v1/retained/none", token: token}, 404, NotFound},
		{ask{method: "PUT", path: "/v1/retained/a", body: `{"text":"x","payload":"eA=="}`, token: token}, 400, Invalid},
		{ask{method: "PUT", path: "/v1/retained/a", body: `{}`, token: token}, 400, Invalid},
		{ask{method: "PUT", path: "/v1/acls/user:a", body: `{"rules":[],"x":1}`, token: token}, 400, Invalid},
		{ask{method: "POST", path: "/v1/api-tokens", body: `{"name":"x","role":"king"}`, token: token}, 400, Invalid},
		{ask{method: "GET", path: "/v1/overview"}, 401, Unauthenticated},
	} {
		r := s.do(tt.ask)
		var p Problem
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != tt.status || p.Status != tt.status || p.Kind != tt.kind || p.Detail == "" || p.Type != "urn:mqcluster:problem:"+string(tt.kind) {
			t.Errorf("%s %s: %d %+v", tt.ask.method, tt.ask.path, r.StatusCode, p)
		}
		if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: %s", tt.ask.path, got)
		}
		if tt.status == 401 && r.Header.Get("WWW-Authenticate") == "" {
			t.Error("401 without WWW-Authenticate")
		}
	}
}

func TestWritesMayBeRepeated(t *testing.T) {
	s := openSecured(t)
	token, _ := s.tokens.add("a", RoleAdmin)
	key := func(k string) map[string]string { return map[string]string{"Idempotency-Key": k} }
	publish := func(k, body string) (int, string) {
		r := s.do(ask{method: "POST", path: "/v1/publish", body: body, token: token, header: key(k)})
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(text)
	}
	_, first := publish("k", `{"topic":"a","text":"1"}`)
	status, again := publish("k", `{"topic":"a","text":"1"}`)
	if status != 200 || first != again || s.cluster.count() != 1 {
		t.Errorf("%d %q %q, published %d", status, first, again, s.cluster.count())
	}
	if status, _ := publish("k", `{"topic":"a","text":"2"}`); status != 409 {
		t.Errorf("one key for two messages: %d", status)
	}
	if status, _ := publish("k2", `{"topic":"a","text":"2"}`); status != 200 || s.cluster.count() != 2 {
		t.Errorf("another key: %d", status)
	}
	for range 2 {
		if got := s.status(ask{method: "PUT", path: "/v1/retained/plant%2Fa", body: `{"text":"x","qos":1}`, token: token}); got != 200 {
			t.Errorf("retain: %d", got)
		}
	}
	if s.cluster.count() != 3 {
		t.Errorf("the same retained message was published %d times", s.cluster.count()-2)
	}
	for range 2 {
		if got := s.status(ask{method: "DELETE", path: "/v1/retained/plant/a", token: token}); got != 200 {
			t.Errorf("clear: %d", got)
		}
	}
	if s.cluster.count() != 4 {
		t.Errorf("cleared %d times", s.cluster.count()-3)
	}
	_, id := s.tokens.add("x", RoleViewer)
	for range 2 {
		if got := s.status(ask{method: "DELETE", path: "/v1/api-tokens/" + id, token: token}); got != 200 {
			t.Errorf("remove a token: %d", got)
		}
	}
}

// A stream ends when the token of who watches is removed, and when the node closes.
func TestWatchEnds(t *testing.T) {
	s := openSecured(t)
	token, id := s.tokens.add("v", RoleViewer)
	r := s.do(ask{method: "GET", path: "/v1/watch/overview", token: token})
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(r.Status)
	}
	lines := bufio.NewScanner(r.Body)
	seen := false
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: {\"cluster_id\"") && !seen {
			seen = true
			s.tokens.drop(id)
		}
		if strings.HasPrefix(lines.Text(), "event: problem") {
			break
		}
	}
	if !seen || lines.Err() != nil {
		t.Fatal("no overview came, or the stream did not end with a problem", lines.Err())
	}
	token, _ = s.tokens.add("v", RoleViewer)
	r = s.do(ask{method: "GET", path: "/v1/watch/messages?filter=a%2F%23", token: token})
	start := time.Now()
	if err := s.server.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > closeTimeout {
		t.Errorf("closing waited %v for who watches", took)
	}
	_, _ = io.Copy(io.Discard, r.Body) // it ends
}

// The dashboard loads nothing from elsewhere, runs nothing that stands in the page,
// and its first view is small.
func TestDashboardFiles(t *testing.T) {
	s := openSecured(t)
	r := s.do(ask{method: "GET", path: "/"})
	policy := r.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q", policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("policy %q", policy)
	}
	total := 0
	for name, a := range loadAssets() {
		total += len(a.plain)
		text := string(a.plain)
		for _, bad := range []string{"http://", "https://", "innerHTML", "<script>", "style=\"", "onclick=\""} {
			if i := strings.Index(text, bad); i >= 0 && !strings.Contains(text[i:min(len(text), i+40)], "www.w3.org/2000/svg") {
				t.Errorf("%s has %q", name, text[i:min(len(text), i+40)])
			}
		}
	}
	if total > 300<<10 {
		t.Errorf("the dashboard has %d bytes", total)
	}
	tag := r.Header.Get("ETag")
	if got := s.status(ask{method: "GET", path: "/", header: map[string]string{"If-None-Match": tag}}); got != 304 {
		t.Errorf("again: %d", got)
	}
	if got := s.status(ask{method: "GET", path: "/../admin.go"}); got != 404 {
		t.Errorf("a file that is none: %d", got)
	}
	if got := s.status(ask{method: "POST", path: "/"}); got != 405 {
		t.Errorf("POST: %d", got)
	}
}

// The program works over the network as it does over the socket.
func TestRemoteClient(t *testing.T) {
	s := openSecured(t)
	token, _ := s.tokens.add("a", RoleAdmin)
	c := NewRemoteClient(strings.Replace(s.url, "127.0.0.1", "localhost", 1), token, &tls.Config{RootCAs: s.pool})
	if st, err := c.Status(t.Context()); err != nil || st.Node != "a" {
		t.Error(st, err)
	}
	if _, err := c.RemoveUser(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	made, err := c.CreateAPIToken(t.Context(), APITokenRequest{Name: "x", Role: RoleViewer})
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.ListAPITokens(t.Context())
	if err != nil || len(all) != 2 {
		t.Error(all, err)
	}
	weak := NewRemoteClient(strings.Replace(s.url, "127.0.0.1", "localhost", 1), made.Token, &tls.Config{RootCAs: s.pool})
	if _, err := weak.RemoveUser(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "role") {
		t.Error("a viewer:", err)
	}
	if change, err := c.RemoveAPIToken(t.Context(), made.ID); err != nil || change.Index == 0 {
		t.Error(change, err)
	}
	if change, err := c.RemoveAPIToken(t.Context(), made.ID); err != nil || change.Index != 0 {
		t.Error(change, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	strange := NewRemoteClient(s.url, token, &tls.Config{RootCAs: x509.NewCertPool()})
	if _, err := strange.Status(ctx); err == nil || !strings.Contains(err.Error(), "--ca-file") {
		t.Error("an unknown CA:", err)
	}
}

func FuzzAPIToken(f *testing.F) {
	text, _, _ := NewAPIToken()
	f.Add(text)
	f.Add("MQA1..")
	f.Fuzz(func(t *testing.T, text string) {
		id, secret, hash, ok := parseAPIToken(text)
		if ok && (id == "" || len(secret) != 32 || len(hash) != 32) {
			t.Errorf("%q: %q %d %d", text, id, len(secret), len(hash))
		}
	})
}
