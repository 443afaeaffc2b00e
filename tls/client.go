package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net"
	"time"
)

// DefaultLifetime is how long client and server certificates live unless their
// profile says otherwise.
const DefaultLifetime = 365 * 24 * time.Hour

// KeyAlgorithm is the kind of private key that IssueClient and IssueServer make.
type KeyAlgorithm string

// The key algorithms; empty means ECDSA P-256. Old devices may need RSA.
const (
	ECDSAP256 KeyAlgorithm = "ecdsa-p256"
	Ed25519   KeyAlgorithm = "ed25519"
	RSA2048   KeyAlgorithm = "rsa-2048"
	RSA3072   KeyAlgorithm = "rsa-3072"
	RSA4096   KeyAlgorithm = "rsa-4096"
)

// ClientProfile is what a client's certificate says.
type ClientProfile struct {
	Name     string        // the user name
	Lifetime time.Duration // 0: DefaultLifetime
	Key      KeyAlgorithm
}

// ServerProfile is what the certificate of a listener says that is not to be
// served with a node's own.
type ServerProfile struct {
	DNSNames []string // at least one of these or of IPs
	IPs      []net.IP
	Lifetime time.Duration // 0: DefaultLifetime
	Key      KeyAlgorithm
}

// IssueClient makes a key and a certificate for a client of the name, which is
// good for nothing else: not for the mesh and not to serve with. The key is
// unencrypted, for WritePrivate.
func (ca *CA) IssueClient(p ClientProfile, now time.Time) (certPEM, keyPEM []byte, err error) {
	if err := checkUserName(p.Name); err != nil {
		return nil, nil, err
	}
	return ca.issue(ca.clientLeaf(p), p.Key, now)
}

// IssueServer makes a key and a certificate for a listener. The key is
// unencrypted, for WritePrivate.
func (ca *CA) IssueServer(p ServerProfile, now time.Time) (certPEM, keyPEM []byte, err error) {
	names := p.DNSNames
	for _, ip := range p.IPs {
		names = append(names[:len(names):len(names)], ip.String())
	}
	dns, ips, err := ParseNames(names)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		return nil, nil, failf(ErrWrongName, "a server certificate needs a name: give the host names or addresses that clients connect to")
	}
	return ca.issue(leaf{
		entity:   entity{ca.clusterID, kindServer, names[0]},
		usages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		dns:      dns,
		ips:      ips,
		lifetime: p.Lifetime,
	}, p.Key, now)
}

// SignClient signs a certificate for a client whose key was made elsewhere, after
// RequestKey's checks. Everything but the key is the profile's; its Key is not
// looked at.
func (ca *CA) SignClient(csrDER []byte, p ClientProfile, now time.Time) (certPEM []byte, err error) {
	if err := checkUserName(p.Name); err != nil {
		return nil, err
	}
	pub, err := RequestKey(csrDER)
	if err != nil {
		return nil, err
	}
	cert, err := ca.sign(ca.clientLeaf(p), pub, now)
	if err != nil {
		return nil, err
	}
	return marshalCerts(cert), nil
}

func (ca *CA) clientLeaf(p ClientProfile) leaf {
	if p.Lifetime == 0 {
		p.Lifetime = DefaultLifetime
	}
	return leaf{
		entity:   entity{ca.clusterID, kindClient, p.Name},
		usages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		lifetime: p.Lifetime,
	}
}

func (ca *CA) issue(l leaf, alg KeyAlgorithm, now time.Time) (certPEM, keyPEM []byte, err error) {
	if l.lifetime == 0 {
		l.lifetime = DefaultLifetime
	}
	key, err := newKey(alg)
	if err != nil {
		return nil, nil, err
	}
	cert, err := ca.sign(l, key.Public(), now)
	if err != nil {
		return nil, nil, err
	}
	if keyPEM, err = MarshalKey(key); err != nil {
		return nil, nil, err
	}
	return marshalCerts(cert), keyPEM, nil
}

// newKey may take seconds for RSA.
func newKey(alg KeyAlgorithm) (key crypto.Signer, err error) {
	switch alg {
	case "", ECDSAP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, fmt.Errorf("unknown key algorithm %s: use %s, %s, %s, %s or %s", alg, ECDSAP256, Ed25519, RSA2048, RSA3072, RSA4096)
	}
	if err != nil {
		return nil, fmt.Errorf("mtls: make %s key: %w", alg, err)
	}
	return key, nil
}

// Where ClientName finds the user name.
const (
	FromCN  = "cn"
	FromSAN = "san"
)

// ClientName returns the user name in a client's certificate, which the caller
// has verified: its common name, or its subject alternative name. A node's or a
// server's certificate is refused, and so is one that leaves a choice.
func ClientName(cert *x509.Certificate, from string) (string, error) {
	e, err := clientEntity(cert)
	if err != nil {
		return "", err
	}
	var name string
	switch from {
	case FromCN:
		name, err = commonName(cert)
	case FromSAN:
		name, err = alternativeName(cert, e)
	default:
		return "", fmt.Errorf("user names cannot be taken from a certificate's %q: use %s or %s", from, FromCN, FromSAN)
	}
	if err != nil {
		return "", err
	}
	return name, checkUserName(name)
}

// clientEntity refuses certificates of a cluster CA that are not a client's.
func clientEntity(cert *x509.Certificate) (entity, error) {
	e, err := entityOf(cert)
	if err != nil {
		return entity{}, err
	}
	if e.kind != "" && e.kind != kindClient {
		return entity{}, failf(ErrWrongKind, "the certificate of %q is a %s certificate and not a client's: issue a client certificate with mqcluster cert issue", e.name, e.kind)
	}
	return e, nil
}

func commonName(cert *x509.Certificate) (string, error) {
	oid := asn1.ObjectIdentifier{2, 5, 4, 3}
	found := 0
	for _, atv := range cert.Subject.Names {
		if atv.Type.Equal(oid) {
			found++
		}
	}
	if found != 1 {
		return "", failf(ErrWrongName, "the certificate has %d common names and the user name is to be one: issue one with exactly one", found)
	}
	return cert.Subject.CommonName, nil
}

func alternativeName(cert *x509.Certificate, e entity) (string, error) {
	if e.kind == kindClient {
		return e.name, nil
	}
	names := append(append([]string(nil), cert.EmailAddresses...), cert.DNSNames...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	if len(names) != 1 {
		return "", failf(ErrWrongName, "the certificate has %d subject alternative names and the user name is to be one: issue one with exactly one e-mail, DNS or URI name", len(names))
	}
	return names[0], nil
}
