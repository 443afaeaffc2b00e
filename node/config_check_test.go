package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair writes a self-signed certificate that is valid for a day from notBefore.
func pair(t *testing.T, dir, name string, notBefore time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: notBefore, NotAfter: notBefore.Add(24 * time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: certificate},
		name + ".key": {Type: "PRIVATE KEY", Bytes: sealed},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckFiles(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	pair(t, dir, "good", now.Add(-time.Hour))
	pair(t, dir, "old", now.Add(-48*time.Hour))
	pair(t, dir, "open", now.Add(-time.Hour))
	if err := os.Chmod(filepath.Join(dir, "open.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "junk.pem"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		tls  ListenerTLS
		want string // "" for none
	}{
		{"good", ListenerTLS{CertFile: "good.pem", KeyFile: "good.key", ClientCAFile: "good.pem"}, ""},
		{"none", ListenerTLS{}, ""},
		{"expired", ListenerTLS{CertFile: "old.pem", KeyFile: "old.key"}, "expired on"},
		{"readable key", ListenerTLS{CertFile: "open.pem", KeyFile: "open.key"}, "readable by others (mode 0644): run chmod 600"},
		{"mismatch", ListenerTLS{CertFile: "good.pem", KeyFile: "old.key"}, "does not fit"},
		{"missing", ListenerTLS{CertFile: "good.pem", KeyFile: "gone.key"}, "does not exist"},
		{"no certificate", ListenerTLS{CertFile: "junk.pem", KeyFile: "good.key"}, "does not begin with a certificate"},
		{"no CA", ListenerTLS{ClientCAFile: "junk.pem"}, "holds no certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range []*string{&test.tls.CertFile, &test.tls.KeyFile, &test.tls.ClientCAFile} {
				if *path != "" {
					*path = filepath.Join(dir, *path)
				}
			}
			config := Config{Listeners: []Listener{{Name: "l", TLS: test.tls}}}
			err := config.CheckFiles(now)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAdvertiseAddress(t *testing.T) {
	bound := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7}
	for want, advertise := range map[string]string{"127.0.0.1:7": "", "a.example:9": "a.example:9", "b.example:7": "b.example:0"} {
		config := Config{Mesh: MeshConfig{Advertise: advertise}}
		if got, err := config.AdvertiseAddress(bound); err != nil || got != want {
			t.Errorf("%s: %s, %v", advertise, got, err)
		}
	}
}
