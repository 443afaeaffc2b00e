//go:build linux

package packages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// operators is what an operator has written into the configuration.
const operators = `
node: {id: a}
mesh: {listen: 127.0.0.1:7883}
listeners: [{kind: tls, address: 127.0.0.1:8883}]
limits: {max_connections: 500000}
`

// earlier makes the package of an earlier version, whose configuration file reads
// otherwise: what an upgrade has to cope with.
func earlier(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, err := filepath.Abs("../../bin/mqcluster")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1 $2\" != 'config example' ] || echo '# of an earlier version'\nexec %s \"$@\"\n", program)
	host := filepath.Join(dir, "host")
	if err := os.WriteFile(host, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	makeDeb(t, "-host", host, "-version", "v0.0.1~before", "-out", dir)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v %v", debs, err)
	}
	return debs[0]
}

func makeDeb(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"-source", "../..", "-program", "../../bin/mqcluster", "-epoch", os.Getenv("SOURCE_DATE_EPOCH")}, append(args, "deb")...)
	if out, err := exec.Command("../../bin/packages", args...).CombinedOutput(); err != nil {
		t.Fatalf("make a package: %v: %s", err, out)
	}
}

// TestPackageLife installs the package of an earlier version on a Debian, makes a node
// and runs it under that Debian's systemd, upgrades to this version, removes and
// purges.
func TestPackageLife(t *testing.T) {
	s := newScratch(t)
	for name, from := range map[string]string{"earlier.deb": earlier(t), "this.deb": debOfThis(t)} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		s.put("/debs/"+name, text)
	}
	before := s.paths()
	for _, step := range []struct {
		name string
		run  func(*testing.T, *scratch)
	}{
		{"install", installed}, {"unit", verified}, {"run", runs}, {"watchdog", watched},
		{"upgrade", upgraded}, {"upgrade while stopped", upgradedStopped}, {"remove", removed},
	} {
		if !t.Run(step.name, func(t *testing.T) { in := *s; in.t = t; step.run(t, &in) }) {
			log, _ := s.try("journalctl", "--no-pager", "-n", "40", "-u", "mqcluster")
			t.Fatalf("the journal ends with:\n%s", log)
		}
	}
	s.run("dpkg", "--purge", "mqcluster")
	if diff := cmp.Diff(before, s.paths()); diff != "" {
		t.Errorf("a purge leaves or takes:\n%s", diff)
	}
	if got := s.run("getent", "passwd", "mqcluster"); !strings.HasSuffix(got, ":/usr/sbin/nologin") {
		t.Errorf("the user after a purge: %q", got)
	}
}

