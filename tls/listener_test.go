package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// dial returns a client's settings: it trusts the CA and shows the pairs.
func dial(ca *x509.Certificate, name string, pairs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{RootCAs: roots, ServerName: name, Certificates: pairs, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
}

func TestListenerOfIdentity(t *testing.T) {
	ca := newCA(t, testCluster)
	node := newIdentity(t, ca, "n1")
	now := time.Now()
	client := newPair(t, ca, ClientProfile{Name: "sensor-7"}, now)
	l := must(OpenListener(ListenerConfig{RequireClientCert: true, Names: []string{"localhost"}}, node))
	srv, _ := mustShake(t, l.Config(), dial(ca.Certificate(), "localhost", client))
	if name, err := ClientName(srv.state.PeerCertificates[0], FromCN); name != "sensor-7" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if len(srv.state.VerifiedChains) == 0 {
		t.Error("no verified chain for the broker")
	}

	nodePair := must(tls.X509KeyPair(node.Material().Cert, node.Material().Key))
	expired := newPair(t, ca, ClientProfile{Name: "u", Lifetime: time.Hour}, now.Add(-2*time.Hour))
	foreign := newPair(t, newCA(t, testCluster), ClientProfile{Name: "u"}, now)
	force := func(p tls.Certificate) *tls.Config {
		c := dial(ca.Certificate(), "localhost")
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p, nil }
		return c
	}
	old := dial(ca.Certificate(), "localhost", client)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for name, c := range map[string]struct {
		client *tls.Config
		says   string
	}{
		"none":      {dial(ca.Certificate(), "localhost"), "client sent no certificate"},
		"a node's":  {force(nodePair), "node certificate and not a client's"},
		"expired":   {force(expired), "certificate expired since"},
		"other CA":  {force(foreign), "unknown authority"},
		"TLS 1.1":   {old, "no TLS protocol version in common"},
		"other CA+": {dial(ca.Certificate(), "localhost", foreign), "client sent no certificate, or has none of a CA"},
	} {
		t.Run(name, func(t *testing.T) {
			srv, cli := shake(l.Config(), c.client)
			if cli.err == nil {
				t.Error("the client is in")
			}
			wantErr(t, errors.New(Describe(srv.err)), nil, c.says)
		})
	}
}

func TestListenerOptional(t *testing.T) {
	ca := newCA(t, testCluster)
	node := newIdentity(t, ca, "n1")
	client := newPair(t, ca, ClientProfile{Name: "u"}, time.Now())
	for _, request := range []bool{false, true} {
		l := must(OpenListener(ListenerConfig{RequestClientCert: request}, node))
		mustShake(t, l.Config(), dial(ca.Certificate(), "localhost"))
		srv, _ := mustShake(t, l.Config(), dial(ca.Certificate(), "localhost", client))
		if got := len(srv.state.PeerCertificates) > 0; got != request {
			t.Errorf("requested %t, came %t", request, got)
		}
	}
}

func TestListenerFollowsIdentity(t *testing.T) {
	oldCA, nextCA := newCA(t, testCluster), newCA(t, testCluster)
	node := newIdentity(t, oldCA, "n1")
	server := must(OpenListener(ListenerConfig{RequireClientCert: true}, node)).Config()
	m := issueNode(t, nextCA, NodeProfile{ID: "n1"}, time.Now())
	if err := node.Replace(m.Cert, m.Key, m.CA); err != nil {
		t.Fatal(err)
	}
	mustShake(t, server, dial(nextCA.Certificate(), "localhost", newPair(t, nextCA, ClientProfile{Name: "u"}, time.Now())))
}

func TestListenerVersionAndCiphers(t *testing.T) {
	ca := newCA(t, testCluster)
	node := newIdentity(t, ca, "n1")
	client := func(version uint16) *tls.Config {
		c := dial(ca.Certificate(), "localhost")
		c.MaxVersion = version
		return c
	}
	only13 := must(OpenListener(ListenerConfig{MinVersion: "1.3"}, node))
	if _, cli := shake(only13.Config(), client(tls.VersionTLS12)); cli.err == nil {
		t.Error("TLS 1.2 got in")
	}
	mustShake(t, only13.Config(), client(tls.VersionTLS13))
	const suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
	l := must(OpenListener(ListenerConfig{Ciphers: []string{suite}}, node))
	srv, _ := mustShake(t, l.Config(), client(tls.VersionTLS12))
	if got := tls.CipherSuiteName(srv.state.CipherSuite); got != suite {
		t.Errorf("cipher %s", got)
	}
}

