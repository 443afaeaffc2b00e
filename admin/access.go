package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Role is what somebody may do over the network. Each may do all that the one
// before may.
type Role string

// The roles.
const (
	// RoleViewer reads everything but secrets.
	RoleViewer Role = "viewer"
	// RoleOperator works with clients, sessions and messages, and drains nodes.
	RoleOperator Role = "operator"
	// RoleAdmin does everything.
	RoleAdmin Role = "admin"
)

// Roles lists the roles, the weakest first.
func Roles() []Role { return []Role{RoleViewer, RoleOperator, RoleAdmin} }

// Valid tells whether r is one of the roles.
func (r Role) Valid() bool { return slices.Contains(Roles(), r) }

// includes tells whether who has r may do what other may.
func (r Role) includes(other Role) bool {
	return r.Valid() && slices.Index(Roles(), r) >= slices.Index(Roles(), other)
}

// UserRole is the role that a user of the broker has here whose certificate proves
// it: by a role of the user named api-viewer, api-operator or api-admin. "" is none.
func UserRole(roles []string) Role {
	for _, r := range slices.Backward(Roles()) {
		if slices.Contains(roles, "api-"+string(r)) {
			return r
		}
	}
	return ""
}

// Principal is who makes a request.
type Principal struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Via is how that was proved: "socket", "token" or "certificate".
	Via string `json:"via"`
	// id is the token's or the certificate's serial.
	id string
}

// actor is what the audit calls it.
func (p Principal) actor() string { return p.Via + " " + p.Name }

// key tells principals apart.
func (p Principal) key() string { return p.Via + "\x00" + p.id }

type principalKey struct{}

// PrincipalFrom returns who makes the request of ctx. Who came through the Unix
// socket is an admin.
func PrincipalFrom(ctx context.Context) Principal {
	if p, ok := ctx.Value(principalKey{}).(Principal); ok {
		return p
	}
	return Principal{Name: "socket", Role: RoleAdmin, Via: "socket"}
}

// Access knows who may use the API over the network. Its methods must not block.
type Access interface {
	// APIToken returns the token with this id, if it is in force.
	APIToken(id string) (APITokenRecord, bool)
	// CertUser returns the user that a verified client certificate proves, and its
	// role. The error says why it has none.
	CertUser(leaf *x509.Certificate) (name string, role Role, err error)
}

// APITokenRecord is what is kept of a token.
type APITokenRecord struct {
	Name string
	Role Role
	Hash []byte // SHA-256 of its secret
}

// tokenPrefix begins the text of a token: MQA1.<id>.<secret>.
const tokenPrefix = "MQA1."

// NewAPIToken makes a token: its text, which is shown once, and what is kept. The
// secret has 256 bits, so that a plain hash of it is enough.
func NewAPIToken() (text, id string, hash []byte) {
	id = strings.ToLower(rand.Text()[:10])
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	text = tokenPrefix + id + "." + base64.RawURLEncoding.EncodeToString(secret[:])
	_, _, hash, _ = parseAPIToken(text)
	return text, id, hash
}

// parseAPIToken takes the text of a token apart.
func parseAPIToken(text string) (id string, secret, hash []byte, ok bool) {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return "", nil, nil, false
	}
	id, encoded, ok := strings.Cut(rest, ".")
	if !ok || id == "" || len(id) > 32 {
		return "", nil, nil, false
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(secret) != 32 {
		return "", nil, nil, false
	}
	sum := sha256.Sum256(secret)
	return id, secret, sum[:], true
}

// errCredentials says no more than it must.
var errCredentials = &Error{Unauthenticated, "the token is not known, or is in force no longer: make one with mqcluster api-token create"}

// byToken proves who has a token.
func byToken(a Access, text string) (Principal, error) {
	id, secret, hash, ok := parseAPIToken(text)
	clear(secret)
	if !ok {
		return Principal{}, errCredentials
	}
	known, found := a.APIToken(id)
	if !found {
		known.Hash = make([]byte, sha256.Size) // compared all the same, in the same time
	}
	if subtle.ConstantTimeCompare(known.Hash, hash) != 1 || !found {
		return Principal{}, errCredentials
	}
	return Principal{Name: known.Name, Role: known.Role, Via: "token", id: id}, nil
}

// errNobody: the request proves nobody.
var errNobody = &Error{Unauthenticated, "the request has no credentials: send a token as Authorization: Bearer MQA1.…, or a client certificate of a user with the role api-viewer, api-operator or api-admin"}

// errSessionEnded: the cookie is of a session that is no more, or was never.
var errSessionEnded = &Error{Unauthenticated, "the session has ended: log in again"}

// identify says who makes a request over the network, by what it brings: a bearer
// token, else the cookie of a session, else a certificate. What is there and is
// wrong is refused, whatever comes after it.
func (s *secureAPI) identify(r *http.Request) (p Principal, cookie bool, err error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, text, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return p, false, &Error{Unauthenticated, "the credentials are of an unknown kind: send Authorization: Bearer MQA1.…"}
		}
		p, err = byToken(s.access, strings.TrimSpace(text))
		return p, false, err
	}
	if c, err := r.Cookie(s.sessions.cookie); err == nil {
		p, ok := s.sessions.find(c.Value, time.Now())
		if !ok {
			return p, true, errSessionEnded
		}
		return p, true, nil
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		leaf := r.TLS.PeerCertificates[0]
		name, role, err := s.access.CertUser(leaf)
		if err != nil {
			return p, false, err
		}
		return Principal{Name: name, Role: role, Via: "certificate", id: leaf.SerialNumber.Text(16)}, false, nil
	}
	return p, false, errNobody
}

// stillIs tells whether who began a long request may still do so.
func (s *secureAPI) stillIs(p Principal, role Role, r *http.Request) bool {
	now, _, err := s.identify(r)
	return err == nil && now.key() == p.key() && now.Role.includes(role)
}

var errSecureNeeds = errors.New("the API's listener needs TLS and somebody who knows the tokens")
