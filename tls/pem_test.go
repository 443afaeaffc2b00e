package mtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWritePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, content := range []string{"one", "two"} {
		if err := WritePrivate(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := string(must(readPrivate(path, exposedOwn))); got != content {
			t.Errorf("reads %q", got)
		}
	}
	if info := must(os.Stat(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	// A write that fails leaves nothing behind.
	target := filepath.Join(dir, "folder")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	wantErr(t, WritePrivate(target, nil), nil, "cannot write "+target)
	if left := must(os.ReadDir(dir)); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
	wantErr(t, WritePrivate(filepath.Join(dir, "no", "key"), nil), fs.ErrNotExist)
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	if err := WritePrivate(path, make([]byte, maxFile+1)); err != nil {
		t.Fatal(err)
	}
	_, err := readFile(path)
	wantErr(t, err, nil, "larger than 1 MiB")
	_, err = readFile(path + "x")
	wantErr(t, err, fs.ErrNotExist, "cannot read "+path+"x (no such file or directory): check the path")
}

func TestParseCerts(t *testing.T) {
	crt := must(os.ReadFile("testdata/openssl/server.crt"))
	block, _ := pem.Decode(crt)
	trusted := pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: append(block.Bytes, 0x30, 0x00)})
	key := must(os.ReadFile("testdata/openssl/ec-pkcs8.key"))
	for name, c := range map[string]struct {
		data []byte
		n    int
		says string
	}{
		"one":           {crt, 1, ""},
		"key and two":   {append(append(append([]byte{}, key...), crt...), crt...), 2, ""},
		"trusted":       {trusted, 1, ""},
		"text around":   {append([]byte("Certificate:\n  Data:\n"), crt...), 1, ""},
		"none":          {key, 0, "file f has no PEM certificate"},
		"DER":           {block.Bytes, 0, "openssl x509 -inform DER -in f"},
		"damaged":       {pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: block.Bytes[:50]}), 0, "certificate 1 of f cannot be read"},
		"trusted, huge": {pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: []byte{0x30, 0x82, 0xff, 0xff}}), 0, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := parseCerts("f", c.data)
			if c.says != "" {
				wantErr(t, err, nil, c.says)
			} else if err != nil || len(certs) != c.n {
				t.Errorf("%d certificates, %v", len(certs), err)
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	cert := must(parseCerts("f", must(os.ReadFile("testdata/openssl/device.crt"))))[0]
	for _, name := range []string{
		"ec-sec1.key", "ec-pkcs8.key", "ec-default.key", "ec-aes128-sha1.key", "ec-aes192-sha512.key",
		"ec-des3.key", "ec-scrypt.key", "ec-legacy.key", "ec-cheap.key",
	} {
		t.Run(name, func(t *testing.T) {
			data := must(os.ReadFile(filepath.Join("testdata", "openssl", name)))
			key, err := parseKey(name, data, []byte("open sesame"))
			if err != nil {
				t.Fatal(err)
			}
			if !samePublic(key.Public(), cert.PublicKey) {
				t.Error("another key came out")
			}
			if !strings.Contains(string(data), "ENCRYPTED") {
				return
			}
			_, err = parseKey(name, data, []byte("open barley"))
			wantErr(t, err, nil, "passphrase does not open key file "+name)
			_, err = parseKey(name, data, nil)
			wantErr(t, err, nil, "no passphrase file is set", "openssl pkey -in "+name)
		})
	}
	pbes1 := must(os.ReadFile("testdata/openssl/ec-pbes1.key"))
	_, err := parseKey("f", pbes1, []byte("open sesame"))
	wantErr(t, err, nil, "not PBES2", "openssl pkey -in f -out f.plain")
	_, err = parseKey("f", must(os.ReadFile("testdata/openssl/ca.crt")), nil)
	wantErr(t, err, nil, "no PEM private key")
	weak := must(MarshalKey(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))))
	_, err = parseKey("f", weak, nil)
	wantErr(t, err, nil, "too weak")
}

func FuzzParseKey(f *testing.F) {
	for _, name := range []string{"ec-default.key", "ec-aes128-sha1.key", "ec-scrypt.key", "ec-pbes1.key", "ec-des3.key", "ec-cheap.key"} {
		block, _ := pem.Decode(must(os.ReadFile(filepath.Join("testdata", "openssl", name))))
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		p, err := parsePBES2(der)
		if err != nil || p.cost > 1000 {
			return // the cost is the file owner's choice, within bounds
		}
		_, _ = p.decrypt([]byte("open sesame"))
	})
}

func FuzzParseCerts(f *testing.F) {
	f.Add(must(os.ReadFile("testdata/openssl/ca.crt")))
	f.Add([]byte("-----BEGIN TRUSTED CERTIFICATE-----\nMIL//w==\n-----END TRUSTED CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseCerts("f", data)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
		for _, c := range certs {
			_, _ = ClientName(c, FromSAN)
		}
	})
}
