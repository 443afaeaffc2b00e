package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// Bounds of the sessions of people at the dashboard.
const (
	sessionLife = 12 * time.Hour
	sessionIdle = time.Hour
	maxSessions = 1000
)

// sessions are logins with a token, kept in this node's memory. A session is worth
// no more than its token: it ends with it.
type sessions struct {
	access Access
	cookie string // its name

	mu  sync.Mutex
	all map[[sha256.Size]byte]*login // by the hash of the cookie's value
}

type login struct {
	token       string // id
	name        string
	begun, used time.Time
}

// newSessions names the cookie after the node: the nodes of a test share a host,
// and cookies know no ports.
func newSessions(node string, a Access) *sessions {
	return &sessions{access: a, cookie: "__Host-mqcluster-" + node, all: map[[sha256.Size]byte]*login{}}
}

// begin makes a session for who has proved a token.
func (s *sessions) begin(p Principal, now time.Time) *http.Cookie {
	value := rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxSessions {
		s.dropLocked(now)
	}
	s.all[sha256.Sum256([]byte(value))] = &login{token: p.id, name: p.Name, begun: now, used: now}
	return s.make(value, int(sessionLife/time.Second))
}

// make returns the cookie: scripts cannot read it, other sites cannot have it sent.
func (s *sessions) make(value string, age int) *http.Cookie {
	return &http.Cookie{
		Name: s.cookie, Value: value, Path: "/", MaxAge: age,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
}

// dropLocked makes room: what has ended goes, else what was not used for longest.
func (s *sessions) dropLocked(now time.Time) {
	var oldest [sha256.Size]byte
	var found *login
	for k, l := range s.all {
		switch {
		case l.over(now):
			delete(s.all, k)
		case found == nil || l.used.Before(found.used):
			oldest, found = k, l
		}
	}
	if len(s.all) >= maxSessions {
		delete(s.all, oldest)
	}
}

func (l *login) over(now time.Time) bool {
	return now.Sub(l.begun) > sessionLife || now.Sub(l.used) > sessionIdle
}

// find returns who has the session of a cookie, as the token says now.
func (s *sessions) find(value string, now time.Time) (Principal, bool) {
	k := sha256.Sum256([]byte(value))
	s.mu.Lock()
	l := s.all[k]
	if l != nil && l.over(now) {
		delete(s.all, k)
		l = nil
	}
	if l == nil {
		s.mu.Unlock()
		return Principal{}, false
	}
	l.used = now
	token := l.token
	s.mu.Unlock()
	t, ok := s.access.APIToken(token)
	if !ok {
		s.end(value)
		return Principal{}, false
	}
	return Principal{Name: t.Name, Role: t.Role, Via: "token", id: token}, true
}

func (s *sessions) end(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(value)))
}
