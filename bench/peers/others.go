package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mqcluster/mqcluster/bench"
)

// mosquittoConf has the limits off, so that nothing is dropped. It stays the user
// that started it, who may read the key.
const mosquittoConf = `user root
listener %s 127.0.0.1
listener %s 127.0.0.1
cafile %s
certfile %s
keyfile %s
require_certificate true
allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
persistence false
log_dest none
`

func (s *starter) startMosquitto(ctx context.Context, name, dir string) (bench.Target, error) {
	path, err := look(s.mosquitto, "mosquitto")
	if err != nil {
		return bench.Target{}, err
	}
	a, err := freeAddresses(2)
	if err != nil {
		return bench.Target{}, err
	}
	conf := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf(mosquittoConf, port(a[0]), port(a[1]), s.pki.ca, s.pki.cert, s.pki.key)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return bench.Target{}, err
	}
	t := bench.Target{Name: name, Addrs: a[:1], MutualAddrs: a[1:], Mutual: s.pki.client}
	return t, s.startOther(ctx, &t, dir, path, "-c", conf)
}

// natsConf lets a subscriber fall far behind and a publisher have as much under
// way as MQTT allows, so that nothing is dropped and nothing is sent twice. What is
// stored goes to files; when those are synced is left to nats-server.
const natsConf = `server_name: bench
host: 127.0.0.1
port: %s
max_connections: 20000
max_payload: 16MB
max_pending: 1GB
write_deadline: "60s"
jetstream { store_dir: "%s" }
mqtt { host: 127.0.0.1, port: %s, ack_wait: "1h", max_ack_pending: 65535 }
`

// startNATS starts nats-server with its MQTT gateway. The gateway has one port, so
// there is none with TLS beside it.
func (s *starter) startNATS(ctx context.Context, name, dir string) (bench.Target, error) {
	path, err := look(s.nats, "nats-server")
	if err != nil {
		return bench.Target{}, err
	}
	a, err := freeAddresses(2)
	if err != nil {
		return bench.Target{}, err
	}
	conf := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, natsConf, port(a[0]), filepath.Join(dir, "store"), port(a[1])), 0o644); err != nil {
		return bench.Target{}, err
	}
	t := bench.Target{Name: name, Addrs: a[1:], NoQoS2: true} // Debian's 2.9 does not have it
	return t, s.startOther(ctx, &t, dir, path, "-c", conf)
}

// startNull starts the broker that does nothing: the load generator's ceiling, and
// with TLS a bare server.
func (s *starter) startNull(ctx context.Context, name, dir string) (bench.Target, error) {
	a, err := freeAddresses(2)
	if err != nil {
		return bench.Target{}, err
	}
	t := bench.Target{Name: name, Addrs: a[:1], MutualAddrs: a[1:], Mutual: s.pki.client}
	return t, s.startOther(ctx, &t, dir, s.mqcluster, "bench", "null", "--listen", a[0], "--tls-listen", a[1],
		"--cert", s.pki.cert, "--key", s.pki.key, "--cafile", s.pki.ca)
}

// startCommand starts a peer that the command line names.
func (s *starter) startCommand(ctx context.Context, name, dir, command string) (bench.Target, error) {
	a, err := freeAddresses(1)
	if err != nil {
		return bench.Target{}, err
	}
	words := strings.Fields(strings.NewReplacer("{port}", port(a[0]), "{dir}", dir).Replace(command))
	t := bench.Target{Name: name, Addrs: a}
	return t, s.startOther(ctx, &t, dir, words[0], words[1:]...)
}

// startOther starts a target of one process and waits until its first address takes
// connections.
func (s *starter) startOther(ctx context.Context, t *bench.Target, dir, path string, args ...string) error {
	p, err := s.spawn(t.Name, filepath.Join(dir, "log"), path, args...)
	if err != nil {
		return err
	}
	t.PIDs = []int{p.cmd.Process.Pid}
	return p.until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.Addrs[0])
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// look finds a peer's program, also where Debian puts servers.
func look(path, debian string) (string, error) {
	found, err := exec.LookPath(path)
	if err == nil {
		return found, nil
	}
	if found, sbin := exec.LookPath("/usr/sbin/" + debian); path == debian && sbin == nil {
		return found, nil
	}
	return "", errors.Join(fmt.Errorf("%s is not installed: apt-get install %s, or leave it out of -targets", path, debian), err)
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