// opensslFiles copies what openssl made to a directory of the test.
func opensslFiles(t *testing.T) (dir string, cfg ListenerConfig, ca *x509.Certificate, device tls.Certificate) {
	t.Helper()
	dir = t.TempDir()
	cfg = ListenerConfig{
		CertFile:          fixture(t, dir, "server.crt"),
		KeyFile:           fixture(t, dir, "server.key"),
		ClientCAFile:      fixture(t, dir, "ca.crt"),
		RequireClientCert: true,
		Names:             []string{"broker.park.example"},
	}
	ca = parseOne(t, must(os.ReadFile(cfg.ClientCAFile)))
	device = must(tls.LoadX509KeyPair("testdata/openssl/device.crt", "testdata/openssl/ec-pkcs8.key"))
	return dir, cfg, ca, device
}

func TestListenerOfOpenssl(t *testing.T) {
	dir, cfg, ca, device := opensslFiles(t)
	l := must(OpenListener(cfg, nil))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := dial(ca, "broker.park.example", device)
		client.MaxVersion = version
		srv, _ := mustShake(t, l.Config(), client)
		if name, err := ClientName(srv.state.PeerCertificates[0], FromSAN); name != "device-7@park.example" || err != nil {
			t.Errorf("%q, %v", name, err)
		}
	}
	cfg.CRLFile = fixture(t, dir, "none-revoked.crl")
	mustShake(t, must(OpenListener(cfg, nil)).Config(), dial(ca, "localhost", device))
	cfg.CRLFile = fixture(t, dir, "device-revoked.crl")
	srv, _ := shake(must(OpenListener(cfg, nil)).Config(), dial(ca, "localhost", device))
	wantErr(t, srv.err, ErrRevoked, "device-7", "was revoked by its CA")
}

func TestOpenListenerRefuses(t *testing.T) {
	dir, good, _, _ := opensslFiles(t)
	cluster := newCA(t, testCluster)
	node := newIdentity(t, cluster, "n1")
	write := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		if err := WritePrivate(path, all); err != nil {
			t.Fatal(err)
		}
		return path
	}
	read := func(path string) []byte { return must(os.ReadFile(path)) }
	server, err := os.ReadFile(good.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	oldCert, oldKey, err := cluster.IssueServer(ServerProfile{DNSNames: []string{"b"}, Lifetime: time.Hour}, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	clientCert, clientKey, err := cluster.IssueClient(ClientProfile{Name: "u"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	exposed := write("exposed.key", read(good.KeyFile))
	if err := os.Chmod(exposed, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*ListenerConfig)
		kind   error
		says   string
	}{
		"expired":        {func(c *ListenerConfig) { c.CertFile, c.KeyFile = write("o.crt", oldCert), write("o.key", oldKey) }, ErrExpired, "certificate expired since"},
		"client's":       {func(c *ListenerConfig) { c.CertFile, c.KeyFile = write("c.crt", clientCert), write("c.key", clientKey) }, ErrWrongKind, "not for servers"},
		"other key":      {func(c *ListenerConfig) { c.KeyFile = fixture(t, dir, "ec-pkcs8.key") }, ErrKeyMismatch, "does not belong to the certificate"},
		"issuer first":   {func(c *ListenerConfig) { c.CertFile = write("w.crt", read(c.ClientCAFile), server) }, ErrKeyMismatch, "put the server's certificate first"},
		"exposed key":    {func(c *ListenerConfig) { c.KeyFile = exposed }, ErrExposedKey, "key file " + exposed + " is readable by others: chmod 600 " + exposed},
		"no certificate": {func(c *ListenerConfig) { c.CertFile = c.KeyFile }, ErrNoCertificate, "has no PEM certificate"},
		"no key":         {func(c *ListenerConfig) { c.KeyFile = "" }, nil, "no PEM private key"},
		"missing":        {func(c *ListenerConfig) { c.CertFile = filepath.Join(dir, "no") }, os.ErrNotExist, "cannot read"},
		"name":           {func(c *ListenerConfig) { c.Names = []string{"mqtt.park.example"} }, ErrWrongName, "name mqtt.park.example is not among the certificate's names broker.park.example, localhost, 127.0.0.1"},
		"cipher":         {func(c *ListenerConfig) { c.Ciphers = []string{"x"} }, nil, "unknown cipher x, nearest is"},
		"cipher for 1.3": {func(c *ListenerConfig) {
			c.MinVersion, c.Ciphers = "1.3", []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}
		}, nil, "for TLS 1.2 only"},
		"version":        {func(c *ListenerConfig) { c.MinVersion = "1.1" }, nil, "use 1.2 or 1.3"},
		"no CA":          {func(c *ListenerConfig) { c.ClientCAFile = "" }, nil, "no CA file is set"},
		"CRL without CA": {func(c *ListenerConfig) { c.ClientCAFile, c.CRLFile, c.RequireClientCert = "", "x", false }, nil, "needs a client CA file"},
		"CRL of another CA": {func(c *ListenerConfig) {
			c.ClientCAFile, c.CRLFile = write("o.ca", cluster.CertPEM()), fixture(t, dir, "none-revoked.crl")
		}, ErrUntrusted, "not one of the client CAs"},
		"outdated CRL":       {func(c *ListenerConfig) { c.CRLFile = fixture(t, dir, "outdated.crl") }, ErrExpired, "out of date since 2020-02-01"},
		"no CRL":             {func(c *ListenerConfig) { c.CRLFile = c.CertFile }, nil, "no PEM CRL"},
		"encrypted, no pass": {func(c *ListenerConfig) { c.KeyFile = fixture(t, dir, "ec-default.key") }, nil, "no passphrase file is set"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			_, err := OpenListener(cfg, nil)
			wantErr(t, err, c.kind, c.says)
		})
	}
	_, err = OpenListener(ListenerConfig{}, nil)
	wantErr(t, err, nil, "no certificate: set a certificate")
	_, err = OpenListener(ListenerConfig{KeyFile: "x"}, node)
	wantErr(t, err, nil, "no certificate file")
}

