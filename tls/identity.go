package mtls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Material is a node's identity as PEM: its certificate, its unencrypted key and
// the cluster's CA certificates, of which a rotation has two.
type Material struct {
	Cert, Key, CA []byte
}

// Identity is a node's identity, as it lies on disk and as it is in use. It is
// safe for concurrent use, and handshakes take no lock.
type Identity struct {
	dir       string
	clusterID string
	id        string

	mu      sync.Mutex // serialises Replace
	current atomic.Pointer[credentials]
	allowed atomic.Pointer[func(nodeID, serial string) error]
}

// credentials is a Material that was found good. It is immutable.
type credentials struct {
	source Material
	leaf   *x509.Certificate
	cas    []*x509.Certificate
	roots  *x509.CertPool
	pair   tls.Certificate // the leaf alone: peers have the CA
	chain  tls.Certificate // with its CA: a joiner has only the CA's pin
}

// CreateIdentity checks m, writes it to dir as Replace does and opens it.
func CreateIdentity(dir, clusterID string, m Material) (*Identity, error) {
	c, id, err := check(m, clusterID)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot save the node's identity: %w", err)
	}
	if err := m.save(dir); err != nil {
		return nil, err
	}
	i := &Identity{dir: dir, clusterID: clusterID, id: id}
	i.current.Store(c)
	return i, nil
}

// OpenIdentity reads and checks dir/node.crt, node.key and ca.crt, and completes
// or drops a Replace that a crash cut short. A certificate whose time is over
// gives ErrExpired; where the CA is at hand, RenewExpired helps.
func OpenIdentity(dir, clusterID string) (*Identity, error) {
	if err := checkID("cluster id", clusterID); err != nil {
		return nil, err
	}
	m, err := load(dir, false)
	var c *credentials
	var id string
	if err == nil {
		c, id, err = check(m, clusterID)
	}
	if err != nil {
		next, nextErr := load(dir, true)
		if nextErr != nil {
			return nil, err
		}
		var again error
		if c, id, again = check(next, clusterID); again != nil {
			return nil, err
		}
		if err := next.save(dir); err != nil {
			return nil, err
		}
	}
	if err := dropPending(dir); err != nil {
		return nil, err
	}
	i := &Identity{dir: dir, clusterID: clusterID, id: id}
	i.current.Store(c)
	return i, nil
}

// RenewExpired signs a new certificate for the node's key in dir, with the names
// of its old one, and writes it. It is for a voter, which has the CA, that comes
// back after its certificate's time and so cannot ask anybody.
func RenewExpired(dir string, ca *CA, lifetime time.Duration, now time.Time) (*Identity, error) {
	m, err := load(dir, false)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(fileNode, m.Cert)
	if err != nil {
		return nil, err
	}
	id, err := nodeOf(certs[0], ca.clusterID)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(fileNodeKey, m.Key, nil)
	if err != nil {
		return nil, err
	}
	csr, err := NewNodeRequest(key)
	if err != nil {
		return nil, err
	}
	m.Cert, err = ca.IssueNode(csr, NodeProfile{ID: id, DNSNames: certs[0].DNSNames, IPs: certs[0].IPAddresses, Lifetime: lifetime}, now)
	if err != nil {
		return nil, err
	}
	return CreateIdentity(dir, ca.clusterID, m)
}

// check validates m whole: formats, that the key is the certificate's, that the
// certificate is a node's of the cluster, valid now under one of the CAs.
func check(m Material, clusterID string) (*credentials, string, error) {
	certs, err := parseCerts(fileNode, m.Cert)
	if err != nil {
		return nil, "", err
	}
	key, err := parseKey(fileNodeKey, m.Key, nil)
	if err != nil {
		return nil, "", err
	}
	cas, err := parseCAs(m.CA, clusterID)
	if err != nil {
		return nil, "", err
	}
	own := certs[0]
	if !samePublic(own.PublicKey, key.Public()) {
		return nil, "", failf(ErrKeyMismatch, "%s does not belong to %s: restore both from the same backup, or join the node again with mqcluster join", fileNodeKey, fileNode)
	}
	id, err := nodeOf(own, clusterID)
	if err != nil {
		return nil, "", err
	}
	if err := checkTime(own, "node "+id, time.Now()); err != nil {
		return nil, "", err
	}
	c := &credentials{source: m, leaf: own, cas: cas, roots: x509.NewCertPool()}
	for _, ca := range cas {
		c.roots.AddCert(ca)
	}
	chains, err := verifyChain([]*x509.Certificate{own}, c.roots, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, "", err
	}
	c.pair = tls.Certificate{Certificate: [][]byte{own.Raw}, PrivateKey: key, Leaf: own}
	c.chain = c.pair
	c.chain.Certificate = [][]byte{own.Raw, chains[0][len(chains[0])-1].Raw}
	return c, id, nil
}

