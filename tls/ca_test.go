package mtls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestNewCA(t *testing.T) {
	now := time.Now()
	cert := must(NewCA(testCluster, now)).Certificate()
	if !cert.IsCA || !cert.MaxPathLenZero || cert.MaxPathLen != 0 {
		t.Errorf("CA %t, path length %d", cert.IsCA, cert.MaxPathLen)
	}
	if k, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("key is %T", cert.PublicKey)
	}
	if d := cert.NotAfter.Sub(now); d < 3649*24*time.Hour || d > 3651*24*time.Hour {
		t.Errorf("lives %s", d)
	}
	if got := cert.URIs[0].String(); got != "mqcluster://park/ca" {
		t.Errorf("URI %s", got)
	}
	if len(PinOf(cert)) != 43 {
		t.Errorf("pin %s", PinOf(cert))
	}
	for _, id := range []string{"", "a b", "a/b", "-a", "a..b", "ä"} {
		if _, err := NewCA(id, now); err == nil {
			t.Errorf("cluster id %q was taken", id)
		}
	}
}

func TestCASaveLoad(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, testCluster)
	for range 2 { // saving again is harmless
		if err := ca.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	keyFile := filepath.Join(dir, fileCAKey)
	if info := must(os.Stat(keyFile)); info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key has mode %v", info.Mode())
	}
	back := must(LoadCA(dir))
	if !back.Certificate().Equal(ca.Certificate()) || back.ClusterID() != testCluster {
		t.Error("another CA came back")
	}
	wantErr(t, newCA(t, testCluster).Save(dir), nil, "another CA", "empty directory")

	// A node's bundle in the same directory: the certificate of the key counts.
	bundle := append(newCA(t, testCluster).CertPEM(), ca.CertPEM()...)
	if err := writePublic(filepath.Join(dir, fileCA), bundle); err != nil {
		t.Fatal(err)
	}
	if !must(LoadCA(dir)).Certificate().Equal(ca.Certificate()) {
		t.Error("took the wrong certificate of the bundle")
	}
	if err := ca.Save(dir); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(must(os.ReadFile(filepath.Join(dir, fileCA))), bundle) {
		t.Error("Save overwrote the bundle")
	}

	for _, mode := range []os.FileMode{0o640, 0o604} {
		if err := os.Chmod(keyFile, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadCA(dir)
		wantErr(t, err, ErrExposedKey, "key file "+keyFile+" is readable by others: chmod 600 "+keyFile)
	}
	_, err := LoadCA(t.TempDir())
	wantErr(t, err, os.ErrNotExist, "ca.crt")
}

func TestParseCARefuses(t *testing.T) {
	ca, other := newCA(t, testCluster), newCA(t, testCluster)
	certPEM, keyPEM, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := other.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCA(certPEM, keyPEM); err != nil {
		t.Error(err)
	}
	_, err = ParseCA(certPEM, otherKey)
	wantErr(t, err, ErrKeyMismatch)
	node := issueNode(t, ca, NodeProfile{ID: "n1"}, time.Now())
	_, err = ParseCA(node.Cert, node.Key)
	wantErr(t, err, ErrWrongKind)
}

func TestCertificatesEndWithTheCA(t *testing.T) {
	ca := newCA(t, testCluster)
	late := ca.Certificate().NotAfter.Add(-24 * time.Hour)
	cert, _, err := ca.IssueClient(ClientProfile{Name: "u"}, late)
	if err != nil {
		t.Fatal(err)
	}
	if got := parseOne(t, cert).NotAfter; !got.Equal(ca.Certificate().NotAfter) {
		t.Errorf("ends %s", got)
	}
	_, _, err = ca.IssueClient(ClientProfile{Name: "u"}, late.Add(48*time.Hour))
	wantErr(t, err, ErrExpired, "cluster CA", "expired since")
	_, _, err = ca.IssueClient(ClientProfile{Name: "u", Lifetime: -1}, time.Now())
	wantErr(t, err, nil, "lifetime")
}

func TestPlainSerial(t *testing.T) {
	for _, text := range []string{"ab12", "AB12", "00:AB:12", "00ab12"} {
		if got := PlainSerial(text); got != "ab12" {
			t.Errorf("%s is %s", text, got)
		}
	}
}

// What a CA signs begins after it began, also in the second in which it was made: by
// that the certificates of a new one are told from those of the one before.
func TestSignsAfterItsBeginning(t *testing.T) {
	now := time.Now()
	ca := must(NewCA(testCluster, now))
	text, _, err := ca.IssueClient(ClientProfile{Name: "dev1", Lifetime: time.Hour}, now)
	if err != nil {
		t.Fatal(err)
	}
	c := must(ParseCertificates("it", text))[0]
	if c.NotBefore.Unix() <= ca.Certificate().NotBefore.Unix() || c.NotBefore.After(now) {
		t.Errorf("it begins at %v, its CA at %v", c.NotBefore, ca.Certificate().NotBefore)
	}
}
