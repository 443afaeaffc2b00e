//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// served is the certificate that a listener shows.
func served(t *testing.T, address string, config *tls.Config) *x509.Certificate {
	t.Helper()
	lax := &tls.Config{InsecureSkipVerify: true}
	if config != nil {
		lax.Certificates = config.Certificates
	}
	conn, err := tls.Dial("tcp", address, lax)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// replaceFile puts a file in the place of another in one step.
func replaceFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateFilesAreReloaded changes certificate, key, CA bundle and CRL of a
// listener while clients are connected: what is good is in force within seconds, what
// is bad is told and the old stays, and nobody loses a connection.
func TestCertificateFilesAreReloaded(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	p, second := newPark(t, "First CA"), newPark(t, "Second CA")
	p.server("server", "ec", "IP:127.0.0.1")
	p.client("device", "device")
	p.client("lost", "device")
	p.revoke()
	second.client("device", "device")
	second.revoke()
	c := newListening(t, 1, func(n *Node) []string { return p.listener("server", n.TLS, ",require_client_cert=true") })
	n := c.Nodes[0]
	roots := p.roots()
	as := func(pair tls.Certificate) login {
		return login{n.TLS, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, user, password}
	}
	there := as(p.pair("device")).must(t, clean("there"))
	works := func(l login) bool {
		conn, ack, err := l.connect(t, clean("visitor"))
		if err == nil {
			conn.Close()
		}
		return err == nil && ack.Reason == 0
	}
	says := func(text string) func() string {
		return func() string { return text + "; the node's log:\n" + n.tail(10) }
	}
	said := func(text string) { // in the log, after what was there
		t.Helper()
		await(t, patience, func() bool { return strings.Contains(n.Log(), text) }, says("the log does not say "+text))
	}
	old := served(t, n.TLS, nil)

	t.Run("a certificate without its key is not used", func(t *testing.T) {
		before := map[string][]byte{}
		for _, f := range []string{"server.crt", "server.key"} {
			before[f], _ = os.ReadFile(p.path(f))
		}
		p.server("server2", "rsa", "IP:127.0.0.1")
		text, err := os.ReadFile(p.path("server2.crt"))
		if err != nil {
			t.Fatal(err)
		}
		replaceFile(t, p.path("server.crt"), text)
		said("does not belong to the certificate")
		if !served(t, n.TLS, nil).Equal(old) || !works(as(p.pair("device"))) {
			t.Error("half of a pair ended what was in force")
		}
		for _, f := range []string{"server.key", "server.pass"} {
			text, err := os.ReadFile(p.path(strings.Replace(f, "server", "server2", 1)))
			if err != nil {
				t.Fatal(err)
			}
			replaceFile(t, p.path(f), text)
		}
		took := await(t, patience, func() bool { return !served(t, n.TLS, nil).Equal(old) }, says("the new certificate is not served"))
		t.Logf("served after %v", took.Round(time.Millisecond))
		if !works(as(p.pair("device"))) {
			t.Error("the new pair does not work")
		}
	})
	t.Run("a damaged file is not used", func(t *testing.T) {
		now := served(t, n.TLS, nil)
		for _, name := range []string{"server.crt", "ca.crt", "ca.crl"} {
			good, err := os.ReadFile(p.path(name))
			if err != nil {
				t.Fatal(err)
			}
			mark := len(n.Log())
			replaceFile(t, p.path(name), good[:len(good)/2])
			await(t, patience, func() bool { return strings.Contains(n.Log()[mark:], "changed certificate files are not used") }, says("the log says nothing of "+name))
			if !served(t, n.TLS, nil).Equal(now) || !works(as(p.pair("device"))) {
				t.Errorf("half of %s ended what was in force", name)
			}
			out, err := n.TryCLI("", "doctor")
			if err == nil || !strings.Contains(out, "are not used, the ones before still are") {
				t.Errorf("doctor says nothing of %s: %v\n%s", name, err, out)
			}
			replaceFile(t, p.path(name), good)
		}
	})
	t.Run("a CRL", func(t *testing.T) {
		lost := as(p.pair("lost"))
		if !works(lost) {
			t.Fatal("a certificate that is not revoked yet is refused")
		}
		p.revoke("lost")
		await(t, patience, func() bool { return !works(lost) }, says("a certificate of the new CRL is accepted"))
	})
	t.Run("a bundle with a second CA", func(t *testing.T) {
		by := as(second.pair("device"))
		if works(by) {
			t.Fatal("a certificate of a CA that is not there is accepted")
		}
		// The list of the new CA comes with it: without, its clients could not be
		// checked, and would be refused.
		for _, name := range []string{"ca.crl", "ca.crt"} {
			one, err := os.ReadFile(p.path(name))
			two, err2 := os.ReadFile(second.path(name))
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			replaceFile(t, p.path(name), append(one, two...))
		}
		await(t, patience, func() bool { return works(by) }, says("a certificate of the new CA is refused"))
	})
	if err := there.Ping(); err != nil {
		t.Errorf("the client that was there before has lost its connection: %v", err)
	}
	there.Disconnect(0)
}

// TestSessionsResumeAnywhere has clients come back through a balancer that sends them
// to another node each time: TLS sessions resume, certificates are checked all the
// same, and one that was revoked is refused.
func TestSessionsResumeAnywhere(t *testing.T) {
	need(t, "haproxy")
	t.Parallel()
	c := newListening(t, 3, func(n *Node) []string {
		return []string{"--listener", "tls,require_client_cert=true,identity=cn,address=" + n.TLS}
	})
	_, _, pair := c.certificate(user)
	config := c.ClientTLS.Clone()
	config.Certificates = []tls.Certificate{pair}
	front := balancer(t, c, "roundrobin", config, func(n *Node) string { return n.TLS })
	const reconnects = 200
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			own := config.Clone()
			own.MinVersion, own.MaxVersion = version, version
			own.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			resumed, nodes := 0, map[string]int{}
			for i := range reconnects + 1 {
				cl := login{address: front, tls: own}.must(t, clean("resumes"))
				state := cl.Conn.(*tls.Conn).ConnectionState()
				if i > 0 && state.DidResume {
					resumed++
				}
				if i%20 == 0 {
					nodes[sessionOf(t, c.Nodes[0], "resumes").Node]++
				}
				cl.Disconnect(0)
				cl.Close()
			}
			share := float64(resumed) / reconnects
			t.Logf("%d of %d reconnects resumed (%.1f%%), on nodes %v", resumed, reconnects, 100*share, nodes)
			if share < 0.95 {
				t.Errorf("%.1f%% of the reconnects resumed, want 95%%", 100*share)
			}
			if len(nodes) < 2 {
				t.Errorf("all connections were on %v", nodes)
			}
		})
	}
	t.Run("a certificate that was revoked in between", func(t *testing.T) {
		_, _, pair := c.certificate("second")
		c.addUser("second", "unused password of second")
		own := c.ClientTLS.Clone()
		own.Certificates = []tls.Certificate{pair}
		own.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		by := login{address: front, tls: own}
		for range 2 {
			by.must(t, clean("second")).Disconnect(0)
		}
		c.Nodes[0].CLI("cert", "revoke", fmt.Sprintf("%x", pair.Leaf.SerialNumber))
		for range 6 { // every node, with tickets and without
			if _, ack, err := by.connect(t, clean("second")); err == nil {
				t.Errorf("got in: %v", ack)
			}
		}
	})
}

