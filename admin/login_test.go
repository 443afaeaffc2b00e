package admin

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func (s *secured) login(token string) []*http.Cookie {
	s.t.Helper()
	r := s.do(ask{method: "POST", path: "/v1/session", body: `{"token":"` + token + `"}`})
	if r.StatusCode != 200 {
		s.t.Fatalf("login: %d", r.StatusCode)
	}
	return r.Cookies()
}

func TestDashboardSession(t *testing.T) {
	s := openSecured(t)
	token, id := s.tokens.add("o", RoleOperator)
	cookies := s.login(token)
	if len(cookies) != 1 {
		t.Fatal(cookies)
	}
	c := cookies[0]
	if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || !strings.HasPrefix(c.Name, "__Host-") || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
	if strings.Contains(c.Value, token) || strings.Contains(c.Value, id) {
		t.Error("the cookie holds the token")
	}
	same := map[string]string{"Sec-Fetch-Site": "same-origin"}
	for _, tt := range []struct {
		name   string
		header map[string]string
		method string
		status int
	}{
		{"read", nil, "GET", 200},
		{"change by a page of the node", same, "PUT", 200},
		{"change by its origin", map[string]string{"Origin": s.url}, "PUT", 200},
		{"change by another site", map[string]string{"Sec-Fetch-Site": "cross-site"}, "PUT", 403},
		{"change by a neighbour", map[string]string{"Sec-Fetch-Site": "same-site"}, "PUT", 403},
		{"change by another origin", map[string]string{"Origin": "https://evil.example"}, "PUT", 403},
		{"change by who knows", nil, "PUT", 403},
	} {
		if got := s.status(ask{method: tt.method, path: "/v1/nodes/a/drain", cookies: cookies, header: tt.header}); got != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.status)
		}
	}
	// A certificate goes along by itself as a cookie does.
	anna := s.issue("anna")
	if got := s.status(ask{method: "PUT", path: "/v1/nodes/a/drain", cert: &anna, header: map[string]string{"Sec-Fetch-Site": "cross-site"}}); got != 403 {
		t.Errorf("a change by another site with a certificate: %d", got)
	}
	if got := s.status(ask{method: "POST", path: "/v1/session", body: `{"token":"` + token + `"}`, header: map[string]string{"Origin": "https://evil.example"}}); got != 403 {
		t.Errorf("a login by another site: %d", got)
	}
	if got := s.status(ask{method: "PUT", path: "/v1/users/x", body: "{}", cookies: cookies, header: same}); got != 403 {
		t.Errorf("an operator's session added a user: %d", got)
	}
	other := s.login(token)
	if got := s.status(ask{method: "DELETE", path: "/v1/session", cookies: other, header: same}); got != 204 {
		t.Errorf("log out: %d", got)
	}
	if got := s.status(ask{method: "GET", path: "/v1/overview", cookies: other}); got != 401 {
		t.Errorf("after logging out: %d", got)
	}
	s.tokens.drop(id)
	if got := s.status(ask{method: "GET", path: "/v1/overview", cookies: cookies}); got != 401 {
		t.Errorf("after its token went: %d", got)
	}
}

func TestSessionsEnd(t *testing.T) {
	tokens := &fakeTokens{}
	_, id := tokens.add("o", RoleOperator)
	all := newSessions("a", tokens)
	now := time.Now()
	p := Principal{Name: "o", Role: RoleOperator, id: id}
	idle, used := all.begin(p, now).Value, all.begin(p, now).Value
	for at := now; at.Before(now.Add(sessionLife - time.Minute)); at = at.Add(sessionIdle - time.Minute) {
		if _, ok := all.find(used, at); !ok {
			t.Fatalf("a session that is used ended after %v", at.Sub(now))
		}
	}
	if _, ok := all.find(idle, now.Add(sessionIdle+time.Second)); ok {
		t.Error("an idle session goes on")
	}
	if _, ok := all.find(used, now.Add(sessionLife+time.Second)); ok {
		t.Error("a session goes on for ever")
	}
	for range maxSessions + 10 {
		all.begin(p, now)
	}
	if len(all.all) > maxSessions {
		t.Errorf("%d sessions", len(all.all))
	}
}

func TestWrongCredentialsAreSlowedDown(t *testing.T) {
	s := openSecured(t)
	good, _ := s.tokens.add("v", RoleViewer)
	last := 0
	for range failures + 1 {
		last = s.status(ask{method: "GET", path: "/v1/overview", token: "MQA1.abc.def"})
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("after %d wrong tokens: %d", failures+1, last)
	}
	if got := s.status(ask{method: "POST", path: "/v1/session", body: `{"token":"MQA1.abc.def"}`}); got != http.StatusTooManyRequests {
		t.Errorf("a login: %d", got)
	}
	// Who has a good token is not locked out by a neighbour.
	if got := s.status(ask{method: "GET", path: "/v1/overview", token: good}); got != 200 {
		t.Errorf("a good token from the same address: %d", got)
	}
}

func TestLimits(t *testing.T) {
	l := newLimits[string](1, 2)
	for i, key := range []string{"a", "a", "a", "b"} {
		if got, want := l.allow(key), i != 2; got != want {
			t.Errorf("%s, the time %d: %v", key, i, got)
		}
	}
	for i := range 10 * maxLimited {
		l.allow(string(rune(i)))
	}
	if n := len(l.all) + len(l.old); n > maxLimited {
		t.Errorf("%d are remembered", n)
	}
	for text, want := range map[string]string{
		"192.0.2.7:99": "192.0.2.7/32", "[::ffff:192.0.2.7]:99": "192.0.2.7/32", "[2001:db8::1:2]:9": "2001:db8::/64", "x": "invalid Prefix",
	} {
		if got := sourceOf(text).String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
