package mtls

import (
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// Bundle is a client's certificate with its unencrypted key and the CAs of the
// cluster, as PEM.
type Bundle struct {
	Cert, Key, CA []byte
}

// PKCS12 returns the bundle as one PKCS#12 file (RFC 7292) that the password opens,
// with the key, the certificate and the CAs. The key is under AES-256-CBC with
// PBKDF2; legacy uses the 3DES and RC2 of files before 2012, which some devices,
// Windows before 1809 and macOS before 15 read only, and which protect little.
func (b Bundle) PKCS12(password string, legacy bool) ([]byte, error) {
	certs, err := parseCerts("the certificate", b.Cert)
	if err != nil {
		return nil, err
	}
	key, err := parseKey("the key", b.Key, nil)
	if err != nil {
		return nil, err
	}
	if !samePublic(certs[0].PublicKey, key.Public()) {
		return nil, failf(ErrKeyMismatch, "the key does not belong to the certificate: export the two files that were issued together")
	}
	cas, err := parseCerts("the CA", b.CA)
	if err != nil {
		return nil, err
	}
	encoder := pkcs12.Modern
	if legacy {
		encoder = pkcs12.Legacy
	}
	out, err := encoder.Encode(key, certs[0], append(certs[1:], cas...), password)
	if err != nil {
		return nil, fmt.Errorf("make the PKCS#12 file: %w", err)
	}
	return out, nil
}