// authorities is ca status -o json.
type authorities struct {
	Stage string `json:"stage"`
	CAs   []struct {
		Pin          string `json:"pin"`
		SignsNodes   bool   `json:"signs_nodes"`
		SignsClients bool   `json:"signs_clients"`
	} `json:"cas"`
	Nodes []struct {
		Node    string    `json:"node"`
		Error   string    `json:"error"`
		Trusted []string  `json:"trusted"`
		Signer  string    `json:"signer"`
		Until   time.Time `json:"not_after"`
		Holds   []string  `json:"holds"`
		Sealed  bool      `json:"sealed"`
	} `json:"nodes"`
	OldClients []struct {
		Subject string `json:"subject"`
	} `json:"old_clients"`
}

func (n *Node) authorities() (a authorities) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.CLI("ca", "status", "-o", "json")), &a); err != nil {
		n.t.Fatal(err)
	}
	return a
}

// bundle is what cert ca prints.
func (n *Node) bundle() (pool *x509.CertPool, certs []*x509.Certificate) {
	n.t.Helper()
	pool = x509.NewCertPool()
	for block, rest := pem.Decode([]byte(n.CLI("cert", "ca"))); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			n.t.Fatal(err)
		}
		pool.AddCert(cert)
		certs = append(certs, cert)
	}
	return pool, certs
}

