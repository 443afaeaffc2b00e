package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// perBalancer is how many clients one HAProxy serves: it needs two files for each,
// and while a third of them reconnects some more.
const perBalancer = 6000

// haproxyConfig is what README.md shows, with PROXY headers, and with redispatch: a
// client that is sent to a node that was killed a moment ago, before the check has
// seen it, goes to another one.
const haproxyConfig = `global
  maxconn 9500

defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  retries 3
  option redispatch 1

frontend mqtt
  bind %s backlog 4096
  rate-limit sessions 130
  default_backend nodes

backend nodes
  balance leastconn
  option httpchk GET /readyz
  default-server check inter 1s fall 2 rise 2 on-marked-down shutdown-sessions send-proxy-v2
%s`

// balancers are HAProxy processes, each before all nodes.
type balancers struct {
	addresses []string
	processes []*process
}

func findHAProxy() (string, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/haproxy")
	}
	if err != nil {
		return "", fmt.Errorf("haproxy is not installed (apt-get install haproxy): %w", err)
	}
	return path, nil
}

// startBalancers starts as many as the clients need.
func startBalancers(ctx context.Context, c *cluster, clients int, free *freeAddresses) (*balancers, error) {
	b := &balancers{}
	path, err := findHAProxy()
	if err != nil {
		return b, err
	}
	var servers strings.Builder
	for _, n := range c.nodes {
		_, port, err := net.SplitHostPort(n.health)
		if err != nil {
			return b, err
		}
		fmt.Fprintf(&servers, "  server %s %s port %s\n", n.name, n.clients, port)
	}
	for i := range (clients + perBalancer - 1) / perBalancer {
		address, err := free.address()
		if err != nil {
			return b, err
		}
		name := filepath.Join(c.dir, fmt.Sprintf("balancer%d", i+1))
		if err := os.WriteFile(name+".cfg", fmt.Appendf(nil, haproxyConfig, address, servers.String()), 0o600); err != nil {
			return b, err
		}
		p, err := spawn("haproxy", name+".log", path, "-db", "-f", name+".cfg")
		if err != nil {
			return b, err
		}
		b.processes, b.addresses = append(b.processes, p), append(b.addresses, address)
		err = await(ctx, 10*time.Second, "haproxy listens", func() (bool, error) {
			if err := p.ended(); err != nil {
				return false, err
			}
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false, nil
			}
			return true, conn.Close()
		})
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b *balancers) close() {
	for _, p := range b.processes {
		p.kill() // it has nothing to finish
	}
}
