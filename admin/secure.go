package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// secureAPI is the API on the network: who asks has to prove who it is.
type secureAPI struct {
	server   *Server
	node     string
	access   Access
	mux      *mux
	web      http.Handler
	sessions *sessions
	origins  *http.CrossOriginProtection

	requests, streams chan struct{}
	failed            *limits[netip.Prefix]
	asked             *limits[string]
}

// openSecure listens for the API on the network.
func (s *Server) openSecure(ctx, base context.Context, config Config, deps Deps, mux *mux) error {
	if deps.TLS == nil || deps.Access == nil {
		return errSecureNeeds
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.APIListen)
	if err != nil {
		return fmt.Errorf("the API's listener cannot be opened: set api.listen to a free address: %w", err)
	}
	s.api = listener
	api := &secureAPI{
		server: s, node: config.Node, access: deps.Access, mux: mux, web: webHandler(),
		sessions: newSessions(config.Node, deps.Access), origins: http.NewCrossOriginProtection(),
		requests: make(chan struct{}, maxRequests), streams: make(chan struct{}, maxStreams),
		failed: newLimits[netip.Prefix](rate.Every(failureEvery), failures),
		asked:  newLimits[string](perSecond, burst),
	}
	s.serve(base, tls.NewListener(newBoundedListener(listener, maxConns), deps.TLS), api)
	return nil
}

// APIAddr returns the address of the API's listener, nil if there is none.
func (s *Server) APIAddr() net.Addr {
	if s.api == nil {
		return nil
	}
	return s.api.Addr()
}

// ServeHTTP implements http.Handler.
func (s *secureAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		s.web.ServeHTTP(w, r)
		return
	}
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	switch {
	case r.URL.Path == "/v1/session":
		s.serveSession(w, r)
	case r.URL.Path == "/v1/openapi.json":
		serveOpenAPI(w, r)
	default:
		s.serveRoute(w, r)
	}
}

// maxAsk is the largest request over the network, in bytes: a message of the
// largest size, as base64.
const maxAsk = 24 << 20

func (s *secureAPI) serveRoute(w http.ResponseWriter, r *http.Request) {
	p, err := s.admit(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	found := s.mux.routeOf(r)
	role := RoleViewer
	if found != nil {
		role = found.role
	}
	if !p.Role.includes(role) {
		s.refuse(w, r, &Error{Denied, fmt.Sprintf("%s has the role %s and this needs %s: use a token of that role", p.Name, p.Role, role)})
		return
	}
	room := s.requests
	if found != nil && found.stream {
		room = s.streams
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	default:
		w.Header().Set("Retry-After", "1")
		s.refuse(w, r, &Error{Unavailable, "too many requests are under way at this node: try again, or ask another one"})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxAsk)
	ctx := context.WithValue(r.Context(), principalKey{}, p)
	if found != nil && found.stream {
		ctx = context.WithValue(ctx, stillKey{}, func() bool { return s.stillIs(p, found.role, r) })
	}
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

// admit says who makes a request, and refuses what a foreign page had a browser do.
func (s *secureAPI) admit(r *http.Request) (Principal, error) {
	p, cookie, err := s.identify(r)
	if err != nil {
		return p, err
	}
	// A browser sends cookies and certificates by itself, whatever page has it do so; a
	// token is sent by who has it.
	if cookie && !s.sameOrigin(r) || p.Via == "certificate" && s.origins.Check(r) != nil {
		return p, &Error{Denied, "the request comes from another site: use the dashboard of this node, or a token"}
	}
	if !s.asked.allow(p.key()) {
		return p, &Error{TooMany, fmt.Sprintf("%s asks more than %d times a second: ask more slowly", p.Name, perSecond)}
	}
	return p, nil
}

// sameOrigin tells of a request with a cookie whether a page of this node made it.
// What only reads is no danger: a foreign page cannot see the answer.
func (s *secureAPI) sameOrigin(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return true
	}
	if r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		return false
	}
	return s.origins.Check(r) == nil
}

// refuse answers an error, and counts wrong credentials against their source.
func (s *secureAPI) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	switch e.Kind {
	case Unauthenticated:
		switch {
		case errors.Is(err, errNobody), errors.Is(err, errSessionEnded):
		case s.failed.allow(sourceOf(r.RemoteAddr)):
			s.server.log.Warn("wrong credentials at the API", "address", r.RemoteAddr, "err", err)
		default:
			e = &Error{TooMany, "too many wrong credentials came from this address: wait a minute"}
		}
	case Denied:
		s.server.log.Warn("a request to the API was refused", "address", r.RemoteAddr, "path", r.URL.Path, "err", err)
	}
	if e.Kind == TooMany {
		w.Header().Set("Retry-After", "6")
	}
	writeError(w, e)
}

// maxLogin is the largest body of a login, in bytes.
const maxLogin = 4 << 10

// LoginRequest begins a session at the dashboard.
type LoginRequest struct {
	Token string `json:"token"`
}

// Login is a session at the dashboard of a node.
type Login struct {
	Principal
	Node string `json:"node"`
}

// serveSession begins, shows and ends the session of a browser.
func (s *secureAPI) serveSession(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	switch r.Method {
	case http.MethodPost:
		s.login(w, r)
	case http.MethodGet:
		p, err := s.admit(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, Login{p, s.node})
	case http.MethodDelete:
		if !s.sameOrigin(r) {
			s.refuse(w, r, &Error{Denied, "the request comes from another site"})
			return
		}
		if c, err := r.Cookie(s.sessions.cookie); err == nil {
			s.sessions.end(c.Value)
		}
		http.SetCookie(w, s.sessions.make("", -1))
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "DELETE, GET, POST")
		writeBody(w, "application/problem+json", http.StatusMethodNotAllowed, []byte(`{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"a session is begun with POST, shown with GET and ended with DELETE","kind":"invalid","error":"a session is begun with POST, shown with GET and ended with DELETE"}`))
	}
}

func (s *secureAPI) login(w http.ResponseWriter, r *http.Request) {
	if s.origins.Check(r) != nil {
		s.refuse(w, r, &Error{Denied, "the login comes from another site: use the dashboard of this node"})
		return
	}
	var q LoginRequest
	if err := readBody(r, &q); err != nil {
		s.refuse(w, r, &Error{Invalid, fmt.Sprintf("the login is not understood (%v): send {\"token\":\"MQA1.…\"}", err)})
		return
	}
	p, err := byToken(s.access, strings.TrimSpace(q.Token))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	http.SetCookie(w, s.sessions.begin(p, time.Now()))
	s.server.log.Info("login", "name", p.Name, "role", string(p.Role), "address", r.RemoteAddr)
	writeJSON(w, http.StatusOK, Login{p, s.node})
}

type stillKey struct{}

// still tells whether who began the stream of ctx may still see it.
func still(ctx context.Context) bool {
	f, ok := ctx.Value(stillKey{}).(func() bool)
	return !ok || f()
}
