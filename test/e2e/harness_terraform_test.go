//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
)

// terraforms is the folder of the product's terraform, as the tests see it.
const terraforms = "../../deploy/terraform"

// A site is a cluster that terraform made of the root local.
type site struct {
	t *testing.T
	// root is a copy of the root, with its state; dir what the site keeps.
	root, dir string
	// front is the address of the balancer.
	front  string
	values map[string]string // of the root's variables
	tls    *tls.Config
}

// newSite is a site that is not applied yet. It is destroyed with the test, and
// nothing of it may run then.
func newSite(t *testing.T, program string) *site {
	t.Helper()
	need(t, "terraform", "haproxy", "setsid", "flock")
	// Not t.TempDir: the path of a Unix socket has to be short.
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// A copy: neither the state nor what init makes belongs into the repository.
	if err := os.CopyFS(filepath.Join(dir, "terraform"), os.DirFS(terraforms)); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"terraform.tfstate", ".terraform", "cluster"} {
		if err := os.RemoveAll(filepath.Join(dir, "terraform", "roots", "local", left)); err != nil {
			t.Fatal(err)
		}
	}
	s := &site{t: t, root: filepath.Join(dir, "terraform", "roots", "local"), dir: filepath.Join(dir, "site"), front: freeAddress(t)}
	_, port, err := net.SplitHostPort(s.front)
	if err != nil {
		t.Fatal(err)
	}
	s.values = map[string]string{"program": absolute(t, program), "directory": s.dir, "port": port,
		"node_port": strconv.Itoa(freePorts(t, 15)), "voters": "3"}
	s.must(s.terraform("init", "-input=false"))
	t.Cleanup(s.end)
	return s
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// freePorts returns the first of n successive ports of 127.0.0.1 that nobody
// listens at. They are the test's as those of freeAddress are.
func freePorts(t *testing.T, n int) int {
	t.Helper()
next:
	for range 1000 {
		first := 10000 + rand.IntN(22000-n)
		var held []net.Listener
		release := func() {
			for _, l := range held {
				l.Close()
			}
		}
		for port := first; port < first+n; port++ {
			taken, err := net.Listen("unix", fmt.Sprintf("@mqcluster-test-port-%d", port))
			if err != nil {
				release()
				continue next
			}
			held = append(held, taken)
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				release()
				continue next
			}
			l.Close()
		}
		t.Cleanup(release)
		return first
	}
	t.Fatalf("no %d successive ports are free", n)
	return 0
}

// environment is that of terraform: it asks no server for its newest version, and
// an operator's own variables do not count.
func environment() (out []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "TF_") && !strings.HasPrefix(e, "MQCLUSTER_") {
			out = append(out, e)
		}
	}
	return append(out, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_CLI_CONFIG_FILE="+os.DevNull)
}

// run runs a program in the root and returns what it printed.
func (s *site) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = s.root, environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A pipe that a process of the site holds would keep apply from returning.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w:\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

func (s *site) terraform(args ...string) (string, error) { return s.run("terraform", args...) }

// options are the values of the root's variables.
func (s *site) options() (out []string) {
	for name, value := range s.values {
		out = append(out, "-var", name+"="+value)
	}
	return out
}

func (s *site) must(out string, err error) string {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// apply applies the root and demands that the next plan is empty.
func (s *site) apply(how ...string) {
	s.t.Helper()
	start := time.Now()
	s.must(s.terraform(append([]string{"apply", "-auto-approve", "-no-color", "-input=false"}, append(how, s.options()...)...)...))
	took := time.Since(start)
	s.must(s.terraform(append([]string{"plan", "-detailed-exitcode", "-no-color", "-input=false"}, s.options()...)...))
	s.t.Logf("apply %s took %v, and the plan is empty", strings.Join(how, " "), took.Round(10*time.Millisecond))
}

func (s *site) destroy() error {
	_, err := s.terraform(append([]string{"destroy", "-auto-approve", "-no-color", "-input=false"}, s.options()...)...)
	return err
}

// end destroys the site and fails if anything of it is left.
func (s *site) end() {
	if s.t.Failed() {
		s.logs()
	}
	if err := s.destroy(); err != nil {
		s.t.Error(err)
	}
	for pid, line := range s.processes() {
		s.t.Errorf("process %d is left: %s", pid, line)
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may end at the same time
	}
	if _, err := os.Stat(s.dir); err == nil {
		s.t.Errorf("%s is left", s.dir)
	}
}

// logs writes the last lines of every process to the test's log.
func (s *site) logs() {
	files, _ := filepath.Glob(filepath.Join(s.dir, "log", "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Log(err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "raft: failed to") })
		s.t.Logf("the last lines of %s:\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

// processes are those that have the site's directory among their arguments, but
// not terraform.
func (s *site) processes() map[int]string {
	out := map[int]string{}
	for pid, line := range commandLines() {
		if strings.Contains(line, s.dir) && !strings.HasPrefix(line, "terraform ") {
			out[pid] = line
		}
	}
	return out
}

// commandLines are the arguments of all processes.
func commandLines() map[int]string {
	out := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || len(line) == 0 {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		out[pid] = strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return out
}

// disk is the data directory of a node.
func (s *site) disk(node string) string { return filepath.Join(s.dir, node) }

// pid is the process of a node.
func (s *site) pid(node string) int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "run", node+".pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// kill is kill -9 of a node; it returns when the process is gone.
func (s *site) kill(node string) {
	s.t.Helper()
	pid := s.pid(node)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	await(s.t, patience, func() bool { return commandLines()[pid] == "" }, func() string { return node + " does not end" })
}

// status asks a node for the cluster.
func (s *site) status(node string) (Status, error) {
	return (&Node{ID: node, Dir: s.disk(node)}).Status()
}

// gate is what rolling-replace.sh waits for before it takes a node down.
func (s *site) gate() error {
	command, err := s.terraform("output", "-raw", "gate_command")
	if err != nil {
		return err
	}
	_, err = s.run("bash", "-c", command)
	return err
}

// awaitWell waits until the gate is open.
func (s *site) awaitWell() {
	s.t.Helper()
	var last error
	await(s.t, patience, func() bool { last = s.gate(); return last == nil }, func() string { return last.Error() })
}

// admit makes the user of the tests, and the configuration to connect with.
func (s *site) admit() {
	s.t.Helper()
	s.must(command(password+"\n", "user", "add", user, "--stdin", "--data-dir", s.disk("n1")))
	s.must(command("", "acl", "set", "*", "allow both #", "--data-dir", s.disk("n1")))
	out := s.must(s.terraform("output", "-raw", "ca_command"))
	pem := s.must(s.run("bash", "-c", out))
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		s.t.Fatalf("%q gave no certificate: %q", out, pem)
	}
	s.tls = &tls.Config{RootCAs: pool}
}

// endpoint is the balancer.
func (s *site) endpoint(version byte) history.Endpoint {
	return history.Endpoint{Addresses: []string{s.front}, TLS: s.tls, Version: version, Username: user, Password: password}
}