func TestListenerKeyShapes(t *testing.T) {
	dir, cfg, ca, device := opensslFiles(t)
	cfg.CertFile = filepath.Join(dir, "both.pem")
	both := append(must(os.ReadFile("testdata/openssl/server.key")), must(os.ReadFile("testdata/openssl/server.crt"))...)
	if err := WritePrivate(cfg.CertFile, both); err != nil {
		t.Fatal(err)
	}
	cfg.KeyFile = ""
	mustShake(t, must(OpenListener(cfg, nil)).Config(), dial(ca, "localhost", device))

	// An encrypted key with its passphrase in a file that an editor wrote.
	cluster := newCA(t, testCluster)
	key := must(parseKey("f", must(os.ReadFile("testdata/openssl/ec-pkcs8.key")), nil))
	cert := must(cluster.sign(leaf{entity: entity{testCluster, kindServer, "b"}, usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, dns: []string{"b"}, lifetime: time.Hour}, key.Public(), time.Now()))
	cfg = ListenerConfig{CertFile: filepath.Join(dir, "b.crt"), KeyFile: fixture(t, dir, "ec-default.key"), KeyPassFile: filepath.Join(dir, "pass")}
	if err := errors.Join(WritePrivate(cfg.CertFile, marshalCerts(cert)), WritePrivate(cfg.KeyPassFile, []byte("open sesame\r\n"))); err != nil {
		t.Fatal(err)
	}
	mustShake(t, must(OpenListener(cfg, nil)).Config(), dial(cluster.Certificate(), "b"))
}

