package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The files of a cluster CA and of a node's identity, all in one directory or in
// two.
const (
	fileCA      = "ca.crt"
	fileCAKey   = "ca.key"
	fileNode    = "node.crt"
	fileNodeKey = "node.key"
)

const (
	lifetimeCA = 10 * 365 * 24 * time.Hour
	// backdate lets a certificate be valid at once on a machine whose clock is
	// somewhat behind.
	backdate = 5 * time.Minute
)

// CA is the authority of one cluster: its certificate and private key. It is
// immutable and safe for concurrent use.
type CA struct {
	cert      *x509.Certificate
	key       crypto.Signer
	clusterID string
}

// NewCA makes the authority of a new cluster, or the next one of a cluster that
// rotates its CA: ECDSA P-256, valid for ten years, no CAs below it. Nothing is
// written.
func NewCA(clusterID string, now time.Time) (*CA, error) {
	if err := checkID("cluster id", clusterID); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("mtls: make CA key: %w", err)
	}
	// The key is in the name so that old and new CA of a rotation have two.
	sum := KeyHash(key.Public())
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"mqcluster"}, CommonName: fmt.Sprintf("mqcluster CA %s %x", clusterID, sum[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetimeCA),
		URIs:                  []*url.URL{entity{cluster: clusterID, kind: kindCA}.uri()},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            0,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("mtls: make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("mtls: make CA certificate: %w", err)
	}
	return &CA{cert: cert, key: key, clusterID: clusterID}, nil
}

// LoadCA reads the authority that Save wrote. It refuses a key that others than
// the file's owner may read. LoadSealedCA reads one that is encrypted.
func LoadCA(dir string) (*CA, error) {
	return LoadSealedCA(dir, nil)
}

// ParseCA is LoadCA for an authority that came another way, as PEM. certPEM may
// hold further certificates: the one of the key counts.
func ParseCA(certPEM, keyPEM []byte) (*CA, error) {
	return parseCA("CA certificate", certPEM, "CA key", keyPEM, nil)
}

func parseCA(certFile string, certPEM []byte, keyFile string, keyPEM, pass []byte) (*CA, error) {
	certs, err := parseCerts(certFile, certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyFile, keyPEM, pass)
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		if !samePublic(cert.PublicKey, key.Public()) {
			continue
		}
		e, err := entityOf(cert)
		if err != nil {
			return nil, err
		}
		if e.kind != kindCA || !cert.IsCA {
			return nil, failf(ErrWrongKind, "the certificate of %s in %s is not a cluster CA: restore the files that mqcluster init made", keyFile, certFile)
		}
		return &CA{cert: cert, key: key, clusterID: e.cluster}, nil
	}
	return nil, failf(ErrKeyMismatch, "key %s does not belong to a certificate in %s: restore the two files from the same backup", keyFile, certFile)
}

// Save writes ca.key, for the owner only, and ca.crt to dir, durably. A ca.crt
// that is there and has the certificate, such as a node's bundle, stays as it
// is; one that has not is another CA's, and nothing is written.
func (ca *CA) Save(dir string) error {
	if err := ca.checkHome(dir); err != nil {
		return err
	}
	_, key, err := ca.PEM()
	if err != nil {
		return err
	}
	return ca.save(dir, key)
}

// checkHome refuses a directory with the certificate of another CA.
func (ca *CA) checkHome(dir string) error {
	certFile := filepath.Join(dir, fileCA)
	have, err := readFile(certFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	certs, err := parseCerts(certFile, have)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(certs, ca.cert.Equal) {
		return fmt.Errorf("%s holds the certificate of another CA: choose an empty directory", certFile)
	}
	return nil
}

// save writes the key as it is given, and the certificate where there is none.
func (ca *CA) save(dir string, key []byte) error {
	if err := mkdir(dir); err != nil {
		return err
	}
	if err := WritePrivate(filepath.Join(dir, fileCAKey), key); err != nil {
		return err
	}
	certFile := filepath.Join(dir, fileCA)
	if _, err := os.Stat(certFile); err == nil {
		return nil // checkHome has read it
	}
	return writePublic(certFile, marshalCerts(ca.cert))
}

// PEM returns the authority's certificate and unencrypted key, for ParseCA on
// another voter. The caller keeps the key off disks and logs.
func (ca *CA) PEM() (certPEM, keyPEM []byte, err error) {
	keyPEM, err = MarshalKey(ca.key)
	return marshalCerts(ca.cert), keyPEM, err
}

// Pin returns what join tokens, and the record of a rotation, know the authority
// by: see PinOf.
func (ca *CA) Pin() string { return PinOf(ca.cert) }

// Certificate returns the authority's certificate; CertPEM the same as PEM.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// CertPEM returns the authority's certificate as PEM.
func (ca *CA) CertPEM() []byte { return marshalCerts(ca.cert) }

// ClusterID returns the cluster whose certificates the authority signs.
func (ca *CA) ClusterID() string { return ca.clusterID }

// PinOf returns what a join token knows a CA by: base64url of the SHA-256 of its
// SubjectPublicKeyInfo.
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// KeyHash returns the SHA-256 of a public key's SubjectPublicKeyInfo, or nil for
// a key type that certificates cannot hold.
func KeyHash(pub crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

// Serial returns a certificate's serial number the way the whole program writes
// it: lower-case hexadecimal without leading zeros.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// PlainSerial is a serial number as Serial has it, of one that may be written as
// openssl and browsers do: in capitals, with colons and with a leading 0.
func PlainSerial(text string) string {
	return strings.TrimLeft(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0")
}

// leaf is what sign writes into a certificate, beside what all have in common.
type leaf struct {
	entity   entity
	usages   []x509.ExtKeyUsage
	dns      []string
	ips      []net.IP
	lifetime time.Duration
}

// sign makes a certificate that ends with the authority's own at the latest.
func (ca *CA) sign(l leaf, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if l.lifetime <= 0 {
		return nil, fmt.Errorf("a lifetime of %s makes no certificate: choose a longer one", l.lifetime)
	}
	if err := checkTime(ca.cert, "the cluster CA", now); err != nil {
		return nil, err
	}
	end := now.Add(l.lifetime)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	// After the authority's own by a second at least, which is how the log, that knows no
	// issuer, tells which certificates are of a new authority.
	begin := now.Add(-backdate)
	if first := ca.cert.NotBefore.Add(time.Second); begin.Before(first) {
		begin = first
	}
	template := &x509.Certificate{
		// The serial number is left to x509: random, 20 octets.
		Subject:               pkix.Name{Organization: []string{"mqcluster"}},
		NotBefore:             begin,
		NotAfter:              end,
		URIs:                  []*url.URL{l.entity.uri()},
		DNSNames:              l.dns,
		IPAddresses:           l.ips,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           l.usages,
		BasicConstraintsValid: true,
	}
	if utf8.RuneCountInString(l.entity.name) <= maxCommonName {
		template.Subject.CommonName = l.entity.name
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("mtls: sign certificate of %s: %w", l.entity.uri(), err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("mtls: sign certificate of %s: %w", l.entity.uri(), err)
	}
	return cert, nil
}

// checkTime tells whether cert is valid now; what says whose it is.
func checkTime(cert *x509.Certificate, what string, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return failf(ErrExpired, "certificate expired since %s (%s): replace it with a new one", stamp(cert.NotAfter), what)
	case now.Before(cert.NotBefore):
		return failf(ErrNotYetValid, "certificate valid only from %s (%s): wait until then, or correct this machine's clock", stamp(cert.NotBefore), what)
	}
	return nil
}
