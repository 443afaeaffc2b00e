package fsm

import (
	"strings"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// The methods below answer listings. They take the apply lock for as long as
// they copy.

// Users returns the users, by name.
func (s *Store) Users() []*logpb.User {
	return list(s, func(st *state) map[string]*logpb.User { return st.users })
}

// ACLs returns the rules of every subject that has some, by subject.
func (s *Store) ACLs() []*logpb.Acl {
	return list(s, func(st *state) map[string]*logpb.Acl { return st.acls })
}

// Tokens returns the join tokens, expired ones included, by id.
func (s *Store) Tokens() []*logpb.Token {
	return list(s, func(st *state) map[string]*logpb.Token { return st.tokens })
}

// APITokens returns the tokens of the admin API, expired ones included, by id.
func (s *Store) APITokens() []*logpb.ApiToken {
	return list(s, func(st *state) map[string]*logpb.ApiToken { return st.apiTokens })
}

// APIToken returns a token of the admin API that has not expired by log time, or
// nil. It does not block.
func (s *Store) APIToken(id string) *logpb.ApiToken {
	v, ok := s.table.Load().api.Load(id)
	if !ok {
		return nil
	}
	t := v.(*logpb.ApiToken)
	if t.ExpiresAt != 0 && t.ExpiresAt <= s.stamp.Load() {
		return nil
	}
	return t
}

// Certs returns the certificates that the cluster issued, by serial number.
func (s *Store) Certs() []*logpb.Cert {
	return list(s, func(st *state) map[string]*logpb.Cert { return st.certs })
}

// list copies the values of a table in the order of their keys. The records are
// replaced and not changed in place, so the pointers are enough.
func list[T any](s *Store, of func(*state) map[string]T) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := of(s.state)
	out := make([]T, 0, len(m))
	for _, k := range sortedKeys(m) {
		out = append(out, m[k])
	}
	return out
}

// Setting returns a setting of the cluster.
func (s *Store) Setting(key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.state.settings[key]
	return v, ok
}

// Revoked tells whether the certificate with this serial number, in hex, was
// revoked. It does not block.
func (s *Store) Revoked(serial string) bool {
	c, ok := s.table.Load().certs.Load(serial)
	return ok && c.(*logpb.Cert).Revoked
}

// Epoch returns the epoch of the connection that has a client id, 0 if none has.
// It is safe for concurrent use and does not block.
func (s *Store) Epoch(client string) session.Pos {
	v, ok := s.table.Load().sessions.Load(client)
	if !ok {
		return 0
	}
	if o := v.(*sess).owner.Load(); o != nil {
		return session.Pos(o.epoch)
	}
	return 0
}

// Session returns a copy of a session's record with its subscriptions and
// cursor, or nil.
func (s *Store) Session(client string) *logpb.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.state.sessions[client]
	if o == nil {
		return nil
	}
	rec := proto.CloneOf(o.rec)
	rec.Cursor = o.cursor.Load()
	for _, n := range o.list() {
		rec.Subscriptions = append(rec.Subscriptions, n.record())
	}
	return rec
}

// Absent calls f for each session without a connection that waits for the message of
// an EventMessage, with the QoS that it has there. It is for the observer of that event,
// on the goroutine that applies.
func (s *Store) Absent(e Event, f func(client string, qos byte)) {
	m := e.Message
	for _, at := range s.state.table.plain.Load().Match(nil, m.Topic) {
		for o, n := range at.subs {
			waits := m.QoS > 0 && n.waits() || s.state.limits.QueueQoS0 && n.waits()
			if waits && o.owner.Load() == nil && !(n.NoLocal && m.Publisher == o.client) {
				f(o.client, min(m.QoS, n.QoS))
			}
		}
	}
	for _, p := range e.Picks {
		if p.Node == "" && m.QoS > 0 {
			f(p.Client, min(m.QoS, p.Subscription.QoS))
		}
	}
}

// UnderWay counts the QoS 2 messages that are on their way to a client, and from it.
func (s *Store) UnderWay(client string) (sending, receiving int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.state.sessions[client]
	if o == nil {
		return 0, 0
	}
	for _, out := range o.outs {
		if session.OutState(out.State) != session.OutDone {
			sending++
		}
	}
	return sending, len(o.received)
}

// Counts are the sizes of the state, for metrics and status.
type Counts struct {
	Sessions, Connected, Subscriptions, Filters, Groups int
}

// Counts walks the sessions under the apply lock.
func (s *Store) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Counts{Sessions: len(s.state.sessions), Filters: len(s.state.filters), Groups: len(s.state.groups)}
	for _, o := range s.state.sessions {
		if o.rec.Owner != "" {
			c.Connected++
		}
		c.Subscriptions += len(o.list())
	}
	return c
}

// Sessions returns at most limit sessions whose client id begins with prefix, by
// client id.
func (s *Store) Sessions(prefix string, limit int) []*logpb.Session {
	s.mu.Lock()
	var names []string
	for _, k := range sortedKeys(s.state.sessions) {
		if strings.HasPrefix(k, prefix) && len(names) < limit {
			names = append(names, k)
		}
	}
	s.mu.Unlock()
	out := make([]*logpb.Session, 0, len(names))
	for _, k := range names {
		if r := s.Session(k); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// Owned returns the epoch of every session whose connection is on the node, by
// client id.
func (s *Store) Owned(node string) map[string]session.Pos {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]session.Pos{}
	for client, o := range s.state.sessions {
		if o.rec.Owner == node {
			out[client] = session.Pos(o.rec.Epoch)
		}
	}
	return out
}
