package mtls

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

func TestIssueClient(t *testing.T) {
	ca := newCA(t, testCluster)
	for _, name := range []string{"sensor-7", "Jörg Ä.", "a/b%2F?#c", strings.Repeat("x", 64)} {
		certPEM, keyPEM, err := ca.IssueClient(ClientProfile{Name: name}, time.Now())
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		cert := parseOne(t, certPEM)
		for _, from := range []string{FromCN, FromSAN} {
			if got, err := ClientName(cert, from); got != name || err != nil {
				t.Errorf("%s of %q is %q, %v", from, name, got, err)
			}
		}
		if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || cert.IsCA {
			t.Errorf("usages %v", cert.ExtKeyUsage)
		}
		if !samePublic(must(parseKey("key", keyPEM, nil)).Public(), cert.PublicKey) {
			t.Error("key and certificate differ")
		}
	}
	for _, name := range []string{"", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 65)} {
		if _, _, err := ca.IssueClient(ClientProfile{Name: name}, time.Now()); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}

func TestIssueKeys(t *testing.T) {
	ca := newCA(t, testCluster)
	certPEM, _, err := ca.IssueClient(ClientProfile{Name: "u", Key: RSA2048, Lifetime: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert := parseOne(t, certPEM)
	if k, ok := cert.PublicKey.(*rsa.PublicKey); !ok || k.N.BitLen() != 2048 {
		t.Errorf("key is %T", cert.PublicKey)
	}
	if d := time.Until(cert.NotAfter); d > time.Hour {
		t.Errorf("lives %s", d)
	}
	certPEM, keyPEM, err := ca.IssueClient(ClientProfile{Name: "u", Key: Ed25519}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := parseOne(t, certPEM).PublicKey.(ed25519.PublicKey); !ok {
		t.Errorf("the key is a %T", parseOne(t, certPEM).PublicKey)
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Error(err)
	}
	_, _, err = ca.IssueClient(ClientProfile{Name: "u", Key: "rsa-1024"}, time.Now())
	wantErr(t, err, nil, "unknown key algorithm rsa-1024", "rsa-4096")
}

func TestIssueServer(t *testing.T) {
	ca := newCA(t, testCluster)
	certPEM, _, err := ca.IssueServer(ServerProfile{DNSNames: []string{"*.park.example", "10.1.2.3"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert := parseOne(t, certPEM)
	for _, name := range []string{"mqtt.park.example", "10.1.2.3"} {
		if err := CheckName(cert, name); err != nil {
			t.Error(err)
		}
	}
	_, err = ClientName(cert, FromCN)
	wantErr(t, err, ErrWrongKind)
	_, _, err = ca.IssueServer(ServerProfile{}, time.Now())
	wantErr(t, err, ErrWrongName)
}

func TestClientName(t *testing.T) {
	ca := newCA(t, testCluster)
	key := must(NewNodeKey())
	cn := func(names ...string) (n pkix.Name) {
		for _, v := range names {
			n.ExtraNames = append(n.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v})
		}
		return n
	}
	self := func(template x509.Certificate) *x509.Certificate { return selfSigned(t, &template, key) }
	node := parseOne(t, issueNode(t, ca, NodeProfile{ID: "n1"}, time.Now()).Cert)
	nodeURI := entity{testCluster, kindNode, "n1"}.uri()
	for name, c := range map[string]struct {
		cert *x509.Certificate
		from string
		want string
		kind error
	}{
		"openssl, cn":          {parseOne(t, must(os.ReadFile("testdata/openssl/device.crt"))), FromCN, "device-7", nil},
		"openssl, san":         {parseOne(t, must(os.ReadFile("testdata/openssl/device.crt"))), FromSAN, "device-7@park.example", nil},
		"node, cn":             {node, FromCN, "", ErrWrongKind},
		"node, san":            {node, FromSAN, "", ErrWrongKind},
		"ca":                   {ca.Certificate(), FromCN, "", ErrWrongKind},
		"two common names":     {self(x509.Certificate{Subject: cn("a", "b")}), FromCN, "", ErrWrongName},
		"no common name":       {self(x509.Certificate{}), FromCN, "", ErrWrongName},
		"empty common name":    {self(x509.Certificate{Subject: cn("")}), FromCN, "", ErrWrongName},
		"control in name":      {self(x509.Certificate{Subject: cn("a\x00b")}), FromCN, "", ErrWrongName},
		"one DNS name":         {self(x509.Certificate{DNSNames: []string{"d7"}}), FromSAN, "d7", nil},
		"one URI":              {self(x509.Certificate{URIs: []*url.URL{must(url.Parse("urn:dev:7"))}}), FromSAN, "urn:dev:7", nil},
		"two names":            {self(x509.Certificate{DNSNames: []string{"d7"}, EmailAddresses: []string{"d@x"}}), FromSAN, "", ErrWrongName},
		"no names":             {self(x509.Certificate{Subject: cn("a")}), FromSAN, "", ErrWrongName},
		"foreign, node's URI":  {self(x509.Certificate{Subject: cn("a"), URIs: []*url.URL{nodeURI}}), FromCN, "", ErrWrongKind},
		"foreign, opaque URI":  {self(x509.Certificate{Subject: cn("a"), URIs: []*url.URL{must(url.Parse("mqcluster:park/node/n1"))}}), FromCN, "", ErrWrongKind},
		"foreign, upper case":  {self(x509.Certificate{Subject: cn("a"), URIs: []*url.URL{must(url.Parse("MQCLUSTER://park/node/n1"))}}), FromCN, "", ErrWrongKind},
		"foreign, unknown URI": {self(x509.Certificate{Subject: cn("a"), URIs: []*url.URL{must(url.Parse("mqcluster://park/king/n1"))}}), FromCN, "", ErrWrongKind},
		"unknown from":         {node, "email", "", ErrWrongKind},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ClientName(c.cert, c.from)
			if c.kind != nil {
				wantErr(t, err, c.kind)
			} else if err != nil || got != c.want {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		})
	}
	_, err := ClientName(self(x509.Certificate{Subject: cn("a")}), "email")
	wantErr(t, err, nil, "use cn or san")
}
