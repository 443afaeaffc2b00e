//go:build linux

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The user that every cluster has; it may do everything.
const (
	user     = "device"
	password = "correct horse battery staple"
)

// Options are how a Cluster differs from the usual one.
type Options struct {
	// Nodes is how many there are; 0 means 3.
	Nodes int
	// Proxy puts a proxy of the test before each mesh port, so that links can be
	// cut.
	Proxy bool
	// Flags are further flags of every node, given to init and join.
	Flags []string
	// Disks gives every node a small file system of its own (root only); Wall a
	// wall clock of its own (withShiftedClock only).
	Disks, Wall bool
}

// Cluster is a number of nodes that joined each other.
type Cluster struct {
	Nodes []*Node
	// Token is the one that init printed.
	Token string
	// ClientTLS trusts the cluster's CA.
	ClientTLS *tls.Config
	// Net cuts links between the nodes; nil without Options.Proxy.
	Net *network

	t       *testing.T
	dir     string
	options Options
	env     []string
	unmount func() error // of Options.Disks
}

// NewCluster starts a cluster and returns when every node is ready and votes.
// Everything ends with the test.
func NewCluster(t *testing.T, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	// Not t.TempDir: the path of a Unix socket has to be short.
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, dir: dir, options: o}
	if o.Proxy {
		c.Net = newNetwork(t) // ends after the nodes, whose last words it would be else
	}
	t.Cleanup(c.close)
	if o.Disks {
		c.janitor()
	}
	start := time.Now()
	first := c.add()
	out, err := command("", append([]string{"init"}, first.flags(o.Flags)...)...)
	if err != nil {
		t.Fatalf("init: %v", err)
	}
	if c.Token = regexp.MustCompile(`MQ1\.\S+`).FindString(out); c.Token == "" {
		t.Fatalf("init printed no token:\n%s", out)
	}
	first.Start()
	first.WaitReady(patience)
	for range o.Nodes - 1 {
		n := c.add()
		if err := c.Join(n, c.Token); err != nil {
			t.Fatal(err)
		}
		n.Start()
	}
	c.WaitWhole()
	c.prepare()
	t.Logf("%d nodes are up after %v", o.Nodes, time.Since(start).Round(time.Millisecond))
	return c
}

// prepare makes the user and the clients' TLS configuration.
func (c *Cluster) prepare() {
	c.t.Helper()
	first := c.Nodes[0]
	if _, err := first.TryCLI(password+"\n", "user", "add", user, "--stdin"); err != nil {
		c.t.Fatalf("user add: %v", err)
	}
	first.CLI("acl", "set", "*", "allow both #")
	c.trust()
}

