package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mqcluster/mqcluster/bench"
)

// startCluster starts n nodes that anybody may use. Of several, publishers get
// the first and subscribers the last.
func (s *starter) startCluster(ctx context.Context, name, root string, n int) (bench.Target, error) {
	t := bench.Target{Name: name}
	var clients, secure, mutual []string
	var mesh, token string
	addrs, err := freeAddresses(5 * n)
	if err != nil {
		return t, err
	}
	for i := range n {
		node := fmt.Sprintf("%s-%c", name, 'a'+i)
		a := addrs[5*i : 5*i+5]
		dir := filepath.Join(root, node)
		verb := []string{"init"}
		if i > 0 {
			verb = []string{"join", mesh, "--token-file", token}
		}
		if _, err := s.command(ctx, append(verb, "--data-dir", dir, "--node", node, "--mesh.listen", a[0], "--mesh.advertise", a[0],
			"--health.listen", a[1], "--listener", "tcp,address="+a[2]+",allow_plaintext,allow_anonymous",
			"--listener", "tls,address="+a[3]+",allow_anonymous",
			"--listener", "tls,address="+a[4]+",allow_anonymous,require_client_cert,cert_file="+s.pki.cert+",key_file="+s.pki.key+",client_ca_file="+s.pki.ca,
			"--limits.retained-rate", "0", "--drain.delay", "0s")...); err != nil {
			return t, err
		}
		p, err := s.spawn(name, filepath.Join(root, node+".log"), s.mqcluster, "run", "--data-dir", dir)
		if err != nil {
			return t, err
		}
		if err := p.until(ctx, func(ctx context.Context) error { return ready(ctx, a[1]) }); err != nil {
			return t, err
		}
		if i == 0 {
			mesh, token = a[0], filepath.Join(root, "token")
			if err := s.open(ctx, dir, token, n); err != nil {
				return t, err
			}
			if t.TLS, err = clientTLS(dir); err != nil {
				return t, err
			}
		}
		clients, secure, mutual = append(clients, a[2]), append(secure, a[3]), append(mutual, a[4])
		t.Metrics = append(t.Metrics, a[1])
		s.last[name] = &clusterNode{name: node, target: name, dir: dir, health: a[1], proc: p}
		t.PIDs = append(t.PIDs, p.cmd.Process.Pid)
	}
	t.Addrs = clients
	t.PubAddrs, t.SubAddrs, t.TLSAddrs = clients[:1], clients[n-1:], secure
	t.MutualAddrs, t.Mutual = mutual, s.pki.client
	return t, nil
}

// clientTLS trusts the CA of a node's cluster.
func clientTLS(dir string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Join(dir, "tls", "ca.crt"))
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13} // a case may want an older one
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in ca.crt", dir)
	}
	return c, nil
}

// open lets everybody do everything and makes a token for the other nodes.
func (s *starter) open(ctx context.Context, dir, token string, n int) error {
	if _, err := s.command(ctx, "acl", "set", "*", "allow both #", "--data-dir", dir); err != nil {
		return err
	}
	if n == 1 {
		return nil
	}
	text, err := s.command(ctx, "token", "create", "--quiet", "--uses", fmt.Sprint(n-1), "--data-dir", dir)
	if err != nil {
		return err
	}
	return os.WriteFile(token, text, 0o600)
}

// command runs a verb to its end and returns what it printed.
func (s *starter) command(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.mqcluster, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("mqcluster %s: %s", args[0], strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("mqcluster %s: %w", args[0], err)
	}
	return out, nil
}

// ready asks a node whether it serves.
func ready(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", addr, resp.Status)
	}
	return nil
}
