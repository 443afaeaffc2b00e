package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a request asks for must not reach the certificate: a joiner would choose
// who it is.
func TestRequestChoosesNothing(t *testing.T) {
	ca := newCA(t, testCluster)
	key := must(NewNodeKey())
	csr := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "evil", Organization: []string{"evil"}},
		DNSNames:       []string{"evil.example"},
		IPAddresses:    []net.IP{net.IPv4(6, 6, 6, 6)},
		EmailAddresses: []string{"evil@example"},
		URIs:           []*url.URL{entity{testCluster, kindNode, "n9"}.uri()},
		ExtraExtensions: []pkix.Extension{{
			Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}, // CA:TRUE
		}},
	}, key))
	now := time.Now().Truncate(time.Second)
	cert := parseOne(t, must(ca.IssueNode(csr, NodeProfile{
		ID: "n1", DNSNames: []string{"Broker.Park.example.", "localhost"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)},
	}, now)))

	type summary struct {
		CN       string
		DNS      []string
		IPs      []string
		URIs     []string
		Emails   []string
		CA       bool
		Usages   []x509.ExtKeyUsage
		NotAfter time.Time
	}
	got := summary{CN: cert.Subject.CommonName, DNS: cert.DNSNames, Emails: cert.EmailAddresses, CA: cert.IsCA, Usages: cert.ExtKeyUsage, NotAfter: cert.NotAfter.UTC()}
	for _, ip := range cert.IPAddresses {
		got.IPs = append(got.IPs, ip.String())
	}
	for _, u := range cert.URIs {
		got.URIs = append(got.URIs, u.String())
	}
	want := summary{
		CN: "n1", DNS: []string{"localhost", "broker.park.example"}, IPs: []string{"127.0.0.1", "::1", "10.0.0.1"},
		URIs: []string{"mqcluster://park/node/n1"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotAfter: now.Add(DefaultNodeLifetime).UTC(),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !samePublic(cert.PublicKey, key.Public()) {
		t.Error("the certificate is for another key")
	}
	if cert.SerialNumber.BitLen() < 100 {
		t.Errorf("serial %s is not random", Serial(cert))
	}
}

func TestIssueNodeRefuses(t *testing.T) {
	ca := newCA(t, testCluster)
	good := must(NewNodeRequest(must(NewNodeKey())))
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	weak := must(NewNodeRequest(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))))
	for name, c := range map[string]struct {
		csr  []byte
		p    NodeProfile
		says string
	}{
		"forged signature": {forged, NodeProfile{ID: "n1"}, "not signed by its own key"},
		"weak key":         {weak, NodeProfile{ID: "n1"}, "too weak"},
		"garbage":          {[]byte("hello"), NodeProfile{ID: "n1"}, "cannot be read"},
		"huge":             {make([]byte, maxRequest+1), NodeProfile{ID: "n1"}, "bytes"},
		"no id":            {good, NodeProfile{}, "node id"},
		"id with a path":   {good, NodeProfile{ID: "../n1"}, "node id"},
		"bad name":         {good, NodeProfile{ID: "n1", DNSNames: []string{"https://x"}}, "neither a host name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ca.IssueNode(c.csr, c.p, time.Now())
			wantErr(t, err, nil, c.says)
		})
	}
}

func FuzzRequestKey(f *testing.F) {
	f.Add(must(NewNodeRequest(must(NewNodeKey()))))
	f.Fuzz(func(t *testing.T, der []byte) {
		pub, err := RequestKey(der)
		if err == nil && KeyHash(pub) == nil {
			t.Error("a key without a hash was taken")
		}
	})
}

func TestRenewAt(t *testing.T) {
	ca := newCA(t, testCluster)
	seen := map[time.Time]bool{}
	for range 8 {
		cert := parseOne(t, issueNode(t, ca, NodeProfile{ID: "n1"}, time.Now()).Cert)
		at := RenewAt(cert)
		share := float64(at.Sub(cert.NotBefore)) / float64(cert.NotAfter.Sub(cert.NotBefore))
		if share < 0.61 || share > 0.67 {
			t.Errorf("renews after %.3f of its life", share)
		}
		if at != RenewAt(cert) {
			t.Error("not the same twice")
		}
		seen[at] = true
	}
	if len(seen) < 8 {
		t.Error("no jitter")
	}
}

func TestNodeKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	key := must(NodeKey(dir))
	if !samePublic(must(NodeKey(dir)).Public(), key.Public()) {
		t.Error("a second join would ask with another key")
	}
	if err := os.Chmod(filepath.Join(dir, fileNodeKey), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := NodeKey(dir)
	wantErr(t, err, ErrExposedKey)
}

func TestPeerNode(t *testing.T) {
	ca := newCA(t, testCluster)
	now := time.Now()
	server, _, err := ca.IssueServer(ServerProfile{DNSNames: []string{"n1"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	client, _, err := ca.IssueClient(ClientProfile{Name: "n1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	key := must(NewNodeKey())
	uri := func(es ...entity) (us []*url.URL) {
		for _, e := range es {
			us = append(us, e.uri())
		}
		return us
	}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	self := func(us []*url.URL, usages []x509.ExtKeyUsage) *x509.Certificate {
		return selfSigned(t, &x509.Certificate{Subject: pkix.Name{CommonName: "n1"}, URIs: us, ExtKeyUsage: usages}, key)
	}
	n1, n2 := entity{testCluster, kindNode, "n1"}, entity{testCluster, kindNode, "n2"}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		kind error
	}{
		"node":              {parseOne(t, issueNode(t, ca, NodeProfile{ID: "n1"}, now).Cert), nil},
		"client":            {parseOne(t, client), ErrWrongKind},
		"server":            {parseOne(t, server), ErrWrongKind},
		"CA":                {ca.Certificate(), ErrWrongKind},
		"no URI":            {self(nil, both), ErrWrongKind},
		"two nodes":         {self(uri(n1, n2), both), ErrWrongKind},
		"node and client":   {self(uri(n1, entity{testCluster, kindClient, "n1"}), both), ErrWrongKind},
		"client usage only": {self(uri(n1), both[1:]), ErrWrongKind},
		"another cluster":   {self(uri(entity{"quarry", kindNode, "n1"}), both), ErrUntrusted},
		"none":              {nil, ErrNoCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			state := tls.ConnectionState{Version: tls.VersionTLS13}
			if c.cert != nil {
				state.PeerCertificates = []*x509.Certificate{c.cert}
			}
			id, err := PeerNode(state, testCluster)
			if c.kind == nil {
				if id != "n1" || err != nil {
					t.Errorf("%q, %v", id, err)
				}
				return
			}
			wantErr(t, err, c.kind)
		})
	}
}

func TestKeyHash(t *testing.T) {
	a, b := must(NewNodeKey()), must(NewNodeKey())
	pub := must(RequestKey(must(NewNodeRequest(a))))
	if !bytes.Equal(KeyHash(pub), KeyHash(a.Public())) || bytes.Equal(KeyHash(a.Public()), KeyHash(b.Public())) {
		t.Error("the hash is not the key's")
	}
	if KeyHash(crypto.PublicKey("x")) != nil {
		t.Error("a string has a hash")
	}
}
