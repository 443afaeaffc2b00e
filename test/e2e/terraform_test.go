//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestTerraformLife takes a cluster of the root local through its life: made,
// grown, a process replaced, a disk replaced, shrunk, destroyed; and what a
// retained message says stays. No secret is seen on the way.
func TestTerraformLife(t *testing.T) {
	t.Parallel()
	s := newSite(t, program)
	stop := s.watchSecrets()
	s.apply()
	s.admit()
	l := login{s.front, s.tls, user, password}
	l.must(t, clean("writer")).Pub("life", 1, true, "kept")
	for _, step := range []struct {
		voters string
		how    []string
		want   string
	}{
		{"5", nil, "n1 n2 n3 n4 n5"},
		{"5", []string{`-replace=module.cluster.terraform_data.node["n2"]`}, "n1 n2 n3 n4 n5"},
		{"5", []string{`-replace=module.cluster.terraform_data.disk["n1"]`}, "n1 n2 n3 n4 n5"},
		{"3", nil, "n1 n2 n3"},
	} {
		s.values["voters"] = step.voters
		s.apply(step.how...)
		s.awaitWell()
		if diff := cmp.Diff(step.want, s.voting()); diff != "" {
			t.Errorf("after %s nodes and %v these vote (-want +got):\n%s", step.voters, step.how, diff)
		}
	}
	reader := l.must(t, clean("reader"))
	reader.Sub(rawmqtt.Sub("life", 1))
	if got := payloads(reader.Messages(1, patience)); got != "kept" {
		t.Errorf("the retained message is %q", got)
	}
	stop()
	s.noSecrets()
}

// voting are the members that vote and are up, as the first node sees it.
func (s *site) voting() string {
	s.t.Helper()
	status, err := s.status("n1")
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, m := range status.Members {
		if m.Votes() && m.Up {
			out = append(out, m.Node)
		}
	}
	return strings.Join(out, " ")
}

// secret is how a join token, a password's hash and a key look.
var secret = regexp.MustCompile(`MQ1\.[A-Za-z0-9_-]{8}|argon2id|PRIVATE KEY|` + regexp.QuoteMeta(password))

// watchSecrets looks at the arguments of all processes until stop is called.
func (s *site) watchSecrets() (stop func()) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	found := map[string]bool{}
	looks, joins := 0, 0
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			for pid, line := range commandLines() {
				// Other tests join with a token as an argument.
				if text := line + environ(pid); strings.Contains(text, s.dir) && secret.MatchString(text) {
					found[line] = true
				}
				if strings.Contains(line, "mqcluster join") && strings.Contains(line, s.dir) {
					joins++
				}
			}
			looks++
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	return sync.OnceFunc(func() {
		close(over)
		wg.Wait()
		for line := range found {
			s.t.Errorf("a secret is among the arguments or variables of %q", line)
		}
		if joins == 0 {
			s.t.Error("no join was seen: the search shows nothing")
		}
		s.t.Logf("looked %d times at the arguments and variables of all processes, %d times at a join", looks, joins)
	})
}

// environ are the variables of a process, "" if it has ended.
func environ(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	return string(text)
}

// noSecrets searches state, plans and logs.
func (s *site) noSecrets() {
	s.t.Helper()
	plan := filepath.Join(filepath.Dir(s.root), "plan")
	s.must(s.terraform(append([]string{"plan", "-destroy", "-out", plan}, s.options()...)...))
	texts := map[string]string{
		"plan":   s.must(s.terraform("show", "-json", plan)),
		"output": s.must(s.terraform("output", "-json")),
	}
	files, err := filepath.Glob(filepath.Join(s.root, "terraform.tfstate*"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("there is no state: %v", err)
	}
	more, _ := filepath.Glob(filepath.Join(s.dir, "log", "*"))
	rest, _ := filepath.Glob(filepath.Join(s.dir, "run", "*"))
	for _, file := range append(append(files, more...), rest...) {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		texts[file] = string(text)
	}
	for name, text := range texts {
		if found := secret.FindString(text); found != "" {
			s.t.Errorf("%s has the secret %q", name, found)
		}
	}
}

// TestTerraformHalfFailed has an apply fail half way, because a port is taken: all
// that it left ends with destroy, and the next apply, when the port is free, does
// the rest.
func TestTerraformHalfFailed(t *testing.T) {
	t.Parallel()
	for _, then := range []string{"destroy", "apply"} {
		t.Run(then, func(t *testing.T) {
			s := newSite(t, program)
			first, err := strconv.Atoi(s.values["node_port"])
			if err != nil {
				t.Fatal(err)
			}
			// The client port of n3.
			taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+6))
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			out, err := s.terraform(append([]string{"apply", "-auto-approve", "-no-color"}, s.options()...)...)
			if err == nil || !strings.Contains(out, "is in use") {
				t.Fatalf("apply did not say that a port is in use: %v\n%s", err, out)
			}
			if len(s.processes()) == 0 {
				t.Fatal("nothing runs after the half of an apply: the test shows nothing")
			}
			if then == "destroy" {
				if err := s.destroy(); err != nil {
					t.Error(err)
				}
				if left := s.processes(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				return
			}
			taken.Close()
			s.apply()
			// They are well when they are up; their votes come a moment later.
			await(t, patience, func() bool { return s.voting() == "n1 n2 n3" }, func() string { return s.voting() + " vote" })
		})
	}
}

// TestHAProxyExample has HAProxy read the example that operators copy.
func TestHAProxyExample(t *testing.T) {
	t.Parallel()
	need(t, "haproxy")
	text, err := os.ReadFile("../../deploy/haproxy/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	local := strings.ReplaceAll(string(text), "bind mqtt.example.org", "bind 127.0.0.1")
	if local == string(text) {
		t.Error("the example has another address than the README's")
	}
	if err := os.WriteFile(file, []byte(local), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := shell(t, patience, "haproxy", "-c", "-f", file); err != nil || strings.Contains(out, "WARNING") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestTerraformForeignProcess has a process id that was given to another process
// since: that one is not ended.
func TestTerraformForeignProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t, program)
	s.values["voters"] = "1"
	s.apply()
	file := filepath.Join(s.dir, "run", "n1.pid")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.kill("n1")
	// This process, with the time at which another one began.
	fields := strings.Fields(string(text))
	fields[0] = strconv.Itoa(os.Getpid())
	if err := os.WriteFile(file, []byte(strings.Join(fields, " ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.apply(`-replace=module.cluster.terraform_data.node["n1"]`) // it ends us, or it does not
	s.awaitWell()
}
