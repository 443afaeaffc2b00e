package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
	pemCRL         = "X509 CRL"
)

// maxFile bounds what is read of any one file, in bytes. A bundle of all the
// web's CAs is a quarter of it.
const maxFile = 1 << 20

// WritePrivate writes data to path so that only the file's owner may read it.
// A reader sees the old content or the new one, never a part; when it returns,
// the new content survives a power failure.
func WritePrivate(path string, data []byte) error { return writeFile(path, data, 0o600) }

// writePublic is WritePrivate for what everybody may read.
func writePublic(path string, data []byte) error { return writeFile(path, data, 0o644) }

func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	// CreateTemp makes the file 0600, so the content is never readable by more
	// than the final mode allows.
	f, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", path, errors.Join(err, f.Close(), os.Remove(f.Name())))
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(dir))
}

// syncDir makes renames within dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// The permission bits that a key file must not have. A key that the operator
// made may be shared with the service's group; those that we make may not.
const (
	exposedOwn      os.FileMode = 0o077
	exposedOperator os.FileMode = 0o027
)

// readFile reads a whole file of at most maxFile bytes.
func readFile(path string) ([]byte, error) { return readChecked(path, 0) }

// readPrivate reads a file unless it has one of the exposed permission bits.
func readPrivate(path string, exposed os.FileMode) ([]byte, error) { return readChecked(path, exposed) }

func readChecked(path string, exposed os.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, openError(path, err)
	}
	defer func() { _ = f.Close() }() // opened for reading only
	// The open file is asked, not the path: nobody can swap it in between.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if info.Mode().Perm()&exposed != 0 {
		return nil, failf(ErrExposedKey, "key file %s is readable by others: chmod 600 %s", path, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("file %s is larger than 1 MiB: name a file of PEM certificates or keys", path)
	}
	return data, nil
}

// openError says what to do about a file that cannot be opened. What comes back
// matches fs.ErrNotExist and fs.ErrPermission as err does.
func openError(path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err // the sentence has the path already
	}
	remedy := "check the path"
	if errors.Is(err, fs.ErrPermission) {
		remedy = "let the user that mqcluster runs as read it"
	}
	return fmt.Errorf("cannot read %s (%w): %s", path, err, remedy)
}

// parseCerts returns the certificates in data, in order; other PEM blocks are
// passed over. source is what errors call it.
func parseCerts(source string, data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCertificate && block.Type != "TRUSTED CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		der := block.Bytes
		if block.Type == "TRUSTED CERTIFICATE" {
			// openssl's own format: a certificate and trust settings after it.
			der = firstElement(der)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of %s cannot be read (%w): convert it with openssl x509 -in %s", len(certs)+1, source, err, source)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		hint := "name a file with a BEGIN CERTIFICATE line"
		if _, err := x509.ParseCertificate(data); err == nil {
			hint = fmt.Sprintf("it is DER, convert it with openssl x509 -inform DER -in %s", source)
		}
		return nil, failf(ErrNoCertificate, "file %s has no PEM certificate: %s", source, hint)
	}
	return certs, nil
}

// firstElement returns the first ASN.1 element of der, or der if there is none.
func firstElement(der []byte) []byte {
	if len(der) < 4 || der[1] != 0x82 {
		return der
	}
	if n := 4 + int(der[2])<<8 + int(der[3]); n <= len(der) {
		return der[:n]
	}
	return der
}

// parseKey returns the first private key in data. pass is the passphrase of an
// encrypted one; nil means that there is none.
func parseKey(source string, data, pass []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		key, err := parseKeyBlock(source, block, pass)
		if key == nil && err == nil {
			continue
		}
		return key, err
	}
	return nil, fmt.Errorf("file %s has no PEM private key: name a file with a BEGIN PRIVATE KEY line", source)
}

// parseKeyBlock returns nil without an error for a block that is no key.
func parseKeyBlock(source string, block *pem.Block, pass []byte) (crypto.Signer, error) {
	der, err := decryptBlock(source, block, pass)
	if err != nil {
		return nil, err
	}
	var key any
	switch block.Type {
	case pemPrivateKey, pemEncrypted:
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the private key in %s cannot be read (%w): convert it with openssl pkey -in %s", source, err, source)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the private key in %s cannot sign (%T): use an ECDSA, RSA or Ed25519 key", source, key)
	}
	return signer, checkKey(signer.Public())
}

// checkKey refuses key types and sizes that TLS peers would refuse too, and
// sizes that make every handshake an attack on ourselves.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Errorf("the EC key has %d bits and is too weak: use P-256 or P-384", bits)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("the RSA key has %d bits: use 2048 to 8192, or ECDSA P-256", bits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of type %T do not serve TLS: use ECDSA, RSA or Ed25519", pub)
	}
	return nil
}

// samePublic tells whether two public keys are the same.
func samePublic(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}

// MarshalKey returns key as unencrypted PKCS#8 PEM, for WritePrivate.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("mtls: marshal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// MarshalCertificates returns certificates as PEM.
func MarshalCertificates(certs ...*x509.Certificate) []byte { return marshalCerts(certs...) }

func marshalCerts(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw}))
	}
	return b.Bytes()
}
