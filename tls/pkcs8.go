package mtls

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"
)

const pemEncrypted = "ENCRYPTED PRIVATE KEY"

// Bounds on what a key file may ask of us; openssl writes 2,048 iterations and
// scrypt with N = 16,384, r = 8, p = 1.
const (
	maxIterations   = 10_000_000
	maxScryptMemory = 256 << 20 // bytes: 128 * N * r
	maxScryptWork   = 1 << 25   // N * r * p
)

var errPassphrase = errors.New("wrong passphrase")

// decryptBlock returns the DER of a PEM block that may be encrypted: PKCS#8 with
// PBES2 (openssl's default) or the older "Proc-Type: 4,ENCRYPTED" headers.
func decryptBlock(source string, block *pem.Block, pass []byte) ([]byte, error) {
	//nolint:staticcheck // deprecated because it is not authenticated; operators have such files
	legacy := x509.IsEncryptedPEMBlock(block)
	if !legacy && block.Type != pemEncrypted {
		return block.Bytes, nil
	}
	if pass == nil {
		return nil, fmt.Errorf("key file %s is encrypted and no passphrase file is set: set one, or decrypt it with openssl pkey -in %s -out %s.plain", source, source, source)
	}
	var der []byte
	var err error
	if legacy {
		der, err = x509.DecryptPEMBlock(block, pass) //nolint:staticcheck // see above
		if errors.Is(err, x509.IncorrectPasswordError) {
			err = errPassphrase
		}
	} else {
		der, err = decryptPKCS8(block.Bytes, pass)
	}
	if errors.Is(err, errPassphrase) {
		return nil, fmt.Errorf("the passphrase does not open key file %s: correct the passphrase file", source)
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s cannot be decrypted (%w): decrypt it with openssl pkey -in %s -out %s.plain", source, err, source, source)
	}
	return der, nil
}

// pbes2 is an EncryptedPrivateKeyInfo (RFC 5958 section 3) whose scheme is PBES2
// (RFC 8018 section 6.2), read but not yet decrypted.
type pbes2 struct {
	derive func(pass []byte) ([]byte, error)
	cost   int // of derive: iterations, or N * r * p
	block  func(key []byte) (cipher.Block, error)
	iv     []byte
	data   []byte
}

func decryptPKCS8(der, pass []byte) ([]byte, error) {
	p, err := parsePBES2(der)
	if err != nil {
		return nil, err
	}
	return p.decrypt(pass)
}

func (p *pbes2) decrypt(pass []byte) ([]byte, error) {
	key, err := p.derive(pass)
	if err != nil {
		return nil, err
	}
	block, err := p.block(key)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(p.iv) != size || len(p.data) == 0 || len(p.data)%size != 0 {
		return nil, errors.New("damaged cipher text")
	}
	out := make([]byte, len(p.data))
	cipher.NewCBCDecrypter(block, p.iv).CryptBlocks(out, p.data)
	// RFC 8018 section 6.1.1 step 4. The padding is the only check that the
	// format has; a wrong passphrase that passes it fails as a key.
	pad := int(out[len(out)-1])
	if pad == 0 || pad > size || !bytes.Equal(out[len(out)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errPassphrase
	}
	out = out[:len(out)-pad]
	if _, err := x509.ParsePKCS8PrivateKey(out); err != nil {
		return nil, errPassphrase
	}
	return out, nil
}

func parsePBES2(der []byte) (*pbes2, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if err := unmarshal(der, &info); err != nil {
		return nil, err
	}
	if info.Algorithm.Algorithm.String() != "1.2.840.113549.1.5.13" {
		return nil, fmt.Errorf("its encryption %s is not PBES2", info.Algorithm.Algorithm)
	}
	var params struct {
		KDF    pkix.AlgorithmIdentifier
		Cipher pkix.AlgorithmIdentifier
	}
	if err := unmarshal(info.Algorithm.Parameters.FullBytes, &params); err != nil {
		return nil, err
	}
	p := &pbes2{data: info.Data}
	size, err := p.setCipher(params.Cipher)
	if err != nil {
		return nil, err
	}
	switch params.KDF.Algorithm.String() {
	case "1.2.840.113549.1.5.12":
		return p, p.setPBKDF2(params.KDF.Parameters.FullBytes, size)
	case "1.3.6.1.4.1.11591.4.11":
		return p, p.setScrypt(params.KDF.Parameters.FullBytes, size)
	}
	return nil, fmt.Errorf("its key derivation %s is not known", params.KDF.Algorithm)
}

func unmarshal(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	return err
}

// setCipher returns the size of the cipher's key in bytes.
func (p *pbes2) setCipher(id pkix.AlgorithmIdentifier) (size int, err error) {
	p.block = aes.NewCipher
	switch id.Algorithm.String() {
	case "2.16.840.1.101.3.4.1.2":
		size = 16
	case "2.16.840.1.101.3.4.1.22":
		size = 24
	case "2.16.840.1.101.3.4.1.42":
		size = 32
	case "1.2.840.113549.3.7":
		size, p.block = 24, des.NewTripleDESCipher
	default:
		return 0, fmt.Errorf("its cipher %s is not AES-CBC or 3DES-CBC", id.Algorithm)
	}
	return size, unmarshal(id.Parameters.FullBytes, &p.iv)
}

func (p *pbes2) setPBKDF2(der []byte, size int) error {
	var params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := unmarshal(der, &params); err != nil {
		return err
	}
	if params.Iterations < 1 || params.Iterations > maxIterations || params.KeyLength != 0 && params.KeyLength != size {
		return fmt.Errorf("its PBKDF2 parameters are out of range (%d iterations)", params.Iterations)
	}
	prf, err := hmacHash(params.PRF.Algorithm)
	if err != nil {
		return err
	}
	p.cost = params.Iterations
	p.derive = func(pass []byte) ([]byte, error) {
		return pbkdf2.Key(prf, string(pass), params.Salt, params.Iterations, size)
	}
	return nil
}

// hmacHash returns the hash of a PBKDF2 PRF (RFC 8018 appendix B.1).
func hmacHash(id asn1.ObjectIdentifier) (func() hash.Hash, error) {
	switch id.String() {
	case "", "1.2.840.113549.2.7":
		return sha1.New, nil
	case "1.2.840.113549.2.8":
		return sha256.New224, nil
	case "1.2.840.113549.2.9":
		return sha256.New, nil
	case "1.2.840.113549.2.10":
		return sha512.New384, nil
	case "1.2.840.113549.2.11":
		return sha512.New, nil
	}
	return nil, fmt.Errorf("its PBKDF2 function %s is not an HMAC of SHA-1 or SHA-2", id)
}

// setScrypt reads the parameters of RFC 7914 section 7.1.
func (p *pbes2) setScrypt(der []byte, size int) error {
	var params struct {
		Salt      []byte
		N, R, P   int
		KeyLength int `asn1:"optional"`
	}
	if err := unmarshal(der, &params); err != nil {
		return err
	}
	n, r, par := params.N, params.R, params.P
	ok := n > 1 && r > 0 && par > 0 && n <= maxScryptMemory/128 && r <= maxScryptMemory/128/n && par <= maxScryptWork/(n*r) &&
		(params.KeyLength == 0 || params.KeyLength == size)
	if !ok {
		return fmt.Errorf("its scrypt parameters are out of range (N %d, r %d, p %d)", n, r, par)
	}
	p.cost = n * r * par
	p.derive = func(pass []byte) ([]byte, error) { return scrypt.Key(pass, params.Salt, n, r, par, size) }
	return nil
}
