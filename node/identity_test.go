package node

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// rfc5424 is the form of a message with one element of structured data.
var rfc5424 = regexp.MustCompile(`^<(\d{1,3})>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ mqcluster \d+ audit \[audit@32473( [a-z]+="(?:[^"\\\]]|\\["\\\]])*")+\] \x{FEFF}.*$`)

func TestSyslogLine(t *testing.T) {
	s := &syslogSink{host: "host"}
	now := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, tt := range []struct {
		a       *admin.Asked
		outcome string
		pri     string
		has     string
	}{
		{&admin.Asked{Actor: "uid 0 (root)", Operation: "user/add", Subject: "dev1", Detail: "password"}, "", "109", "user/add dev1 by uid 0 (root) password: done"},
		{&admin.Asked{Actor: "uid 7", Operation: "user/add", Subject: "dev1"}, "it exists", "108", "refused: it exists"},
		{&admin.Asked{Actor: `a"b]c\`, Operation: "x", Subject: "two\nlines\x00"}, "", "109", `actor="a\"b\]c\\"`},
		{&admin.Asked{Subject: strings.Repeat("ü", 9000), Detail: strings.Repeat("x", 9000)}, "", "109", ""},
	} {
		line := string(s.line(now, tt.a, tt.outcome))
		m := rfc5424.FindStringSubmatch(line)
		if m == nil || m[1] != tt.pri || !strings.Contains(line, tt.has) || len(line) > syslogLine {
			t.Errorf("%d bytes: %q", len(line), line)
		}
	}
}

func TestSyslogAddress(t *testing.T) {
	for text, want := range map[string][2]string{
		"": {}, "local": {"unixgram", "/dev/log"}, "unix:/run/log": {"unixgram", "/run/log"}, "udp:192.0.2.1:514": {"udp", "192.0.2.1:514"},
		"tcp:[2001:db8::1]:601": {"tcp", "[2001:db8::1]:601"},
	} {
		network, address, err := syslogAddress(text)
		if err != nil || network != want[0] || address != want[1] {
			t.Errorf("%q: %q %q %v", text, network, address, err)
		}
	}
	for _, text := range []string{"unix:", "udp:", "tcp:host", "/dev/log", "tls:host:1"} {
		if _, _, err := syslogAddress(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestSyslogSends: lines arrive by datagram, and what waits is sent before the end.
func TestSyslogSends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &syslogSink{network: "unixgram", address: path, host: "h", lines: make(chan []byte, syslogQueue), stop: make(chan struct{}), failed: func(err error) { t.Error(err) }}
	for range 3 {
		s.send(&admin.Asked{Actor: "a", Operation: "o", Subject: "s"}, "")
	}
	s.done.Go(s.run)
	close(s.stop)
	s.done.Wait()
	buf := make([]byte, 4096)
	for range 3 {
		if err := l.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(buf)
		if err != nil || !rfc5424.Match(buf[:n]) {
			t.Fatalf("%q %v", buf[:n], err)
		}
	}
	(*syslogSink)(nil).send(&admin.Asked{}, "") // nowhere
}

func TestAclsAt(t *testing.T) {
	rule := func(f string) []*logpb.Rule { return []*logpb.Rule{{Allow: true, Action: 1, Filter: f}} }
	versions := []*logpb.AclVersion{
		{Version: 4, Changes: []*logpb.AclChange{{Subject: "*", Before: rule("old"), After: rule("a")}}},
		{Version: 5, Changes: []*logpb.AclChange{{Subject: "user:u", After: rule("u")}}},
		{Version: 6, Changes: []*logpb.AclChange{{Subject: "*", Before: rule("a"), After: rule("b")}, {Subject: "user:u", Before: rule("u")}}},
	}
	for _, tt := range []struct {
		at   uint64
		want map[string]string
		ok   bool
	}{
		{6, map[string]string{}, true},
		{5, map[string]string{"*": "a", "user:u": "u"}, true},
		{4, map[string]string{"*": "a", "user:u": ""}, true},
		{3, map[string]string{"*": "old", "user:u": ""}, true},
		{2, nil, false}, {7, nil, false},
	} {
		got, err := aclsAt(versions, tt.at, 6)
		if (err == nil) != tt.ok {
			t.Errorf("version %d: %v", tt.at, err)
		}
		if err != nil {
			continue
		}
		flat := map[string]string{}
		for subject, rules := range got {
			flat[subject] = ""
			for _, r := range rules {
				flat[subject] += r.Filter
			}
		}
		if diff := cmp.Diff(tt.want, flat); diff != "" {
			t.Errorf("version %d: %s", tt.at, diff)
		}
	}
}

func TestCertFields(t *testing.T) {
	c := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "gw", Organization: []string{"A", "B"}, OrganizationalUnit: []string{"hall\xff"}},
		DNSNames: []string{"gw.example.org", "other"},
	}
	if diff := cmp.Diff(auth.CertFields{CN: "gw", O: "A", DNS: "gw.example.org"}, certFields(c)); diff != "" {
		t.Error(diff)
	}
	c.Subject.CommonName = strings.Repeat("x", 70_000)
	if f := certFields(c); f.CN != "" {
		t.Error("a name of 70 kB is used in rules")
	}
}
