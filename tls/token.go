package mtls

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
)

const tokenPrefix = "MQ1"

// Token lets a machine join a cluster: MQ1.<pin>.<secret>. The pin tells it the
// cluster's CA, the secret tells the cluster that it may.
type Token struct {
	pin    [sha256.Size]byte
	secret [32]byte
}

// NewToken makes a token with a fresh secret for the cluster whose CA has the
// pin (PinOf).
func NewToken(pin string) (Token, error) {
	var t Token
	if err := decodePart(t.pin[:], pin); err != nil {
		return Token{}, err
	}
	_, _ = rand.Read(t.secret[:]) // never fails: crypto/rand ends the process instead
	return t, nil
}

// ParseToken reads what String wrote; white space around it does not matter.
// Errors do not repeat the token.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 3 || parts[0] != tokenPrefix {
		return Token{}, errBadToken()
	}
	var t Token
	if err := decodePart(t.pin[:], parts[1]); err != nil {
		return Token{}, err
	}
	if err := decodePart(t.secret[:], parts[2]); err != nil {
		return Token{}, err
	}
	return t, nil
}

func decodePart(dst []byte, s string) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// Strict, and without the line breaks that the decoder passes over: one token
	// has one spelling.
	if err != nil || len(b) != len(dst) || strings.ContainsAny(s, "\r\n") {
		return errBadToken()
	}
	copy(dst, b)
	return nil
}

func errBadToken() error {
	return failf(ErrBadToken, "the join token is not of the form MQ1.<pin>.<secret>: copy it whole, as mqcluster token create printed it")
}

// String returns the whole token, the secret included.
func (t Token) String() string {
	return tokenPrefix + "." + t.Pin() + "." + base64.RawURLEncoding.EncodeToString(t.secret[:])
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(tokenPrefix + " " + t.ID()) }

// Pin returns the pin of the cluster's CA.
func (t Token) Pin() string { return base64.RawURLEncoding.EncodeToString(t.pin[:]) }

// Hash returns the SHA-256 of the secret, which is what the cluster keeps.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.secret[:])
	return sum[:]
}

// ID returns the first 8 bytes of Hash in hexadecimal: the token's name in
// lists and logs.
func (t Token) ID() string { return hex.EncodeToString(t.Hash()[:8]) }

// JoinClient returns the settings with which a machine that has no certificate
// dials a node of the cluster to join it by the protocol. The handshake fails
// unless the node proves, with a chain up to a CA whose key has the token's pin,
// that it is a node of that CA's cluster; so no byte of the application, and not
// the secret, ever goes to anybody else.
func JoinClient(token Token, proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{proto},
		// The chain is verified below: up to the pin, which crypto/tls has no
		// notion of. The name dialled says nothing; the pin says all.
		InsecureSkipVerify:     true, //nolint:gosec // see above
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != proto {
				return failf(ErrProtocol, "the other side does not speak %s: give the address of a node's mesh port", proto)
			}
			_, _, err := verifyPinned(state.PeerCertificates, token)
			return err
		},
	}
}

// Joined is the cluster that a joining machine has reached.
type Joined struct {
	ClusterID string
	NodeID    string // of the node that answered
	CA        *x509.Certificate
}

// JoinPeer returns which cluster is at the other end of a handshake under
// JoinClient(token).
func JoinPeer(state tls.ConnectionState, token Token) (Joined, error) {
	ca, node, err := verifyPinned(state.PeerCertificates, token)
	if err != nil {
		return Joined{}, err
	}
	e, err := entityOf(ca)
	if err != nil {
		return Joined{}, err
	}
	return Joined{ClusterID: e.cluster, NodeID: node, CA: ca}, nil
}

// verifyPinned finds the CA of the pin in what the other side presented and
// verifies the leaf up to it.
func verifyPinned(certs []*x509.Certificate, token Token) (ca *x509.Certificate, node string, err error) {
	if len(certs) == 0 {
		return nil, "", failf(ErrNoCertificate, "the other side sent no certificate: give the address of a node's mesh port")
	}
	i := slices.IndexFunc(certs[1:], func(c *x509.Certificate) bool {
		return sha256.Sum256(c.RawSubjectPublicKeyInfo) == token.pin
	})
	if i < 0 {
		return nil, "", failf(ErrPin, "the other side is not a node of the cluster that the token is for: check the address, or make a new token with mqcluster token create")
	}
	ca = certs[1+i]
	e, err := entityOf(ca)
	if err != nil {
		return nil, "", err
	}
	if e.kind != kindCA || !ca.IsCA || !ca.BasicConstraintsValid {
		return nil, "", failf(ErrPin, "the certificate of the token's pin is not a cluster CA: make a new token with mqcluster token create")
	}
	// The pin is of the key only. What else the certificate says counts from
	// here on, so the key must have signed it.
	if err := ca.CheckSignatureFrom(ca); err != nil {
		return nil, "", failf(ErrPin, "the cluster CA's certificate was tampered with (%v): do not join by this address", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := verifyChain(certs[:1], roots, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, "", err
	}
	node, err = nodeOf(certs[0], e.cluster)
	return ca, node, err
}
