package mtls

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/scrypt"
)

// What scrypt asks of whoever opens a sealed key: 16 MiB, more than twice of which
// openssl refuses, and p times the work of its default.
const (
	sealN = 1 << 14
	sealR = 8
	sealP = 4
)

// MinPassphrase is how many bytes a passphrase has at least that seals a key.
const MinPassphrase = 16

// Passphrase reads the first line of a passphrase file, which others than the
// owner and the group must not be able to read. It is for SaveSealed and
// LoadSealedCA.
func Passphrase(path string) ([]byte, error) {
	data, err := readOperatorKey(path)
	if err != nil {
		return nil, err
	}
	pass := passphrase(data)
	if len(pass) < MinPassphrase {
		return nil, fmt.Errorf("the passphrase in %s has %d bytes: write at least %d, such as openssl rand -base64 32 prints", path, len(pass), MinPassphrase)
	}
	return pass, nil
}

// SealKey returns key as PKCS#8 PEM that the passphrase opens: PBES2 with scrypt
// and AES-256-CBC (RFC 8018, RFC 7914), which openssl pkey reads too. The form has
// no authentication of its own: what opens it checks that the key is the one of its
// certificate.
func SealKey(key crypto.Signer, pass []byte) ([]byte, error) {
	if len(pass) < MinPassphrase {
		return nil, fmt.Errorf("a passphrase of %d bytes seals nothing: use at least %d", len(pass), MinPassphrase)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("mtls: marshal key: %w", err)
	}
	defer clear(plain)
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt) // never fails
	_, _ = rand.Read(iv)
	secret, err := scrypt.Key(pass, salt, sealN, sealR, sealP, 32)
	if err != nil {
		return nil, fmt.Errorf("mtls: derive the key that seals: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("mtls: seal key: %w", err)
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	sealed := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, sealed)
	der, err := marshalPBES2(salt, iv, sealed)
	if err != nil {
		return nil, fmt.Errorf("mtls: seal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemEncrypted, Bytes: der}), nil
}

// marshalPBES2 writes an EncryptedPrivateKeyInfo (RFC 5958 section 3) with the
// parameters of SealKey.
func marshalPBES2(salt, iv, data []byte) ([]byte, error) {
	var errs []error
	raw := func(v any) asn1.RawValue {
		der, err := asn1.Marshal(v)
		errs = append(errs, err)
		return asn1.RawValue{FullBytes: der}
	}
	kdf := pkix.AlgorithmIdentifier{
		Algorithm: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11},
		Parameters: raw(struct {
			Salt               []byte
			N, R, P, KeyLength int
		}{salt, sealN, sealR, sealP, 32}),
	}
	enc := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, Parameters: raw(iv)}
	info := struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}{
		pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13},
			Parameters: raw(struct{ KDF, Cipher pkix.AlgorithmIdentifier }{kdf, enc}),
		}, data,
	}
	der, err := asn1.Marshal(info)
	return der, errors.Join(append(errs, err)...)
}

// Sealed tells whether the CA key in dir is encrypted.
func Sealed(dir string) (bool, error) {
	data, err := readPrivate(filepath.Join(dir, fileCAKey), exposedOwn)
	if err != nil {
		return false, err
	}
	block, _ := pem.Decode(data)
	return block != nil && block.Type == pemEncrypted, nil
}

// LoadSealedCA is LoadCA for a key that may be encrypted. pass is nil where there
// is no passphrase.
func LoadSealedCA(dir string, pass []byte) (*CA, error) {
	certFile, keyFile := filepath.Join(dir, fileCA), filepath.Join(dir, fileCAKey)
	certPEM, err := readFile(certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readPrivate(keyFile, exposedOwn)
	if err != nil {
		return nil, err
	}
	return parseCA(certFile, certPEM, keyFile, keyPEM, pass)
}

// SaveSealed is Save with the key encrypted under a passphrase; nil writes it as
// Save does. A key that is there is replaced.
func (ca *CA) SaveSealed(dir string, pass []byte) error {
	if pass == nil {
		return ca.Save(dir)
	}
	if err := ca.checkHome(dir); err != nil {
		return err
	}
	key, err := SealKey(ca.key, pass)
	if err != nil {
		return err
	}
	return ca.save(dir, key)
}

// mkdir makes the directory of a CA.
func mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot save the CA: %w", err)
	}
	return nil
}
