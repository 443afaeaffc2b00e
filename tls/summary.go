package mtls

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"
)

// Summary is what a person wants to know of a certificate.
type Summary struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // as Serial writes it
	Kind      string    `json:"kind"`   // ca, node, client, server; empty: not of a cluster CA
	Name      string    `json:"name,omitempty"`
	Cluster   string    `json:"cluster,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DNSNames  []string  `json:"dns_names"`
	Addresses []string  `json:"addresses"`
	Usages    []string  `json:"usages"` // client, server; empty: any
	Key       string    `json:"key"`
	SHA256    string    `json:"sha256"` // of the certificate, hex
}

// Summarize reads a certificate, whoever made it.
func Summarize(cert *x509.Certificate) Summary {
	s := Summary{
		Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Serial: Serial(cert),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		DNSNames: append([]string{}, cert.DNSNames...), Addresses: []string{}, Usages: []string{},
		Key: keyName(cert),
	}
	sum := sha256.Sum256(cert.Raw)
	s.SHA256 = hex.EncodeToString(sum[:])
	for _, ip := range cert.IPAddresses {
		s.Addresses = append(s.Addresses, ip.String())
	}
	for _, u := range cert.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageClientAuth:
			s.Usages = append(s.Usages, "client")
		case x509.ExtKeyUsageServerAuth:
			s.Usages = append(s.Usages, "server")
		default:
			s.Usages = append(s.Usages, fmt.Sprintf("other (%d)", u))
		}
	}
	if e, err := entityOf(cert); err == nil {
		s.Kind, s.Name, s.Cluster = e.kind, e.name, e.cluster
	}
	return s
}

// keyName says of what kind a certificate's key is.
func keyName(cert *x509.Certificate) string {
	switch k := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return cert.PublicKeyAlgorithm.String()
}

// ReadCertificates returns the certificates of a PEM file, in order; there is at
// least one.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseCerts(path, data)
}

// ParseCertificates is ReadCertificates for what is in memory; source is what
// errors call it.
func ParseCertificates(source string, data []byte) ([]*x509.Certificate, error) {
	return parseCerts(source, data)
}

// ReadRequest returns the DER of the certificate request (PKCS#10) in a file, PEM
// or DER, checked as RequestKey does.
func ReadRequest(path string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE REQUEST" || block.Type == "NEW CERTIFICATE REQUEST" {
			data = block.Bytes
			break
		}
	}
	if _, err := RequestKey(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// RequestFor returns a certificate request (DER) for the private key in a file,
// which others than the owner and the group must not be able to read: who renews a
// certificate keeps the key.
func RequestFor(path string) ([]byte, error) {
	data, err := readOperatorKey(path)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(path, data, nil)
	if err != nil {
		return nil, err
	}
	return NewNodeRequest(key)
}