// parseCAs reads a bundle in which every certificate must be a CA of the cluster.
func parseCAs(data []byte, clusterID string) ([]*x509.Certificate, error) {
	cas, err := parseCerts(fileCA, data)
	if err != nil {
		return nil, err
	}
	for _, ca := range cas {
		e, err := entityOf(ca)
		if err != nil {
			return nil, err
		}
		if e.kind != kindCA || e.cluster != clusterID || !ca.IsCA {
			return nil, failf(ErrUntrusted, "certificate %s in %s is not a CA of cluster %s: remove it", subjectOf(ca), fileCA, clusterID)
		}
	}
	return cas, nil
}

// The three files cannot be renamed in one step. They are written beside their
// places first (file.next) and renamed after; whatever a crash leaves is either
// good as it is or good with the .next files over it.
const nextSuffix = ".next"

func (m Material) save(dir string) error {
	files := []struct {
		name  string
		data  []byte
		write func(string, []byte) error
	}{{fileCA, m.CA, writePublic}, {fileNode, m.Cert, writePublic}, {fileNodeKey, m.Key, WritePrivate}}
	for _, f := range files {
		if err := f.write(filepath.Join(dir, f.name+nextSuffix), f.data); err != nil {
			return err
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.Rename(path+nextSuffix, path); err != nil {
			return fmt.Errorf("cannot write the node's identity: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("cannot write the node's identity: %w", err)
	}
	return nil
}

// load reads the files of dir, or with pending their .next ones where there are.
func load(dir string, pending bool) (m Material, err error) {
	read := func(name string, exposed os.FileMode) []byte {
		path := filepath.Join(dir, name)
		var data []byte
		e := fs.ErrNotExist
		if pending {
			data, e = readChecked(path+nextSuffix, exposed)
		}
		if errors.Is(e, fs.ErrNotExist) {
			data, e = readChecked(path, exposed)
		}
		if err == nil {
			err = e
		}
		return data
	}
	m = Material{Cert: read(fileNode, 0), Key: read(fileNodeKey, exposedOwn), CA: read(fileCA, 0)}
	return m, err
}

func dropPending(dir string) error {
	for _, name := range []string{fileCA, fileNode, fileNodeKey} {
		if err := os.Remove(filepath.Join(dir, name+nextSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot tidy the node's identity: %w", err)
		}
	}
	return nil
}

// Replace puts a new identity in the place of the current one; a nil part stays
// as it is. It is checked whole before anything changes, must be of the same
// node and cluster, and is on disk when Replace returns. Handshakes that begin
// after that use it.
func (i *Identity) Replace(certPEM, keyPEM, caPEM []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.current.Load().source
	for _, part := range []struct {
		dst *[]byte
		src []byte
	}{{&m.Cert, certPEM}, {&m.Key, keyPEM}, {&m.CA, caPEM}} {
		if part.src != nil {
			*part.dst = bytes.Clone(part.src)
		}
	}
	c, id, err := check(m, i.clusterID)
	if err != nil {
		return err
	}
	if id != i.id {
		return failf(ErrWrongPeer, "the new certificate is of node %s and this is node %s: nothing was replaced", id, i.id)
	}
	if err := m.save(i.dir); err != nil {
		return err
	}
	i.current.Store(c)
	return nil
}

// SetAllowed makes f the judge of peers whose certificate is good: it gets the
// node id and the certificate's Serial, and its error (removed, revoked) fails
// the handshake. It is called on both sides of every mesh handshake, possibly
// before the peer has proved that it holds the key, must not block, and is not
// called during a join.
func (i *Identity) SetAllowed(f func(nodeID, serial string) error) { i.allowed.Store(&f) }

// ID returns the node's id.
func (i *Identity) ID() string { return i.id }

// ClusterID returns the cluster's id.
func (i *Identity) ClusterID() string { return i.clusterID }

// Leaf returns the node's current certificate.
func (i *Identity) Leaf() *x509.Certificate { return i.current.Load().leaf }

// CAs returns the CAs that are trusted now.
func (i *Identity) CAs() []*x509.Certificate { return i.current.Load().cas }

// Trusts tells whether a client's certificate is not one of a CA of this cluster
// that is trusted no longer. Whoever verified it when it came asks again when the
// CAs change; certificates of other CAs are no matter of the identity. It says
// nothing of the certificate's time.
func (i *Identity) Trusts(cert *x509.Certificate) bool {
	e, err := entityOf(cert)
	if err != nil {
		return false
	}
	if e.kind == "" || e.cluster != i.clusterID {
		return true
	}
	return slices.ContainsFunc(i.CAs(), func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil })
}

// NotAfter returns when the current certificate's time is over.
func (i *Identity) NotAfter() time.Time { return i.Leaf().NotAfter }

// Material returns the current identity as PEM. The caller must not change it.
func (i *Identity) Material() Material { return i.current.Load().source }

// Pin returns the pin of the CA that signed the current certificate, for
// NewToken: it is the one that joiners will see.
func (i *Identity) Pin() string {
	c := i.current.Load()
	for _, ca := range c.cas {
		if bytes.Equal(ca.Raw, c.chain.Certificate[1]) {
			return PinOf(ca)
		}
	}
	return "" // not reached: the chain was verified up to one of them
}