// TestCARotation replaces the cluster's CA under load, with keys that are sealed on
// every voter and in no log: old and new are trusted for a time, and then the old one
// and all of its making is not.
func TestCARotation(t *testing.T) {
	t.Parallel()
	passFile := filepath.Join(t.TempDir(), "ca.pass")
	if err := os.WriteFile(passFile, []byte("a passphrase of this test alone\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newListening(t, 3, func(n *Node) []string {
		return []string{"--listener", "tls,address=" + n.TLS, "--listener", "tls,require_client_cert=true,identity=cn,address=" + n.Plain, "--ca.pass-file", passFile}
	})
	n := c.Nodes[1]
	awaitStage := func(stage string, keys int) authorities {
		t.Helper()
		var a authorities
		await(t, patience, func() bool {
			a = n.authorities()
			ok := a.Stage == stage
			for _, one := range a.Nodes {
				ok = ok && one.Error == "" && len(one.Holds) == keys && one.Sealed
			}
			return ok
		}, func() string { return fmt.Sprintf("the CAs are not %s with %d sealed keys each: %+v", stage, keys, a) })
		return a
	}
	first := awaitStage("settled", 1)
	oldPool, _ := n.bundle()
	certFile, _, oldPair := c.certificate(user)
	by := func(pool *x509.CertPool, pair tls.Certificate, n *Node) login {
		return login{address: n.Plain, tls: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	}
	load := c.startPair(t, c.Nodes[0], c.Nodes[2], 200)
	connected := by(oldPool, oldPair, c.Nodes[2]).must(t, clean("old"))

	n.CLI("ca", "rotate")
	both := awaitStage("overlap", 2)
	if len(both.CAs) != 2 || !both.CAs[0].SignsNodes || both.CAs[0].SignsClients || !both.CAs[1].SignsClients {
		t.Errorf("in the overlap: %+v", both.CAs)
	}
	if out := n.CLI("ca", "rotate"); !strings.Contains(out, "under way already") {
		t.Errorf("ca rotate again: %s", out)
	}
	bothPool, certs := n.bundle()
	if len(certs) != 2 {
		t.Errorf("cert ca prints %d certificates", len(certs))
	}
	for _, node := range c.Nodes {
		// Clients that know nothing of it go on, and old and new certificates work.
		by(oldPool, oldPair, node).must(t, clean("by-old"))
	}
	if _, err := n.TryCLI("", "ca", "retire"); err == nil || !strings.Contains(err.Error(), "client certificates of the CA that is to go") {
		t.Errorf("ca retire while a client has a certificate of the old CA only: %v", err)
	}
	newDir := c.files("new")
	n.CLI("cert", "issue", user, "--dir", newDir)
	_, _, newPair := c.loadCertificate(filepath.Join(newDir, user+".pem"), filepath.Join(newDir, user+".key"))
	if newPair.Leaf.CheckSignatureFrom(certs[1]) != nil {
		t.Error("a client certificate of the overlap is not of the new CA")
	}
	for _, node := range c.Nodes {
		by(oldPool, newPair, node).must(t, clean("by-new"))
	}
	out := n.CLI("cert", "renew", user, "--dir", filepath.Dir(certFile), "--revoke-old")
	if _, err := connected.AwaitClose(3 * time.Second); err != nil {
		t.Errorf("the client of a certificate that was revoked is still there: %v", err)
	}
	_, _, renewed := c.loadCertificate(certFile, strings.TrimSuffix(certFile, ".pem")+".key")
	if renewed.Leaf.CheckSignatureFrom(certs[1]) != nil || renewed.Leaf.Equal(oldPair.Leaf) {
		t.Errorf("cert renew did not take the new CA: %s", out)
	}
	if out := n.CLI("cert", "renew", user, "--dir", filepath.Dir(certFile)); !strings.Contains(out, "not due yet") {
		t.Errorf("cert renew again: %s", out)
	}
	stay := by(bothPool, renewed, c.Nodes[0]).must(t, clean("stays"))

	start := time.Now()
	n.CLI("ca", "retire")
	t.Logf("ca retire took %v", time.Since(start).Round(time.Millisecond))
	after := awaitStage("settled", 1)
	if len(after.CAs) != 1 || after.CAs[0].Pin == first.CAs[0].Pin {
		t.Errorf("afterwards: %+v, before %+v", after.CAs, first.CAs)
	}
	newPool, certs := n.bundle()
	for _, node := range c.Nodes {
		if leaf := served(t, node.TLS, nil); leaf.CheckSignatureFrom(certs[0]) != nil {
			t.Errorf("node %s serves a certificate of the old CA", node.ID)
		}
		by(newPool, renewed, node).must(t, clean("by-new"))
		for name, l := range map[string]login{"the old certificate": by(newPool, oldPair, node), "the old CA": by(oldPool, renewed, node)} {
			if _, ack, err := l.connect(t, clean("too-old")); err == nil {
				t.Errorf("%s works at node %s: %v", name, node.ID, ack)
			}
		}
	}
	if err := stay.Ping(); err != nil {
		t.Errorf("a client with a certificate of the new CA lost its connection: %v", err)
	}
	load.finish(500)

	// What is on disk is whole: all come back, and another one joins.
	for _, node := range c.Nodes {
		node.Stop()
	}
	for _, node := range c.Nodes {
		node.Start()
	}
	c.WaitWhole()
	c.trust()
	token := strings.TrimSpace(n.CLI("token", "create", "--quiet"))
	fourth := c.add()
	if _, err := command("", append([]string{"join", c.Nodes[0].Advertise, "--token", token}, fourth.bare("--listener", "tls,address="+fourth.TLS)...)...); err != nil {
		t.Fatal(err)
	}
	fourth.Start()
	fourth.WaitReady(patience)
	c.keysOutsideTheLog(passFile)
}

// keysOutsideTheLog opens the CA's key, and looks for it in everything else that the
// nodes have on disk.
func (c *Cluster) keysOutsideTheLog(passFile string) {
	c.t.Helper()
	file := c.Nodes[0].path("ca", "ca.key")
	der, err := exec.Command("openssl", "pkey", "-in", file, "-passin", "file:"+passFile, "-outform", "DER").Output()
	if err != nil {
		c.t.Fatalf("openssl does not open %s: %v", file, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if parsed, err = x509.ParseECPrivateKey(der); err != nil {
			c.t.Fatal(err)
		}
	}
	scalar, err := parsed.(interface{ Bytes() ([]byte, error) }).Bytes()
	if err != nil {
		c.t.Fatal(err)
	}
	files := 0
	for _, n := range c.Nodes {
		err := filepath.WalkDir(n.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			if bytes.Contains(text, scalar) {
				c.t.Errorf("%s holds the CA's key in clear text", path)
			}
			return nil
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Logf("the CA's key is in clear text in none of %d files", files)
}

// TestLeaveCompromised takes a voter out that somebody else may have: it is out at
// once, up or not, and the CA whose key it held is being replaced.
func TestLeaveCompromised(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	victim := c.Leader() // the worst one
	rest := c.Followers()
	pair := c.startPair(t, rest[0], rest[1], 100)
	kept := c.files("stolen")
	if err := os.CopyFS(kept, os.DirFS(victim.path("tls"))); err != nil {
		t.Fatal(err)
	}
	out := rest[0].CLI("leave", victim.ID, "--compromised")
	if !strings.Contains(out, "ca retire") {
		t.Errorf("it does not say what to do next: %s", out)
	}
	victim.WaitReadyz(http.StatusServiceUnavailable, patience) // nobody has to tell it
	var a authorities
	await(t, patience, func() bool {
		a = rest[1].authorities()
		ok := a.Stage == "overlap" && len(a.Nodes) == 2
		for _, n := range a.Nodes {
			ok = ok && len(n.Trusted) == 2
		}
		return ok
	}, func() string { return fmt.Sprintf("no rotation is under way: %+v", a) })
	// What was stolen opens the mesh no more.
	_, _, stolen := c.loadCertificate(filepath.Join(kept, "node.crt"), filepath.Join(kept, "node.key"))
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mqc-control/1"}, Certificates: []tls.Certificate{stolen}}
	if said := knock(t, rest[0].Mesh, config, []byte("POST /v1/ca HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")); len(said) > 0 {
		t.Errorf("the mesh answers the certificate that was stolen: %q", said)
	}
	rest[0].CLI("ca", "retire")
	if a := rest[0].authorities(); a.Stage != "settled" {
		t.Errorf("after ca retire: %+v", a)
	}
	pair.finish(200)
}

// TestListenerTLSIsModern looks at a listener as a scan of it would: nothing below TLS
// 1.2, no suite without forward secrecy and authenticated encryption, no compression,
// no renegotiation.
func TestListenerTLSIsModern(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 1})
	n := c.Nodes[0]
	try := func(config *tls.Config) (tls.ConnectionState, error) {
		config.RootCAs = c.ClientTLS.RootCAs
		conn, err := tls.Dial("tcp", n.TLS, config)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if _, err := try(&tls.Config{MinVersion: version, MaxVersion: version}); err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	good := 0
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		state, err := try(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{s.ID}})
		if err == nil && state.CipherSuite != s.ID {
			t.Errorf("%s was offered and %s chosen", s.Name, tls.CipherSuiteName(state.CipherSuite))
		}
		strong := !s.Insecure && strings.HasPrefix(s.Name, "TLS_ECDHE_ECDSA_") && (strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "CHACHA20"))
		if strong != (err == nil) {
			t.Errorf("%s: %v", s.Name, err)
		}
		if err == nil {
			good++
		}
	}
	t.Logf("%d cipher suites of TLS 1.2 are accepted", good)
	for _, curve := range []tls.CurveID{tls.X25519, tls.CurveP256, tls.X25519MLKEM768} {
		if state, err := try(&tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{curve}}); err != nil || state.CurveID != curve {
			t.Errorf("%v: %v %v", curve, state.CurveID, err)
		}
	}
	t.Run("renegotiation", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", n.TLS, "-tls1_2")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said lockedBuffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, patience, func() bool { return strings.Contains(said.String(), "Verify return code") }, said.String)
		if !strings.Contains(said.String(), "Compression: NONE") {
			t.Error("the connection is compressed")
		}
		if _, err := in.Write([]byte("R\n")); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("openssl renegotiated")
		}
		if text := said.String(); !strings.Contains(text, "RENEGOTIATING") || !strings.Contains(text, "alert") {
			t.Errorf("the server did not refuse to renegotiate:\n%s", text)
		}
	})
}

