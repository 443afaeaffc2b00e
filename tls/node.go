package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// DefaultNodeLifetime is how long a node's certificate lives unless the profile
// says otherwise.
const DefaultNodeLifetime = 30 * 24 * time.Hour

// maxRequest bounds a certificate request, in bytes of DER.
const maxRequest = 16 << 10

// NodeProfile is what a node's certificate says. It comes from the node that
// signs and never from the request.
type NodeProfile struct {
	ID string
	// DNSNames and IPs are what clients may dial the node by: host names and
	// those of balancers. localhost and the loopback addresses are always there.
	DNSNames []string
	IPs      []net.IP
	Lifetime time.Duration // 0: DefaultNodeLifetime
}

// NewNodeKey makes a node's private key: ECDSA P-256.
func NewNodeKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("mtls: make node key: %w", err)
	}
	return key, nil
}

// NodeKey returns the key in dir/node.key, and makes and saves one if there is
// none. A join that is run again must ask with the same key, because the token
// is bound to it.
func NodeKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, fileNodeKey)
	data, err := readPrivate(path, exposedOwn)
	if err == nil {
		return parseKey(path, data, nil)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := NewNodeKey()
	if err != nil {
		return nil, err
	}
	if data, err = MarshalKey(key); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot save the node's key: %w", err)
	}
	return key, WritePrivate(path, data)
}

// NewNodeRequest returns a certificate request (PKCS#10, DER) for key. It names
// nothing: names are not the requester's to choose.
func NewNodeRequest(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("mtls: make certificate request: %w", err)
	}
	return der, nil
}

// RequestKey checks a certificate request (size, signature, type and strength of
// its key) and returns its public key, for KeyHash.
func RequestKey(csrDER []byte) (crypto.PublicKey, error) {
	if len(csrDER) > maxRequest {
		return nil, fmt.Errorf("the certificate request has %d bytes, more than %d: make a new one with its key", len(csrDER), maxRequest)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("the certificate request cannot be read (%w): make a new one with its key", err)
	}
	// Before the signature: checking one of an enormous key is work.
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its own key (%w): make a new one with its key", err)
	}
	return csr.PublicKey, nil
}

// IssueNode signs a certificate for the key in the request, after RequestKey's
// checks. Subject, names, purposes and lifetime are the profile's; whatever else
// the request asks for is ignored.
func (ca *CA) IssueNode(csrDER []byte, p NodeProfile, now time.Time) (certPEM []byte, err error) {
	if err := checkID("node id", p.ID); err != nil {
		return nil, err
	}
	pub, err := RequestKey(csrDER)
	if err != nil {
		return nil, err
	}
	names := append([]string{"localhost", "127.0.0.1", "::1"}, p.DNSNames...)
	for _, ip := range p.IPs {
		names = append(names, ip.String())
	}
	dns, ips, err := ParseNames(names)
	if err != nil {
		return nil, err
	}
	if p.Lifetime == 0 {
		p.Lifetime = DefaultNodeLifetime
	}
	cert, err := ca.sign(leaf{
		entity:   entity{ca.clusterID, kindNode, p.ID},
		usages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		dns:      dns,
		ips:      ips,
		lifetime: p.Lifetime,
	}, pub, now)
	if err != nil {
		return nil, err
	}
	return marshalCerts(cert), nil
}

// RenewAt returns when a certificate is to be renewed: after two thirds of its
// life, less up to a twentieth of it by its serial number, so that nodes that
// joined together do not renew together.
func RenewAt(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	var tail [8]byte
	serial := cert.SerialNumber.Bytes()
	copy(tail[:], serial[max(0, len(serial)-8):])
	early := time.Duration(float64(life/20) * (float64(binary.BigEndian.Uint64(tail[:])) / (1 << 64)))
	return cert.NotBefore.Add(life/3*2 - early)
}

// PeerNode returns the id of the node at the other end of a finished handshake
// under MeshServer or MeshClient settings, which have verified it. It refuses
// certificates that are not a node's of this cluster.
func PeerNode(state tls.ConnectionState, clusterID string) (id string, err error) {
	if len(state.PeerCertificates) == 0 {
		return "", failf(ErrNoCertificate, "the other side sent no certificate: only nodes of the cluster may connect here")
	}
	if state.Version < tls.VersionTLS13 {
		return "", failf(ErrProtocol, "the connection is not TLS 1.3: it is not one of the mesh")
	}
	return nodeOf(state.PeerCertificates[0], clusterID)
}

// nodeOf returns the node id in cert, which the caller has verified.
func nodeOf(cert *x509.Certificate, clusterID string) (string, error) {
	e, err := entityOf(cert)
	switch {
	case err != nil:
		return "", err
	case e.kind == "":
		return "", failf(ErrWrongKind, "the certificate of %q is not a node's: join the node with mqcluster join", cert.Subject.CommonName)
	case e.kind != kindNode:
		return "", failf(ErrWrongKind, "the certificate of %q is a %s certificate and not a node's: join the node with mqcluster join", e.name, e.kind)
	case e.cluster != clusterID:
		return "", failf(ErrUntrusted, "the certificate of node %s is of cluster %s and not of %s: join the node with a token of this cluster", e.name, e.cluster, clusterID)
	case cert.IsCA || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return "", failf(ErrWrongKind, "the certificate of node %s has not a node's purposes: join the node with mqcluster join", e.name)
	}
	return e.name, nil
}
