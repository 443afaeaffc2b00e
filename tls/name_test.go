package mtls

import (
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseNames(t *testing.T) {
	dns, ips, err := ParseNames([]string{"A.example", "a.example.", "[::1]", "::1", "10.0.0.1", "*.b", "host_1"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a.example", "*.b", "host_1"}, dns); d != "" {
		t.Error(d)
	}
	if len(ips) != 2 {
		t.Errorf("addresses %v", ips)
	}
	for _, bad := range []string{"", "*", "a:8883", "https://a", "a b", "-a", "a..b", "x.*.y", "ä"} {
		if _, _, err := ParseNames([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCheckName(t *testing.T) {
	ca := newCA(t, testCluster)
	cert := parseOne(t, issueNode(t, ca, NodeProfile{ID: "n1", DNSNames: []string{"a.example"}}, time.Now()).Cert)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "a.example"} {
		if err := CheckName(cert, name); err != nil {
			t.Error(err)
		}
	}
	wantErr(t, CheckName(cert, "b.example"), ErrWrongName, "name b.example is not among the certificate's names localhost, a.example, 127.0.0.1, ::1")
	wantErr(t, CheckName(ca.Certificate(), "b.example"), ErrWrongName, "no host names at all")
}

func FuzzParseEntity(f *testing.F) {
	for _, s := range []string{"mqcluster://park/node/n1", "mqcluster://park/client/a%2Fb", "mqcluster://park/ca", "mqcluster:x", "mqcluster://u@park/node/n1?q#f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		e, err := parseEntity(u)
		if err != nil {
			return
		}
		// One entity, one meaning: written again it reads the same.
		back, err := parseEntity(must(url.Parse(e.uri().String())))
		if err != nil || back != e {
			t.Errorf("%q is %+v, and written again %+v, %v", s, e, back, err)
		}
	})
}
