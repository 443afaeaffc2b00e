package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mqcluster/mqcluster/bench"
)

// readyIn bounds how long a broker may take to serve.
const readyIn = 30 * time.Second

// starter starts brokers and ends them.
type starter struct {
	options
	dir   string
	procs []*proc
	last  map[string]*clusterNode // of each cluster, the one with the subscribers
}

// clusterNode is a node that was started and may be killed and started again.
type clusterNode struct {
	name, dir, health string
	proc              *proc
}

// proc is a process that was started, with its end.
type proc struct {
	cmd  *exec.Cmd
	done chan struct{} // closed after it has ended
}

func (s *starter) start(ctx context.Context, name string) (bench.Target, error) {
	switch name {
	case "mosquitto":
		return s.startMosquitto(ctx)
	case "one":
		return s.startCluster(ctx, name, 1)
	case "three":
		return s.startCluster(ctx, name, 3)
	}
	return bench.Target{}, errors.New("it is none of mosquitto, one and three")
}

// spawn starts a process whose output goes to a file of the given name.
func (s *starter) spawn(name, path string, args ...string) (*proc, error) {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proc{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in its log
	}()
	s.procs = append(s.procs, p)
	return p, nil
}

// close ends all processes and waits for them.
func (s *starter) close() error {
	var errs []error
	for _, p := range s.procs {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, p := range s.procs {
		select {
		case <-p.done:
		case <-time.After(readyIn):
			errs = append(errs, fmt.Errorf("%s did not end in %v and was killed", p.cmd.Path, readyIn))
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	s.procs = nil
	return errors.Join(errs...)
}

// until asks again until f gives no error, the process ends or the time is up.
func (p *proc) until(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended, see its log", p.cmd.Path)
		case <-ctx.Done():
			return fmt.Errorf("not ready in %v: %w", readyIn, err)
		case <-tick.C:
		}
	}
}

// freeAddresses are n loopback addresses, no two alike, with ports that were free
// just now. They are held until all are chosen: the kernel likes to give a port
// that was let go once more.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		all = append(all, ln.Addr().String())
	}
	return all, nil
}

// mosquittoConf has the limits off, so that nothing is dropped.
const mosquittoConf = `listener %s 127.0.0.1
allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
persistence false
log_dest none
`

func (s *starter) startMosquitto(ctx context.Context) (bench.Target, error) {
	path, err := exec.LookPath(s.mosquitto)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			return bench.Target{}, fmt.Errorf("mosquitto is not installed (apt-get install mosquitto): %w", err)
		}
	}
	addrs, err := freeAddresses(1)
	if err != nil {
		return bench.Target{}, err
	}
	addr := addrs[0]
	conf := filepath.Join(s.dir, "mosquitto.conf")
	_, port, _ := net.SplitHostPort(addr)
	if err := os.WriteFile(conf, fmt.Appendf(nil, mosquittoConf, port), 0o644); err != nil {
		return bench.Target{}, err
	}
	p, err := s.spawn("mosquitto", path, "-c", conf)
	if err != nil {
		return bench.Target{}, err
	}
	err = p.until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return bench.Target{Name: "mosquitto", Addrs: []string{addr}, PIDs: []int{p.cmd.Process.Pid}}, err
}

// startCluster starts n nodes that anybody may use. Of several, publishers get
// the first and subscribers the last.
func (s *starter) startCluster(ctx context.Context, name string, n int) (bench.Target, error) {
	t := bench.Target{Name: name}
	var clients, secure []string
	var mesh, token string
	addrs, err := freeAddresses(4 * n)
	if err != nil {
		return t, err
	}
	for i := range n {
		node := fmt.Sprintf("%s-%c", name, 'a'+i)
		a := addrs[4*i : 4*i+4]
		dir := filepath.Join(s.dir, node)
		verb := []string{"init"}
		if i > 0 {
			verb = []string{"join", mesh, "--token-file", token}
		}
		if _, err := s.command(ctx, append(verb, "--data-dir", dir, "--node", node, "--mesh.listen", a[0], "--mesh.advertise", a[0],
			"--health.listen", a[1], "--listener", "tcp,address="+a[2]+",allow_plaintext,allow_anonymous",
			"--listener", "tls,address="+a[3]+",allow_anonymous", "--limits.retained-rate", "0")...); err != nil {
			return t, err
		}
		p, err := s.spawn(node, s.mqcluster, "run", "--data-dir", dir)
		if err != nil {
			return t, err
		}
		if err := p.until(ctx, func(ctx context.Context) error { return ready(ctx, a[1]) }); err != nil {
			return t, err
		}
		if i == 0 {
			mesh, token = a[0], filepath.Join(s.dir, name+".token")
			if err := s.open(ctx, dir, token, n); err != nil {
				return t, err
			}
			if t.TLS, err = clientTLS(dir); err != nil {
				return t, err
			}
		}
		clients, secure = append(clients, a[2]), append(secure, a[3])
		s.last[name] = &clusterNode{name: node, dir: dir, health: a[1], proc: p}
		t.PIDs = append(t.PIDs, p.cmd.Process.Pid)
	}
	t.PubAddrs, t.SubAddrs, t.TLSAddrs = clients[:1], clients[n-1:], secure
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