// TestChangesAreEverywhere changes who may do what while one node is cut off: who is
// connected to the others is cut when the command returns, and the command names the
// node that has not got it. When that is back, its clients are cut too.
func TestChangesAreEverywhere(t *testing.T) {
	c := NewCluster(t, Options{Proxy: true})
	const secret = "a password that is changed"
	for _, tt := range []struct {
		name   string
		stdin  string
		change func(who string) []string
		denies bool // it constrains, and cuts nobody
	}{
		{"user disabled", "", func(who string) []string { return []string{"user", "disable", who} }, false},
		{"password changed", "another password\n", func(who string) []string { return []string{"user", "passwd", who, "--stdin"} }, false},
		{"ACL changed", "", func(who string) []string { return []string{"acl", "set", "user:" + who, "deny both #"} }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			who := strings.ReplaceAll(tt.name, " ", "-")
			c.addUser(who, secret)
			leader := c.Leader()
			var others []*Node
			for _, n := range c.Nodes {
				if n != leader {
					others = append(others, n)
				}
			}
			cut, at := others[0], others[1]
			clients := map[*Node]*Client{}
			for _, n := range c.Nodes {
				clients[n] = login{n.TLS, c.ClientTLS, who, secret}.must(t, clean(who+"-"+n.ID))
				clients[n].Sub(rawmqtt.Sub("everywhere/"+who, 1))
			}
			c.Net.Isolate(cut)
			start := time.Now()
			_, err := at.TryCLI(tt.stdin, tt.change(who)...)
			took := time.Since(start)
			if err == nil || !strings.Contains(err.Error(), "not applied yet on "+cut.ID) {
				t.Errorf("the command does not name %s: %v", cut.ID, err)
			}
			constrained := func(n *Node) {
				t.Helper()
				if !tt.denies {
					if _, err := clients[n].AwaitClose(time.Second); err != nil {
						t.Errorf("the client on %s is still connected: %v", n.ID, err)
					}
					return
				}
				w := login{leader.TLS, c.ClientTLS, user, password}.must(t, clean("writer-"+who))
				w.Pub("everywhere/"+who, 1, false, "not for you")
				clients[n].Quiet(300 * time.Millisecond)
			}
			constrained(leader)
			constrained(at)
			c.Net.Heal()
			cut.WaitReady(patience)
			c.WaitWhole()
			if tt.denies {
				// A client that was sent away while the node was cut off is constrained too.
				if clients[cut].Ping() == nil {
					constrained(cut)
				}
			} else if _, err := clients[cut].AwaitClose(patience); err != nil {
				t.Errorf("the client on the node that was cut off is still connected: %v", err)
			}
			// With all there, the command returns when all have it, and says nothing.
			start = time.Now()
			if _, err := at.TryCLI("", "acl", "set", "user:"+who, "allow both none/#"); err != nil {
				t.Errorf("with all nodes there: %v", err)
			}
			t.Logf("%s: %v with a node cut off; a change with all there %v", tt.name, took.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
		})
	}
	t.Run("certificate revoked while a node hangs", func(t *testing.T) {
		c.In(t)
		at := c.Leader()
		hung := c.Nodes[0]
		if hung == at {
			hung = c.Nodes[1]
		}
		_, _, pair := c.certificate("hung")
		config := c.ClientTLS.Clone()
		config.Certificates = []tls.Certificate{pair}
		hung.Pause()
		_, err := at.TryCLI("", "cert", "revoke", fmt.Sprintf("%x", pair.Leaf.SerialNumber))
		hung.Resume()
		if err == nil || !strings.Contains(err.Error(), hung.ID) {
			t.Errorf("the command does not name %s: %v", hung.ID, err)
		}
		c.WaitWhole()
	})
}
