//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// need skips a test whose program is not installed; in CI that is a failure.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v: install it", err)
			}
			t.Skipf("%v", err)
		}
	}
}

// newListening starts a cluster as NewCluster does, whose nodes have the flags
// that flags returns in place of the usual listeners.
func newListening(t *testing.T, nodes int, flags func(n *Node) []string) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, dir: dir}
	t.Cleanup(c.close)
	for i := range nodes {
		n := c.add()
		verb := []string{"init"}
		if i > 0 {
			verb = []string{"join", c.Nodes[0].Advertise, "--token", c.Token}
		}
		out, err := command("", append(verb, n.bare(flags(n)...)...)...)
		if err != nil {
			t.Fatal(err)
		}
		n.Start()
		if i == 0 {
			c.Token = regexp.MustCompile(`MQ1\.\S+`).FindString(out)
			n.WaitReady(patience)
		}
	}
	c.WaitWhole()
	c.prepare()
	return c
}

// bare are the flags of a node without its listeners, and those given.
func (n *Node) bare(more ...string) []string {
	return append([]string{"--data-dir", n.Dir, "--node", n.ID, "--mesh.listen", n.Mesh, "--mesh.advertise", n.Advertise,
		"--health.listen", n.Health}, more...)
}

// files is a directory of the cluster for what a test writes.
func (c *Cluster) files(name string) string {
	c.t.Helper()
	dir := filepath.Join(c.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	return dir
}

// certificate issues a client certificate and returns its files and itself.
func (c *Cluster) certificate(name string) (certFile, keyFile string, pair tls.Certificate) {
	c.t.Helper()
	dir := c.files("certs")
	c.Running()[0].CLI("cert", "issue", name, "--dir", dir)
	return c.loadCertificate(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
}

func (c *Cluster) loadCertificate(certFile, keyFile string) (string, string, tls.Certificate) {
	c.t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		c.t.Fatal(err)
	}
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		c.t.Fatal(err)
	}
	return certFile, keyFile, pair
}

// addUser adds a user with a password.
func (c *Cluster) addUser(name, secret string) {
	c.t.Helper()
	if _, err := c.Running()[0].TryCLI(secret+"\n", "user", "add", name, "--stdin"); err != nil {
		c.t.Fatalf("user add %s: %v", name, err)
	}
}

// login is a way to connect: where, by what, as whom.
type login struct {
	address    string
	tls        *tls.Config
	user, pass string // no user name if empty
}

// connect opens a connection and sends CONNECT; the CONNACK may refuse.
func (l login) connect(t *testing.T, o rawmqtt.Connect) (*Client, *rawmqtt.Packet, error) {
	t.Helper()
	if o.Version == 0 {
		o.Version = 5
	}
	raw, err := rawmqtt.Dial(t.Context(), l.address, l.tls, o.Version)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { raw.Close() })
	raw.AutoAck = true
	if l.user != "" {
		o.Username, o.Password = &l.user, &l.pass
	}
	if l.pass == "" {
		o.Password = nil
	}
	ack, err := raw.Connect(o)
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	return &Client{Client: raw, Present: ack.SessionPresent, t: t}, ack, nil
}

// must connects and fails unless the CONNACK accepts.
func (l login) must(t *testing.T, o rawmqtt.Connect) *Client {
	t.Helper()
	c, ack, err := l.connect(t, o)
	if err != nil || ack.Reason != 0 {
		t.Fatalf("%s as %q at %s: %v %v", o.ClientID, l.user, l.address, ack, err)
	}
	return c
}

// pair is a publisher and a subscriber that go on while something else happens,
// to show that it disturbs nobody.
type pair struct {
	*Run
	pub *history.Publisher
	sub *history.Subscriber
}

// startPair starts them, at QoS 1 and rate messages a second.
func (c *Cluster) startPair(t *testing.T, pub, sub *Node, rate float64) *pair {
	t.Helper()
	run := c.Record(t)
	topic := "pair/" + strings.ReplaceAll(t.Name(), "/", "-")
	p := &pair{Run: run}
	p.sub = run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(sub), Name: topic + "-sub", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub(topic, 1)}})
	p.pub = run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(pub), Name: topic + "-pub", Expiry: 3600, QoS: 1,
		Topics: []string{topic}, Rate: rate, Window: 200, Size: 64})
	awaitAcked(t, p.pub, 1, patience)
	return p
}

// finish ends them: at least that many messages were acknowledged, all arrived,
// and neither lost its connection.
func (p *pair) finish(atLeast int) {
	p.t.Helper()
	awaitAcked(p.t, p.pub, atLeast, patience)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.pub.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	p.Finish(p.sub)
	p.Judge(history.Options{MinAcked: atLeast, MinOwed: atLeast})
	for _, e := range p.Events() {
		if e.Kind == history.Lost {
			p.t.Errorf("%s lost its connection after %v: %s", e.History, e.At, e.Note)
		}
	}
}

// silent fails unless whoever is at the other end closes within limit, and
// returns what it said before, and when.
func silent(t *testing.T, conn net.Conn, limit time.Duration) (said []byte, after time.Duration) {
	t.Helper()
	start := time.Now()
	if err := conn.SetReadDeadline(start.Add(limit)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		said = append(said, buf[:n]...)
		if err == nil {
			continue
		}
		if after = time.Since(start); after >= limit {
			t.Errorf("the connection is still open after %v, having said %q", after, said)
		}
		return said, after
	}
}

// shell runs a program of the system and returns what it printed.
func shell(t *testing.T, limit time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// httpClient is one for https with the cluster's CA.
func httpClient(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: patience}
}
