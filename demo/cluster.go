package demo

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

// patience bounds every wait of the story; what takes longer has failed.
const patience = 30 * time.Second

// pollEvery is how often a wait looks again.
const pollEvery = 20 * time.Millisecond

// user is the one that all devices of the demo are.
const user = "dev"

// cluster is the nodes of the demo, and what clients need to use them.
type cluster struct {
	nodes    []*node
	dir      *workdir
	temp     string // for sockets whose path would be too long; empty: they are not
	password string
	tls      *tls.Config

	caFile, certFile, keyFile string
}

// newCluster chooses ports; nothing runs yet.
func newCluster(c config, dir *workdir) (*cluster, error) {
	out := &cluster{
		dir: dir, password: strings.ToLower(rand.Text()[:12]),
		caFile: dir.join("ca.pem"), certFile: dir.join(user + ".pem"), keyFile: dir.join(user + ".key"),
	}
	if len(dir.join("n1", socketFile)) > maxSocketPath {
		temp, err := os.MkdirTemp("", "mqcluster-demo-")
		if err != nil {
			return nil, fmt.Errorf("a directory for sockets cannot be made: %w", err)
		}
		out.temp = temp
	}
	for i := range c.nodes {
		n, err := newNode(fmt.Sprintf("n%d", i+1), dir, out.temp, c.program)
		if err != nil {
			out.Close()
			return nil, err
		}
		out.nodes = append(out.nodes, n)
	}
	return out, nil
}

// Close stops every process and returns when all are gone.
func (c *cluster) Close() error {
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(n.stop)
	}
	all.Wait()
	if c.temp == "" {
		return nil
	}
	if err := os.RemoveAll(c.temp); err != nil {
		return fmt.Errorf("the directory of sockets cannot be removed: %w", err)
	}
	return nil
}

// died returns an error if a node ended by itself.
func (c *cluster) died() error {
	for _, n := range c.nodes {
		if err := n.died(); err != nil {
			return err
		}
	}
	return nil
}

// found makes the first node and returns its join token.
func (c *cluster) found(ctx context.Context) (token string, err error) {
	first := c.nodes[0]
	args := append([]string{"init", "--cluster.name", "demo", "-o", "json"}, first.flags()...)
	text, err := verb(ctx, first.program, "", args...)
	if err != nil {
		return "", err
	}
	var result struct {
		JoinCommand string `json:"join_command"`
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		return "", fmt.Errorf("the outcome of init is not understood: %w", err)
	}
	if token = regexp.MustCompile(`MQ1\.[A-Za-z0-9_.-]+`).FindString(result.JoinCommand); token == "" {
		return "", errors.New("init printed no join token")
	}
	return token, first.start()
}

// join makes a node a member through the first one and starts it. The token
// goes through standard input, where no list of processes shows it.
func (c *cluster) join(ctx context.Context, n *node, token string) error {
	args := append([]string{"join", c.nodes[0].mesh, "--token", "-"}, n.flags()...)
	if _, err := verb(ctx, n.program, token+"\n", args...); err != nil {
		return err
	}
	return n.start()
}

// await looks until is holds, and fails after patience, when ctx ends or when a
// node ends by itself.
func (c *cluster) await(ctx context.Context, what string, is func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !is() {
		if err := c.died(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return fmt.Errorf("%s did not happen within %s: look into the logs %s", what, patience, shown(c.dir.join("n*.log")))
		case <-tick.C:
		}
	}
	return nil
}

// status asks any ready node, preferably the leader it names.
func (c *cluster) status(ctx context.Context) (admin.Status, error) {
	err := errors.New("no node is ready")
	for _, n := range c.nodes {
		if !n.ready.Load() {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		var s admin.Status
		s, err = n.admin.Status(limited)
		cancel()
		if err == nil {
			return s, nil
		}
	}
	return admin.Status{}, err
}

// voters is how many members of a status are up and vote.
func voters(s admin.Status) (count int) {
	for _, m := range s.Members {
		if m.Up && m.Votes() {
			count++
		}
	}
	return count
}

// prepare makes the user, its rules and its certificate.
func (c *cluster) prepare(ctx context.Context) error {
	first := c.nodes[0]
	if _, err := first.admin.AddUser(ctx, admin.UserAdd{Name: user, Password: []byte(c.password)}); err != nil {
		return fmt.Errorf("the user cannot be made: %w", err)
	}
	rules := []string{"allow both " + park + "#", "allow subscribe $SYS/#"}
	if _, err := first.admin.SetAcl(ctx, admin.Acl{Subject: "user:" + user, Rules: rules}); err != nil {
		return fmt.Errorf("the user's rules cannot be set: %w", err)
	}
	_, err := verb(ctx, first.program, "", append([]string{"cert", "issue", user, "--dir", c.dir.path}, c.remote(first)...)...)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("the client certificate cannot be read: %w", err)
	}
	ca, err := os.ReadFile(c.caFile)
	if err != nil {
		return fmt.Errorf("the cluster's CA cannot be read: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("file %s holds no certificate", c.caFile)
	}
	c.tls = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: "localhost"}
	return nil
}

// remote are the flags by which a verb finds a node.
func (c *cluster) remote(n *node) []string {
	if n.socket != "" {
		return []string{"--admin.socket", n.socket}
	}
	return []string{"--data-dir", n.dir}
}

// tryLines are commands for the user to try.
func (c *cluster) tryLines(endpoint string) []string {
	host, port, _ := net.SplitHostPort(endpoint) // validated
	at := "-h " + host
	if port != "8883" { // what mosquitto takes with TLS
		at += " -p " + port
	}
	common := fmt.Sprintf("%s --cafile %s --cert %s --key %s -u %s -P %s",
		at, typed(c.caFile), typed(c.certFile), typed(c.keyFile), user, c.password)
	n := c.nodes[len(c.nodes)-1]
	return []string{
		"mosquitto_sub " + common + " -v -t '" + park + "#'",
		"mosquitto_pub " + common + " -t " + park + "hello -m hello",
		typed(n.program) + " status " + c.remote(n)[0] + " " + typed(c.remote(n)[1]),
	}
}
