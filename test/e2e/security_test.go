//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestStrangers has everybody who must not get in try the mesh port and, with
// what belongs to the mesh, the client port, while a publisher and a subscriber
// work. TestJoinRules has the tokens and the other CA.
func TestStrangers(t *testing.T) {
	t.Parallel()
	// Where others listen without TLS is the listener that takes users from
	// certificates.
	c := newListening(t, 3, func(n *Node) []string {
		return []string{"--listener", "tls,address=" + n.TLS, "--listener", "tls,require_client_cert=true,identity=cn,address=" + n.Plain}
	})
	pair := c.startPair(t, c.Nodes[0], c.Nodes[1], 200)
	other := NewCluster(t, Options{Nodes: 1})
	_, _, client := c.certificate("device")
	_, _, foreign := other.certificate("device")
	_, _, node := c.loadCertificate(c.Nodes[1].path("tls", "node.crt"), c.Nodes[1].path("tls", "node.key"))
	_, _, foreignNode := other.loadCertificate(other.Nodes[0].path("tls", "node.crt"), other.Nodes[0].path("tls", "node.key"))
	mesh := c.Nodes[0].Mesh

	for name, cert := range map[string]*tls.Certificate{
		"a client's certificate": &client, "another cluster's client": &foreign, "another cluster's node": &foreignNode, "no certificate": nil,
	} {
		for _, proto := range []string{"mqc-raft/1", "mqc-gossip/1", "mqc-forward/1", "mqc-control/1", "mqc-pack/1", "", "h2"} {
			t.Run("mesh port with "+name+" for "+proto, func(t *testing.T) {
				before := refusals(c.Nodes[0])
				config := &tls.Config{InsecureSkipVerify: true}
				if proto != "" {
					config.NextProtos = []string{proto}
				}
				if cert != nil {
					config.Certificates = []tls.Certificate{*cert}
				}
				if said := knock(t, mesh, config, []byte("POST /v1/ca HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")); len(said) > 0 {
					t.Errorf("it was answered: %q", said)
				}
				await(t, patience, func() bool { return refusals(c.Nodes[0]) > before }, func() string { return "the refusal is not counted" })
			})
		}
	}
	t.Run("join port for more than a join", func(t *testing.T) {
		for _, path := range []string{"/v1/ca", "/v1/node", "/v1/issue", "/v1/leave", "/v1/remember", "/v1/recall", "/metrics", "/v1/users"} {
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mqc-join/1"}}
			said := knock(t, mesh, config, fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", path))
			if line, _, _ := strings.Cut(string(said), "\r\n"); !strings.Contains(line, " 404 ") {
				t.Errorf("%s of the join protocol answers %q", path, line)
			}
		}
	})
	for name, text := range map[string][]byte{
		"MQTT":    rawmqtt.Connect{Version: 5, ClientID: "stray", CleanStart: true}.Packet(),
		"HTTP":    []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"garbage": []byte(strings.Repeat("\x00\xff\x16\x03\x01", 3000)),
		"nothing": nil,
	} {
		t.Run("mesh port with plain "+name, func(t *testing.T) {
			conn, err := net.Dial("tcp", mesh)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write(text) // it may be closed already
			said, after := silent(t, conn, 11*time.Second)
			if len(said) > 7 { // a TLS alert is allowed
				t.Errorf("it was answered: %q", said)
			}
			t.Logf("closed after %v", after.Round(time.Millisecond))
		})
	}
	t.Run("client port with a node's certificate", func(t *testing.T) {
		for _, cert := range []tls.Certificate{node, foreignNode, foreign} {
			config := c.ClientTLS.Clone()
			config.Certificates = []tls.Certificate{cert}
			_, ack, err := login{address: c.Nodes[0].Plain, tls: config}.connect(t, clean("as-node"))
			if err == nil && ack.Reason < 0x80 {
				t.Errorf("the certificate of %v was taken for a user", cert.Leaf.Subject)
			}
			t.Logf("refused: %v %v", ack, err)
		}
		config := c.ClientTLS.Clone()
		config.Certificates = []tls.Certificate{client}
		login{address: c.Nodes[0].Plain, tls: config}.must(t, clean("as-client"))
	})
	t.Run("a token that has expired", func(t *testing.T) {
		token := strings.TrimSpace(c.Nodes[1].CLI("token", "create", "--quiet", "--ttl", "1s"))
		<-time.After(2500 * time.Millisecond) // the log's clock stamps entries, and there are some all the time
		err := c.Join(c.outsider("late"), token)
		if err == nil {
			t.Fatal("a node got in with a token that had expired")
		}
		t.Logf("refused: %v", err)
	})
	s, err := c.Nodes[0].Status()
	if err != nil || len(s.Members) != 3 {
		t.Errorf("the cluster afterwards: %+v %v", s, err)
	}
	if n := c.Nodes[0].Metric("mqcluster_mesh_panics_total"); n != 0 {
		t.Errorf("%v panics in the mesh", n)
	}
	await(t, 15*time.Second, func() bool { return c.Nodes[0].Metric("mqcluster_mesh_unauthenticated") == 0 },
		func() string { return "connections that nobody authenticated are left at the mesh port" })
	pair.finish(1000)
}

// refusals is how many incoming handshakes the mesh port has refused.
func refusals(n *Node) float64 {
	return n.Metric(`mqcluster_mesh_handshakes_total{direction="in",result="refused"}`)
}

// knock shakes hands, says text and returns what was answered until the other
// side closed.
func knock(t *testing.T, address string, config *tls.Config, text []byte) []byte {
	t.Helper()
	raw, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return nil
	}
	// In TLS 1.3 the client is done before the server has looked at its
	// certificate.
	_, _ = conn.Write(text)
	said, _ := silent(t, conn, 11*time.Second)
	return said
}

// TestRestartedNodeRemembers has a node that was restarted know the passwords that
// its peers have verified: a login does not cost a hash there, which is made to take
// long.
func TestRestartedNodeRemembers(t *testing.T) {
	c := NewCluster(t, Options{Flags: []string{"--auth.argon2-time", "16", "--auth.argon2-memory", "64MiB"}})
	victim := c.Nodes[0] // the first one has nobody's address but from its log
	var other *Node
	for _, n := range c.Nodes {
		if n != victim {
			other = n
		}
	}
	// The hash of a password that is wrong is computed always.
	start := time.Now()
	if _, ack, err := (login{other.TLS, c.ClientTLS, user, "wrong"}).connect(t, clean("wrong")); err == nil && ack.Reason == 0 {
		t.Fatal("a wrong password was accepted")
	}
	hash := time.Since(start)
	other.Connect(clean("first"))
	victim.Kill()
	victim.Restart()
	c.WaitWhole()
	start = time.Now()
	victim.Connect(clean("second"))
	took := time.Since(start)
	t.Logf("a hash takes %v, the login at the restarted node took %v", hash.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > hash/2 {
		t.Errorf("the login at the restarted node took %v, as a hash of %v does: what its peers know was not asked for", took, hash)
	}
}