// debOfThis is the package that make deb made. A second one has the same bytes.
func debOfThis(t *testing.T) string {
	t.Helper()
	path := dist(t, "mqcluster_"+runtime.GOARCH+".deb")
	dir := t.TempDir()
	makeDeb(t, "-version", os.Getenv("VERSION"), "-out", dir)
	one, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(filepath.Join(dir, filepath.Base(path)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("two packages of the same program differ")
	}
	return path
}

func installed(t *testing.T, s *scratch) {
	s.run("dpkg", "--install", "/debs/earlier.deb")
	for path, want := range map[string]string{
		"/usr/bin/mqcluster":                                  "755 root root",
		"/etc/mqcluster/mqcluster.yaml":                       "644 root root",
		"/lib/systemd/system/mqcluster.service":               "644 root root",
		"/usr/lib/sysusers.d/mqcluster.conf":                  "644 root root",
		"/usr/share/man/man1/mqcluster-user-add.1.gz":         "644 root root",
		"/usr/share/bash-completion/completions/mqcluster":    "644 root root",
		"/usr/share/zsh/vendor-completions/_mqcluster":        "644 root root",
		"/usr/share/fish/vendor_completions.d/mqcluster.fish": "644 root root",
		"/usr/share/doc/mqcluster/copyright":                  "644 root root",
		"/var/lib/mqcluster":                                  "700 mqcluster mqcluster",
	} {
		if got := s.run("stat", "-c", "%a %U %G", path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := s.run("mqcluster", "version"); !strings.HasPrefix(got, "mqcluster ") {
		t.Errorf("version: %q", got)
	}
	if got, want := s.get("/etc/mqcluster/mqcluster.yaml"), "# of an earlier version\n"+s.run("mqcluster", "config", "example")+"\n"; got != want {
		t.Errorf("the configuration is another than config example prints:\n%s", cmp.Diff(want, got))
	}
	s.run("bash", "-c", ". /usr/share/bash-completion/completions/mqcluster && complete -p mqcluster")
	if got := s.run("getent", "passwd", "mqcluster"); !regexp.MustCompile(`^mqcluster:[^:]*:\d{3}:\d+:.*:/var/lib/mqcluster:/usr/sbin/nologin$`).MatchString(got) {
		t.Errorf("the user: %q", got)
	}
	if out, err := s.try("dpkg", "--verify", "mqcluster"); err != nil || out != "" {
		t.Errorf("dpkg --verify: %q %v", out, err)
	}
	// It is for the next boot, and has nothing to run yet.
	if got := s.run("systemctl", "is-enabled", "mqcluster"); got != "enabled" {
		t.Errorf("the service is %s", got)
	}
	s.run("systemctl", "start", "mqcluster")
	if got := s.property("ActiveState") + " " + s.property("ConditionResult"); got != "inactive no" {
		t.Errorf("without a node the service is %s", got)
	}
}

// verified has the Debian's own systemd judge the unit.
func verified(t *testing.T, s *scratch) {
	out, err := s.try("systemd-analyze", "verify", "--man=no", "mqcluster.service")
	if err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v %s", err, out)
	}
	out = s.run("systemd-analyze", "security", "--offline=true", "--no-pager", "/lib/systemd/system/mqcluster.service")
	m := regexp.MustCompile(`Overall exposure level for mqcluster.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze security: %s", out)
	}
	exposure, err := strconv.ParseFloat(m[1], 64)
	if err != nil || exposure > 2.5 {
		t.Errorf("the exposure is %s, more than 2.5 (%v)", m[1], err)
	}
	t.Logf("exposure %s", m[1])
}

// runs makes a node and starts it.
func runs(t *testing.T, s *scratch) {
	s.put("/etc/mqcluster/mqcluster.yaml", []byte(operators))
	if out, err := s.try("mqcluster", "init", "--config", "/etc/mqcluster/mqcluster.yaml"); err == nil || !strings.Contains(err.Error(), "runuser -u mqcluster") {
		t.Errorf("root made a node in the directory of the service's user: %v %s", err, out)
	}
	s.run("runuser", "-u", "mqcluster", "--", "mqcluster", "init", "--config", "/etc/mqcluster/mqcluster.yaml")
	s.run("systemctl", "start", "mqcluster")
	// Type=notify: start has waited for this.
	s.run("mqcluster", "status", "--check")
	if got := s.property("StatusText"); got != "serving" {
		t.Errorf("the status is %q", got)
	}
	pid := s.property("MainPID")
	status := s.run("cat", "/proc/"+pid+"/status")
	for _, want := range []string{`NoNewPrivs:\s1`, `Seccomp:\s2`, `CapEff:\s0+\n`, `CapBnd:\s0+\n`} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("the process has no %s:\n%s", want, status)
		}
	}
	if got := s.run("stat", "-c", "%U", "/proc/"+pid); got != "mqcluster" {
		t.Errorf("it runs as %s", got)
	}
	descriptors(t, s, pid)
	s.run("sh", "-c", "echo secret | mqcluster user add dev --stdin")
	s.run("mqcluster", "acl", "set", "user:dev", "allow both #")
	s.run("sh", "-c", "umask 077; echo secret > /root/password")
	s.run(append(client("pub"), "-t", "kept", "-m", "21.5", "-q", "1", "-r")...)
}

// descriptors: the process may open a file for each client of its configuration.
// Where the machine of the test does not allow as many to anybody, the process says
// what it lacks. Of what the unit forbids there is not a word.
func descriptors(t *testing.T, s *scratch, pid string) {
	t.Helper()
	log := s.run("journalctl", "--no-pager", "-p", "warning", "-u", "mqcluster")
	if strings.Contains(log, "permitted") || strings.Contains(log, "denied") {
		t.Errorf("the journal:\n%s", log)
	}
	want := "1048576"
	_, err := s.try("prlimit", "--nofile="+want+":"+want, "true")
	if err != nil {
		want = s.run("prlimit", "--pid", "1", "--nofile", "--noheadings", "--output", "HARD")
		t.Logf("this machine allows %s open files: %v", want, err)
	}
	if got := s.run("prlimit", "--pid", pid, "--nofile", "--noheadings", "--output", "SOFT,HARD"); strings.Join(strings.Fields(got), " ") != want+" "+want {
		t.Errorf("it may open %s files, want %s", got, want)
	}
	if said := strings.Contains(log, "takes 503000 open files"); said != (err != nil) {
		t.Errorf("the process may open %s files and says:\n%s", want, log)
	}
}

// client is the beginning of a command line of pub or sub.
func client(verb string) []string {
	return []string{"mqcluster", verb, "-h", "127.0.0.1", "-p", "8883", "--cafile", "/var/lib/mqcluster/tls/ca.crt", "-u", "dev", "--password-file", "/root/password"}
}

// kept tells whether the node still has what was published before.
func (s *scratch) kept() {
	s.t.Helper()
	if got := s.run(append(client("sub"), "-t", "kept", "-C", "1")...); got != "21.5" {
		s.t.Errorf("the retained message is %q", got)
	}
}

// watched stops the process as a deadlock would: systemd has to notice, and start it
// again.
func watched(t *testing.T, s *scratch) {
	s.put("/etc/systemd/system/mqcluster.service.d/test.conf", []byte("[Service]\nWatchdogSec=2s\n"))
	s.run("systemctl", "daemon-reload")
	s.run("systemctl", "restart", "mqcluster")
	first := s.property("MainPID")
	// It is stroked, for longer than four times the watchdog's time, and nothing happens.
	stroked := func() (micros int64) {
		if _, err := fmt.Sscan(s.property("WatchdogTimestampMonotonic"), &micros); err != nil {
			t.Fatal(err)
		}
		return micros
	}
	began := stroked()
	s.await("it is stroked", func() error {
		if since := stroked() - began; since < 8e6 {
			return fmt.Errorf("last after %d µs", since)
		}
		return nil
	})
	if got := s.property("MainPID"); got != first || s.property("NRestarts") != "0" {
		t.Fatalf("the watchdog has ended a node that is well: %s after %s", got, first)
	}
	s.run("sh", "-c", "kill -STOP "+first)
	s.await("the watchdog starts it again", func() error {
		if pid := s.property("MainPID"); pid == "0" || pid == first || s.property("ActiveState") != "active" {
			return errors.New("process " + pid + " is " + s.property("ActiveState"))
		}
		return nil
	})
	s.kept()
	if err := os.RemoveAll(filepath.Join(s.root, "/etc/systemd/system/mqcluster.service.d")); err != nil {
		t.Fatal(err)
	}
	s.run("systemctl", "daemon-reload")
}

func upgraded(t *testing.T, s *scratch) {
	before := s.property("MainPID")
	s.run("dpkg", "--install", "--force-confold", "/debs/this.deb")
	if got := s.property("MainPID"); got == before || s.property("ActiveState") != "active" {
		t.Errorf("after the upgrade the process is %s (%s), before it was %s", got, s.property("ActiveState"), before)
	}
	if got := s.get("/etc/mqcluster/mqcluster.yaml"); got != operators {
		t.Errorf("the upgrade changed the configuration:\n%s", got)
	}
	if !strings.HasPrefix(s.get("/etc/mqcluster/mqcluster.yaml.dpkg-dist"), "# Configuration of mqcluster") {
		t.Error("the new configuration is not beside it")
	}
	s.run("mqcluster", "status", "--check")
	s.kept()
	// The end of the old process was no failure: it has drained.
	var stopped bool
	for line := range strings.Lines(s.run("journalctl", "--no-pager", "-o", "json", "-u", "mqcluster")) {
		var entry struct {
			Message any    `json:"MESSAGE"`
			PID     string `json:"_PID"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		text, _ := entry.Message.(string)
		stopped = stopped || entry.PID == before && strings.Contains(text, "stopping on a signal")
	}
	if !stopped {
		t.Error("the old process was not asked to end")
	}
}

// upgradedStopped: a service that an operator has stopped stays so.
func upgradedStopped(t *testing.T, s *scratch) {
	s.run("systemctl", "stop", "mqcluster")
	if got := s.property("Result") + " " + s.property("ExecMainStatus"); got != "success 0" {
		t.Errorf("the stop ended with %s", got)
	}
	s.run("dpkg", "--install", "--force-confold", "/debs/earlier.deb")
	s.run("dpkg", "--install", "--force-confold", "/debs/this.deb")
	if got := s.property("ActiveState"); got != "inactive" {
		t.Errorf("after an upgrade the stopped service is %s", got)
	}
	s.run("systemctl", "start", "mqcluster")
	s.kept()
}

// removed: without a purge the data and the configuration are kept.
func removed(t *testing.T, s *scratch) {
	s.run("dpkg", "--remove", "mqcluster")
	if s.exists("/usr/bin/mqcluster") || s.exists("/lib/systemd/system/mqcluster.service") {
		t.Error("the program is still there")
	}
	if _, err := s.try("pidof", "mqcluster"); err == nil {
		t.Error("it still runs")
	}
	for _, path := range []string{"/var/lib/mqcluster/node.json", "/etc/mqcluster/mqcluster.yaml"} {
		if !s.exists(path) {
			t.Errorf("%s is gone", path)
		}
	}
	s.run("dpkg", "--install", "--force-confold", "/debs/this.deb")
	s.run("systemctl", "start", "mqcluster")
	s.kept()
	s.run("dpkg", "--remove", "mqcluster")
}