func TestListenerReload(t *testing.T) {
	ca := newCA(t, testCluster)
	dir := t.TempDir()
	cfg := ListenerConfig{CertFile: filepath.Join(dir, "s.crt"), KeyFile: filepath.Join(dir, "s.key")}
	put := func(name string) (cert, key []byte) {
		cert, key, err := ca.IssueServer(ServerProfile{DNSNames: []string{name}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(WritePrivate(cfg.CertFile, cert), WritePrivate(cfg.KeyFile, key)); err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	put("a")
	l := must(OpenListener(cfg, nil))
	server := l.Config()
	mustShake(t, server, dial(ca.Certificate(), "a"))
	put("b")
	if err := l.Reload(); err != nil {
		t.Fatal(err)
	}
	mustShake(t, server, dial(ca.Certificate(), "b"))
	if err := CheckName(l.Leaf(), "b"); err != nil {
		t.Error(err)
	}
	if err := WritePrivate(cfg.CertFile, []byte("x")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.Reload(), ErrNoCertificate)
	mustShake(t, server, dial(ca.Certificate(), "b"))
}

func TestListenerWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, testCluster)
		dir := t.TempDir()
		cfg := ListenerConfig{CertFile: filepath.Join(dir, "s.crt"), KeyFile: filepath.Join(dir, "s.key")}
		put := func(file string, data []byte) {
			if err := WritePrivate(file, data); err != nil {
				t.Fatal(err)
			}
		}
		issue := func(name string) (cert, key []byte) {
			cert, key, err := ca.IssueServer(ServerProfile{DNSNames: []string{name}}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return cert, key
		}
		cert, key := issue("a")
		put(cfg.CertFile, cert)
		put(cfg.KeyFile, key)
		l := must(OpenListener(cfg, nil))
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan error, 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Watch(ctx, time.Second, func(err error) { reports <- err })
		}()
		after := func(n time.Duration) { time.Sleep(n * time.Second); synctest.Wait() }
		after(3)
		if len(reports) != 0 {
			t.Errorf("reported %v without a change", <-reports)
		}
		cert, key = issue("b")
		put(cfg.CertFile, cert) // half a set, for a while
		after(3)
		if len(reports) != 1 {
			t.Fatalf("%d reports of half a set", len(reports))
		}
		wantErr(t, <-reports, ErrKeyMismatch)
		put(cfg.KeyFile, key)
		after(3)
		if len(reports) != 1 {
			t.Fatalf("%d reports of a new set", len(reports))
		}
		if err := <-reports; err != nil || CheckName(l.Leaf(), "b") != nil {
			t.Errorf("reported %v", err)
		}
		cancel()
		<-done
	})
}

func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testResumption(t, version) })
		})
	}
}

func testResumption(t *testing.T, version uint16) {
	ca := newCA(t, testCluster)
	var revoked atomic.Value
	revoked.Store("")
	cfg := ListenerConfig{RequireClientCert: true, Revoked: func(serial string) bool { return serial == revoked.Load() }}
	a := must(OpenListener(cfg, newIdentity(t, ca, "n1")))
	b := must(OpenListener(cfg, newIdentity(t, ca, "n2")))
	keys := [][32]byte{{1}, {2}}
	a.SetTicketKeys(keys)
	b.SetTicketKeys([][32]byte{{3}, {1}}) // one rotation ahead
	pair := newPair(t, ca, ClientProfile{Name: "u", Lifetime: 2 * time.Hour}, time.Now())
	newClient := func() *tls.Config {
		c := dial(ca.Certificate(), "localhost", pair)
		c.MaxVersion = version
		return c
	}
	// A client that resumes, another one after its certificate was revoked, one
	// after it has expired, and one that comes to a listener with another CA.
	live, barred, late, stray := newClient(), newClient(), newClient(), newClient()
	for _, c := range []*tls.Config{live, barred, late, stray} {
		if srv, _ := mustShake(t, a.Config(), c); srv.state.DidResume {
			t.Error("resumed nothing")
		}
	}
	srv, _ := mustShake(t, b.Config(), live)
	if !srv.state.DidResume || len(srv.state.PeerCertificates) == 0 {
		t.Errorf("on another node: resumed %t", srv.state.DidResume)
	}

	revoked.Store(Serial(must(x509.ParseCertificate(pair.Certificate[0]))))
	srv, _ = shake(a.Config(), barred)
	wantErr(t, srv.err, ErrRevoked, "was revoked")
	revoked.Store("")

	other := must(OpenListener(cfg, newIdentity(t, newCA(t, testCluster), "n3")))
	other.SetTicketKeys(keys)
	if srv, _ = shake(other.Config(), stray); srv.err == nil {
		t.Error("a ticket opened a listener that does not trust the CA")
	}

	time.Sleep(3 * time.Hour)
	srv, _ = shake(a.Config(), late)
	wantErr(t, errors.New(Describe(srv.err)), nil, "certificate expired since")
}
