package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// forge makes a certificate and its key, signed by parent, or by itself.
func forge(t *testing.T, template *x509.Certificate, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	signer, by := template, any(key)
	if parent != nil {
		signer, by = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func authority(t *testing.T, name string) tls.Certificate {
	return forge(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
}

// save writes a certificate and its key.
func save(t *testing.T, dir, name string, c tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// listen serves answer to every client that has said something; config nil is
// without TLS.
func listen(t *testing.T, config *tls.Config, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if config != nil {
					conn = tls.Server(conn, config)
				}
				if n, err := conn.Read(make([]byte, 1024)); err == nil && n > 0 {
					_, _ = conn.Write(answer)
					_, _ = io.Copy(io.Discard, conn)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Doctor as a client says why it does not get in.
func TestDoctorConnect(t *testing.T) {
	dir := t.TempDir()
	ca, other := authority(t, "Park CA"), authority(t, "Other CA")
	caFile, _ := save(t, dir, "ca", ca)
	local := []net.IP{net.ParseIP("127.0.0.1")}
	server := func(t *x509.Certificate) *x509.Certificate {
		t.Subject, t.ExtKeyUsage = pkix.Name{CommonName: "broker"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		return t
	}
	good := forge(t, server(&x509.Certificate{IPAddresses: local}), &ca)
	clientCert, clientKey := save(t, dir, "client", forge(t, &x509.Certificate{Subject: pkix.Name{CommonName: "dev1"}}, &ca))
	strayCert, strayKey := save(t, dir, "stray", forge(t, &x509.Certificate{Subject: pkix.Name{CommonName: "dev1"}}, &other))
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	with := func(c tls.Certificate, change func(*tls.Config)) *tls.Config {
		config := &tls.Config{Certificates: []tls.Certificate{c}, ClientCAs: pool}
		if change != nil {
			change(config)
		}
		return config
	}
	demands := func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }
	accepts, refuses := []byte{0x20, 3, 0, 0, 0}, []byte{0x20, 3, 0, 0x86, 0}
	past := &x509.Certificate{IPAddresses: local, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	future := &x509.Certificate{IPAddresses: local, NotBefore: time.Now().Add(24 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour)}
	for _, tt := range []struct {
		name    string
		address string
		args    []string
		fails   bool
		want    []string
	}{
		{"all well", listen(t, with(good, demands), accepts), []string{"--cert", clientCert, "--key", clientKey}, false,
			[]string{"TLS 1.3", "127.0.0.1 is in the certificate", "certificate of \"dev1\" is accepted", "CONNECT as nobody"}},
		{"not TLS at all", listen(t, nil, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")), nil, true, []string{"does not speak TLS", "--plaintext"}},
		{"nobody listens", "127.0.0.1:1", nil, true, []string{"nothing listens on 127.0.0.1:1"}},
		{"expired", listen(t, with(forge(t, server(past), &ca), nil), accepts), nil, true, []string{"the server's certificate expired on", "clock says"}},
		{"not yet valid", listen(t, with(forge(t, server(future), &ca), nil), accepts), nil, true, []string{"valid only from", "correct this machine's clock"}},
		{"unknown authority", listen(t, with(forge(t, server(&x509.Certificate{IPAddresses: local}), &other), nil), accepts), nil, true, []string{`of "Other CA", which is not trusted here`, "--cafile"}},
		{"another name", listen(t, with(forge(t, server(&x509.Certificate{DNSNames: []string{"mqtt.example.org"}}), &ca), nil), accepts), nil, true, []string{"name 127.0.0.1 is not among the certificate's names mqtt.example.org"}},
		{"all of it at once", listen(t, with(forge(t, server(&x509.Certificate{DNSNames: []string{"a.example"}, NotBefore: past.NotBefore, NotAfter: past.NotAfter}), &other), nil), accepts), nil, true,
			[]string{"expired on", "not trusted here", "is not among"}},
		{"no client certificate", listen(t, with(good, demands), accepts), nil, true, []string{"demands a client certificate and none was given, of \"Park CA\""}},
		{"no client certificate, TLS 1.2", listen(t, with(good, func(c *tls.Config) { demands(c); c.MaxVersion = tls.VersionTLS12 }), accepts), nil, true, []string{"demands a client certificate and none was given, of \"Park CA\""}},
		{"client certificate of another CA", listen(t, with(good, demands), accepts), []string{"--cert", strayCert, "--key", strayKey}, true, []string{"refused the client certificate of \"dev1\"", `issued by "Other CA", and the server takes certificates, of "Park CA" only`}},
		{"too old", listen(t, with(good, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), accepts), nil, true, []string{"version", "update the older side"}},
		{"wrong password", listen(t, with(good, nil), refuses), nil, true, []string{"user name or password is wrong", "mqcluster user passwd"}},
		{"a key that others can read", "127.0.0.1:1", []string{"--cert", clientCert, "--key", caFile}, true, []string{"own files"}},
		{"without TLS", listen(t, nil, accepts), []string{"--plaintext"}, false, []string{"not encrypted", "CONNECT as nobody"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := fakeApp()
			var out, complaint strings.Builder
			app.Out, app.Err = &out, &complaint
			args := append([]string{"doctor", "--connect", tt.address}, tt.args...)
			if tt.name != "without TLS" {
				args = append(args, "--cafile", caFile)
			}
			code := app.Main(t.Context(), args)
			if (code != 0) != tt.fails {
				t.Errorf("exit code %d: %s", code, complaint.String())
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestNobodyUses(t *testing.T) {
	users := []admin.User{{Name: "dev1", Roles: []string{"plant"}}}
	for _, tt := range []struct {
		subject   string
		anonymous bool
		want      string
	}{
		{"user:dev1", false, ""},
		{"user:dev2", false, "does not exist"},
		{"role:plant", false, ""},
		{"role:office", false, "no user has"},
		{"*", false, ""},
		{"anonymous", true, ""},
		{"anonymous", false, "no listener"},
	} {
		got := nobodyUses(tt.subject, users, tt.anonymous)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q", tt.subject, got)
		}
	}
}

// Packets longer than 127 bytes have a longer head.
func TestConnectPacket(t *testing.T) {
	p := connectPacket("id", strings.Repeat("u", 200), []byte("secret"))
	if p[0] != 0x10 || p[1]&128 == 0 || int(p[1]&127)+int(p[2])*128 != len(p)-3 {
		t.Errorf("% x", p[:8])
	}
	got, err := readPacket(strings.NewReader(string(p)))
	if err != nil || len(got) != len(p)-1 {
		t.Errorf("%d bytes of %d: %v", len(got), len(p), err)
	}
}

// Files that cert issue wrote become one, and are shown without a node.
func TestCertFiles(t *testing.T) {
	dir := t.TempDir()
	ca, err := mtls.NewCA("park", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.IssueClient(mtls.ClientProfile{Name: "dev1", Key: mtls.RSA2048}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"dev1.pem": cert, "dev1.key": key, "ca.pem": ca.CertPEM(), "pass": []byte("a password\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	try := func(args ...string) (string, int) {
		app := fakeApp()
		var out strings.Builder
		app.Out, app.Err = &out, &out
		code := app.Main(t.Context(), args)
		return out.String(), code
	}
	out, code := try("cert", "show", "--file", filepath.Join(dir, "dev1.pem"))
	if code != 0 || !strings.Contains(out, "RSA 2048") || !strings.Contains(out, "kind         client") {
		t.Errorf("%d: %s", code, out)
	}
	for _, args := range [][]string{
		{"cert", "export", "dev1", "--dir", dir, "--password-file", filepath.Join(dir, "pass")},
		{"cert", "export", "dev1", "--dir", dir, "--format", "pem"},
	} {
		out, code := try(args...)
		file := strings.TrimSpace(out)
		info, err := os.Stat(file)
		if code != 0 || err != nil || info.Mode().Perm() != 0o600 || info.Size() < 1000 {
			t.Errorf("%v: %d %s %v", args, code, out, err)
		}
		if out, code := try(args...); code == 0 || !strings.Contains(out, "exists") {
			t.Errorf("%v again: %d %s", args, code, out)
		}
	}
	if out, code := try("cert", "export", "dev2", "--dir", dir, "--format", "pem"); code == 0 || !strings.Contains(out, "does not exist") {
		t.Errorf("%d %s", code, out)
	}
	if out, code := try("cert", "issue", "dev1", "--rsa", "1024"); code != 2 || !strings.Contains(out, "write 2048, 3072 or 4096") {
		t.Errorf("%d %s", code, out)
	}
}
