package node

import (
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/identity"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// proofs remembers by what every connection proved who it is, so that it ends
// when that no longer holds: the password was changed, the certificate revoked.
type proofs struct {
	mu  sync.Mutex
	all map[connKey]*proof
}

// connKey names a connection as broker.Credentials does.
type connKey struct {
	listener string
	remote   netip.AddrPort
}

type proof struct {
	conn   net.Conn
	cert   *x509.Certificate // nil without one
	serial string            // of cert
	client string            // empty before CONNECT
	user   string
	// version is the user's when the password was verified; 0 where none was.
	version uint64
	token   bool        // a token named the user, who need not be known here
	grant   *auth.Grant // of the token; nil without one
	expiry  *time.Timer // of the token; nil without one
}

// open notes a connection; the returned func forgets it.
func (s *proofs) open(c net.Conn, ci broker.ConnInfo) (forget func()) {
	key, p := connKey{ci.Listener, ci.Remote}, &proof{conn: c}
	if len(ci.Certificates) > 0 {
		p.cert, p.serial = ci.Certificates[0], mtls.Serial(ci.Certificates[0])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[connKey]*proof{}
	}
	s.all[key] = p
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.expiry != nil {
			p.expiry.Stop()
		}
		if s.all[key] == p {
			delete(s.all, key)
		}
	}
}

// tokened notes that a token proved the user. When it counts no longer, end is
// called, unless the connection is over.
func (s *proofs) tokened(c broker.Credentials, t identity.Token, end func(proof)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.all[connKey{c.Listener, c.Address}]
	if p == nil {
		return
	}
	p.client, p.user, p.token, p.grant = c.ClientID, t.User, true, t.Grant
	ended := *p
	p.expiry = time.AfterFunc(time.Until(t.Until), func() { end(ended) })
}

// granted returns what the connection's token grants.
func (s *proofs) granted(c broker.Credentials) *auth.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.all[connKey{c.Listener, c.Address}]; p != nil {
		return p.grant
	}
	return nil
}

// shown notes what a CONNECT proved.
func (s *proofs) shown(c broker.Credentials, user string, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.all[connKey{c.Listener, c.Address}]; p != nil {
		p.client, p.user, p.version = c.ClientID, user, version
	}
}

// broken returns the connections whose proof holds no longer, or that are banned.
// trusts is nil unless the CAs have changed.
func (s *proofs) broken(policy *auth.Policy, bans *auth.Bans, revoked func(serial string) bool, trusts func(*x509.Certificate) bool) (out []proof) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.all {
		u, known := policy.User(p.user)
		gone := p.user != "" && (!known && !p.token || u.Disabled || p.version != 0 && p.version != u.Version)
		gone = gone || bans.Check(key.remote.Addr(), p.user, p.client) != nil
		if gone || p.cert != nil && (revoked(p.serial) || trusts != nil && !trusts(p.cert)) {
			out = append(out, *p)
		}
	}
	return out
}
