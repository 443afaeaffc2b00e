package mtls

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// listenerFiles is what was read from the operator's files.
type listenerFiles struct {
	pair  *tls.Certificate // nil: the identity serves
	roots *x509.CertPool   // nil: the identity's CAs verify clients
	crls  *revocations     // nil: none
	sum   [sha256.Size]byte
}

// rawFiles are the contents of the operator's files; nil where none is set.
type rawFiles struct {
	cert, key, pass, ca, crl []byte
}

func (r *rawFiles) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{r.cert, r.key, r.pass, r.ca, r.crl} {
		one := sha256.Sum256(part)
		h.Write(one[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (cfg ListenerConfig) read() (*rawFiles, error) {
	keyFile := cfg.KeyFile
	if keyFile == "" {
		keyFile = cfg.CertFile
	}
	r := &rawFiles{}
	for _, f := range []struct {
		path string
		dst  *[]byte
		read func(string) ([]byte, error)
	}{
		{cfg.CertFile, &r.cert, readFile},
		{keyFile, &r.key, readOperatorKey},
		{cfg.KeyPassFile, &r.pass, readOperatorKey},
		{cfg.ClientCAFile, &r.ca, readFile},
		{cfg.CRLFile, &r.crl, readFile},
	} {
		if f.path == "" {
			continue
		}
		data, err := f.read(f.path)
		if err != nil {
			return nil, err
		}
		*f.dst = data
	}
	return r, nil
}

func readOperatorKey(path string) ([]byte, error) { return readPrivate(path, exposedOperator) }

// load checks what was read.
func (cfg ListenerConfig) load(raw *rawFiles) (*listenerFiles, error) {
	f := &listenerFiles{sum: raw.sum()}
	if cfg.CertFile != "" {
		pair, err := cfg.loadPair(raw)
		if err != nil {
			return nil, err
		}
		f.pair = pair
	}
	if cfg.ClientCAFile == "" {
		return f, nil
	}
	cas, err := parseCerts(cfg.ClientCAFile, raw.ca)
	if err != nil {
		return nil, err
	}
	f.roots = x509.NewCertPool()
	for _, ca := range cas {
		f.roots.AddCert(ca)
	}
	if cfg.CRLFile != "" {
		f.crls, err = parseCRLs(cfg.CRLFile, raw.crl, cas, time.Now())
	}
	return f, err
}

func (cfg ListenerConfig) loadPair(raw *rawFiles) (*tls.Certificate, error) {
	certs, err := parseCerts(cfg.CertFile, raw.cert)
	if err != nil {
		return nil, err
	}
	keyFile := cfg.KeyFile
	if keyFile == "" {
		keyFile = cfg.CertFile
	}
	key, err := parseKey(keyFile, raw.key, passphrase(raw.pass))
	if err != nil {
		return nil, err
	}
	if err := checkPair(cfg.CertFile, keyFile, certs, key); err != nil {
		return nil, err
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// passphrase returns the first line of a passphrase file, nil if there is none.
func passphrase(data []byte) []byte {
	if data == nil {
		return nil
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

func checkPair(certFile, keyFile string, certs []*x509.Certificate, key crypto.Signer) error {
	if !samePublic(certs[0].PublicKey, key.Public()) {
		if slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return samePublic(c.PublicKey, key.Public()) }) {
			return failf(ErrKeyMismatch, "the first certificate in %s is not the one of key %s: put the server's certificate first and its issuers after it", certFile, keyFile)
		}
		return failf(ErrKeyMismatch, "key %s does not belong to the certificate in %s: set the key that the certificate was issued for", keyFile, certFile)
	}
	leaf := certs[0]
	if err := checkTime(leaf, certFile, time.Now()); err != nil {
		return err
	}
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return failf(ErrWrongKind, "the certificate in %s is not for servers: issue one with the extended key usage serverAuth", certFile)
	}
	return nil
}
