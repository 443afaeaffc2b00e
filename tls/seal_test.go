package mtls

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

var testPass = []byte("a passphrase of some length")

// A sealed key lies nowhere in clear text, only its passphrase opens it, and
// openssl reads it.
func TestSealedCA(t *testing.T) {
	ca := newCA(t, testCluster)
	dir := filepath.Join(t.TempDir(), "ca")
	if err := ca.SaveSealed(dir, testPass); err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, fileCAKey)
	text := must(os.ReadFile(keyFile))
	if plain := must(x509.MarshalPKCS8PrivateKey(ca.key)); bytes.Contains(text, plain) || !bytes.Contains(text, []byte("ENCRYPTED")) {
		t.Errorf("the key is not sealed:\n%s", text)
	}
	if info := must(os.Stat(keyFile)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	if sealed, err := Sealed(dir); err != nil || !sealed {
		t.Errorf("Sealed: %t %v", sealed, err)
	}
	again, err := LoadSealedCA(dir, testPass)
	if err != nil || !samePublic(again.key.Public(), ca.key.Public()) || again.Pin() != ca.Pin() {
		t.Errorf("opened: %v", err)
	}
	_, err = LoadSealedCA(dir, []byte("another passphrase"))
	wantErr(t, err, nil, "does not open", keyFile)
	_, err = LoadCA(dir)
	wantErr(t, err, nil, "is encrypted and no passphrase file is set")
	// Saved again under another one, or none.
	if err := ca.SaveSealed(dir, nil); err != nil {
		t.Fatal(err)
	}
	if sealed, err := Sealed(dir); err != nil || sealed {
		t.Errorf("Sealed: %t %v", sealed, err)
	}
	must(LoadCA(dir))
	wantErr(t, newCA(t, testCluster).SaveSealed(dir, testPass), nil, "another CA")
	wantErr(t, ca.SaveSealed(dir, []byte("short")), nil, "at least 16")
}

func TestSealedKeyIsReadByOpenssl(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err) // a developer may lack it, CI does not
	}
	dir := t.TempDir()
	if err := newCA(t, testCluster).SaveSealed(dir, testPass); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "pkey", "-noout", "-passin", "stdin", "-in", filepath.Join(dir, fileCAKey))
	cmd.Stdin = bytes.NewReader(append(testPass, '\n'))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pass")
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
		says string
	}{
		{"sixteen bytes it has\nsecond line\n", 0o600, "sixteen bytes it has", ""},
		{"sixteen bytes it has\r\n", 0o640, "sixteen bytes it has", ""},
		{"short\n", 0o600, "", "write at least 16"},
		{"sixteen bytes it has\n", 0o644, "", "readable by others"},
	} {
		if err := WritePrivate(path, []byte(tt.text)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := Passphrase(path)
		if tt.says != "" {
			wantErr(t, err, nil, tt.says)
		} else if err != nil || string(got) != tt.want {
			t.Errorf("%q: %q %v", tt.text, got, err)
		}
	}
}

// A client whose key never left it gets a certificate for that key, and for nothing
// that its request asks for.
func TestSignClient(t *testing.T) {
	ca := newCA(t, testCluster)
	for _, alg := range []KeyAlgorithm{ECDSAP256, Ed25519, RSA2048} {
		key := must(newKey(alg))
		cert := parseOne(t, must(ca.SignClient(must(NewNodeRequest(key)), ClientProfile{Name: "dev1"}, time.Now())))
		if !samePublic(cert.PublicKey, key.Public()) || cert.Subject.CommonName != "dev1" || len(cert.DNSNames) > 0 {
			t.Errorf("%s: %+v", alg, Summarize(cert))
		}
		if s := Summarize(cert); s.Kind != kindClient || s.Name != "dev1" || len(s.Usages) != 1 || s.Usages[0] != "client" {
			t.Errorf("%+v", s)
		}
	}
	_, err := ca.SignClient([]byte("no request"), ClientProfile{Name: "dev1"}, time.Now())
	wantErr(t, err, nil, "cannot be read")
	_, err = ca.SignClient(nil, ClientProfile{Name: "a\x00b"}, time.Now())
	wantErr(t, err, ErrWrongName)
}

func TestPKCS12(t *testing.T) {
	ca := newCA(t, testCluster)
	for _, alg := range []KeyAlgorithm{ECDSAP256, RSA2048} {
		cert, key, err := ca.IssueClient(ClientProfile{Name: "dev1", Key: alg}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b := Bundle{Cert: cert, Key: key, CA: ca.CertPEM()}
		for _, legacy := range []bool{false, true} {
			data := must(b.PKCS12("pass $word", legacy))
			priv, leaf, cas, err := pkcs12.DecodeChain(data, "pass $word")
			if err != nil || leaf.Subject.CommonName != "dev1" || len(cas) != 1 || !cas[0].Equal(ca.Certificate()) {
				t.Fatalf("%s legacy %t: %v", alg, legacy, err)
			}
			if !samePublic(leaf.PublicKey, priv.(crypto.Signer).Public()) {
				t.Error("another key")
			}
			if _, _, _, err := pkcs12.DecodeChain(data, "wrong"); err == nil {
				t.Error("a wrong password opens it")
			}
		}
	}
	_, other, err := ca.IssueClient(ClientProfile{Name: "dev2"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := ca.IssueClient(ClientProfile{Name: "dev1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = Bundle{Cert: cert, Key: other, CA: ca.CertPEM()}.PKCS12("p", false)
	wantErr(t, err, ErrKeyMismatch)
}

// While a cluster has two CAs both are trusted, and one that was dropped is not,
// also for clients that are connected already.
func TestTrusts(t *testing.T) {
	old, next := newCA(t, testCluster), newCA(t, testCluster)
	id := newIdentity(t, old, "n1")
	cert := func(ca *CA) *x509.Certificate {
		return must(x509.ParseCertificate(newPair(t, ca, ClientProfile{Name: "u"}, time.Now()).Certificate[0]))
	}
	byOld, byNew := cert(old), cert(next)
	foreign := selfSigned(t, &x509.Certificate{SerialNumber: byOld.SerialNumber, NotAfter: time.Now().Add(time.Hour)}, must(newKey("")))
	check := func(when string, o, n bool) {
		t.Helper()
		if id.Trusts(byOld) != o || id.Trusts(byNew) != n || !id.Trusts(foreign) {
			t.Errorf("%s: old %t, new %t, foreign %t", when, id.Trusts(byOld), id.Trusts(byNew), id.Trusts(foreign))
		}
	}
	check("before", true, false)
	if err := id.Replace(nil, nil, append(old.CertPEM(), next.CertPEM()...)); err != nil {
		t.Fatal(err)
	}
	check("both", true, true)
	if id.Pin() != old.Pin() {
		t.Error("the pin is not the one of the CA that signed the certificate")
	}
	m := issueNode(t, next, NodeProfile{ID: "n1"}, time.Now())
	if err := id.Replace(m.Cert, m.Key, nil); err != nil {
		t.Fatal(err)
	}
	if id.Pin() != next.Pin() {
		t.Error("the pin is not the new CA's")
	}
	if err := id.Replace(nil, nil, next.CertPEM()); err != nil {
		t.Fatal(err)
	}
	check("after", false, true)
}