// trust makes the clients' TLS configuration, with the cluster's CA.
func (c *Cluster) trust() {
	c.t.Helper()
	pem, err := os.ReadFile(c.Nodes[0].path("tls", "ca.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		c.t.Fatal("tls/ca.crt has no certificate")
	}
	c.ClientTLS = &tls.Config{RootCAs: pool}
}

// add makes a Node without a process.
func (c *Cluster) add() *Node {
	c.t.Helper()
	id := fmt.Sprintf("n%d", len(c.Nodes)+1)
	n := &Node{ID: id, Dir: filepath.Join(c.dir, id), t: c.t, cluster: c, log: filepath.Join(c.dir, id+".log"),
		TLS: freeAddress(c.t), Plain: freeAddress(c.t), Mesh: freeAddress(c.t), Health: freeAddress(c.t)}
	if c.options.Disks {
		c.newDisk(n)
	}
	if c.options.Wall {
		n.wall = filepath.Join(c.dir, id+".wall")
		if err := os.WriteFile(n.wall, make([]byte, 8), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	n.Advertise = n.Mesh
	if c.Net != nil {
		n.Advertise = c.Net.before(n)
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

// Join runs join for a node at the first other node that runs.
func (c *Cluster) Join(n *Node, token string) error {
	c.t.Helper()
	for _, other := range c.Nodes {
		if other != n && other.Running() {
			_, err := command("", append([]string{"join", other.Advertise, "--token", token}, n.flags(c.options.Flags)...)...)
			return err
		}
	}
	c.t.Fatal("no node runs that could be joined")
	return nil
}

// In makes t, a subtest, the one that fails and logs until it ends.
func (c *Cluster) In(t *testing.T) {
	outer := c.t
	set := func(t *testing.T) {
		c.t = t
		for _, n := range c.Nodes {
			n.t = t
		}
	}
	set(t)
	t.Cleanup(func() { set(outer) })
}

// Running are the nodes whose process runs.
func (c *Cluster) Running() (up []*Node) {
	for _, n := range c.Nodes {
		if n.Running() && !n.paused {
			up = append(up, n)
		}
	}
	return up
}

// Node returns the one with the id.
func (c *Cluster) Node(id string) *Node {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	c.t.Fatalf("there is no node %q", id)
	return nil
}

// Leader waits until all that run name the same leader, and returns it.
func (c *Cluster) Leader() *Node {
	c.t.Helper()
	var leader string
	var last []string
	await(c.t, patience, func() bool {
		leader, last = "", nil
		same := true
		for _, n := range c.Running() {
			s, err := n.Status()
			last = append(last, fmt.Sprintf("%s: %q %v", n.ID, s.Leader, err))
			same = same && err == nil && s.Leader != "" && (leader == "" || s.Leader == leader)
			leader = s.Leader
		}
		return same && leader != "" && c.Node(leader).Running()
	}, func() string { return "the nodes name no common leader: " + strings.Join(last, "; ") })
	return c.Node(leader)
}

// Followers are the running nodes but the leader.
func (c *Cluster) Followers() (out []*Node) {
	c.t.Helper()
	leader := c.Leader()
	for _, n := range c.Running() {
		if n != leader {
			out = append(out, n)
		}
	}
	return out
}

// WaitWhole waits until every node that runs is ready, all agree on the leader
// and as many vote as should.
func (c *Cluster) WaitWhole() time.Duration {
	c.t.Helper()
	start := time.Now()
	for _, n := range c.Running() {
		n.WaitReady(patience)
	}
	var last string
	await(c.t, patience, func() bool {
		voting := 0
		s, err := c.Leader().Status()
		for _, m := range s.Members {
			if m.Votes() && m.Up {
				voting++
			}
		}
		last = fmt.Sprintf("%d voters of %+v %v", voting, s, err)
		want := len(c.Running())
		if want%2 == 0 {
			want-- // an even one is promoted with the next, or stays after a leave
		}
		return err == nil && voting >= want
	}, func() string { return "the cluster is not whole: " + last })
	return time.Since(start)
}

// Addresses are those of the nodes' TLS listeners, the given nodes first.
func (c *Cluster) Addresses(first ...*Node) (out []string) {
	seen := map[*Node]bool{}
	for _, n := range append(first, c.Nodes...) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n.TLS)
		}
	}
	return out
}

// close ends every process; after a failure it prints the logs, and a panic in
// one is a failure itself.
func (c *Cluster) close() {
	for _, n := range c.Nodes {
		if n.Disk != nil {
			n.Disk.Thaw() // a process whose write hangs cannot end
		}
		n.end()
	}
	if c.unmount != nil {
		if err := c.unmount(); err != nil {
			c.t.Errorf("unmount the disks: %v", err)
		}
	}
	for _, n := range c.Nodes {
		text := n.Log()
		for _, bad := range []string{"panic:", "fatal error:", "DATA RACE", "a panic ended"} {
			if i := strings.Index(text, bad); i >= 0 {
				c.t.Errorf("the log of node %s has %q:\n%s", n.ID, bad, text[i:min(len(text), i+4000)])
				break
			}
		}
	}
	if c.t.Failed() {
		for _, n := range c.Nodes {
			c.t.Logf("the last lines of node %s:\n%s", n.ID, n.tail(30))
		}
		if os.Getenv("E2E_KEEP") != "" {
			c.t.Logf("kept: %s", c.dir)
			return
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.t.Error(err)
	}
}

// freeAddress returns an address of 127.0.0.1 that nobody listens at, and that is
// the test's until it ends: tests run beside each other, and the port of a node
// that has not started yet, or was killed, is free. An abstract Unix socket of the
// port's name says so to other processes too. The port is below those that the
// kernel gives to outgoing connections.
func freeAddress(t *testing.T) string {
	t.Helper()
	l := freeListener(t)
	defer l.Close()
	return l.Addr().String()
}

// freeListener is freeAddress for a test that listens itself: closing a listener and
// opening another one at once fails where a process is being started meanwhile, which
// holds the first until it has become another program.
func freeListener(t *testing.T) net.Listener {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(22000)
		taken, err := net.Listen("unix", fmt.Sprintf("@mqcluster-test-port-%d", port))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			taken.Close()
			continue
		}
		t.Cleanup(func() { taken.Close() })
		return l
	}
	t.Fatal("no port is free")
	return nil
}
