//go:build linux

package packages

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait; it is no bar.
const patience = 60 * time.Second

// need fails where root or a program is missing, and CI says that both are there;
// elsewhere the test is left out.
func need(t *testing.T, programs ...string) {
	t.Helper()
	lacks := ""
	if os.Geteuid() != 0 {
		lacks = "only root may boot a scratch Debian"
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lacks = err.Error()
		}
	}
	switch {
	case lacks == "":
	case os.Getenv("CI") != "":
		t.Fatal(lacks)
	default:
		t.Skip(lacks)
	}
}

// dist is where make put what it made.
func dist(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../dist/" + name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: run make check-packages", err)
	}
	return path
}

// A scratch is a Debian of its own, with a systemd that runs.
type scratch struct {
	t    *testing.T
	root string
	init int // process id of the systemd
}

// mirror is where this machine takes Debian's packages from, and which Debian it is.
func mirror(t *testing.T) (codename, uri string) {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		t.Fatalf("ask apt for its mirrors: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == "Debian" && f[2] == "main" && !strings.Contains(f[1], "-") {
			return f[1], f[3]
		}
	}
	t.Fatalf("apt knows no Debian mirror, run apt-get update:\n%s", out)
	return "", ""
}

// newScratch installs a Debian of essential packages and systemd in a temporary
// folder, and boots it.
func newScratch(t *testing.T) *scratch {
	t.Helper()
	need(t, "mmdebstrap", "unshare", "nsenter", "pivot_root")
	start := time.Now()
	codename, uri := mirror(t)
	s := &scratch{t: t, root: filepath.Join(t.TempDir(), "root")}
	bootstrap := exec.Command("mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--include=systemd",
		"--dpkgopt=force-unsafe-io", codename, s.root, uri)
	if out, err := bootstrap.CombinedOutput(); err != nil {
		t.Fatalf("install a scratch Debian: %v\n%s", err, out)
	}
	t.Logf("Debian %s is there after %v", codename, time.Since(start).Round(time.Second))
	s.boot()
	t.Logf("its systemd runs after %v", time.Since(start).Round(time.Second))
	return s
}

// boot starts systemd and waits until it has started all there is.
func (s *scratch) boot() {
	s.t.Helper()
	group := "mqcluster-packages-" + strconv.Itoa(os.Getpid())
	var said bytes.Buffer
	cmd := exec.Command("unshare", "--mount", "./boot.sh", s.root, group)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // --kill-child takes systemd along
		_ = cmd.Wait()
		removeGroup(s.t, group)
	})
	s.await("systemd is up", func() error {
		// Before it is systemd, the child is something that the script runs.
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		child := strings.TrimSpace(string(children))
		if name, err := os.ReadFile("/proc/" + child + "/comm"); err != nil || strings.TrimSpace(string(name)) != "systemd" {
			return fmt.Errorf("process %q is %q: %s", child, name, said.String())
		}
		s.init, _ = strconv.Atoi(child)
		state, err := s.try("systemctl", "is-system-running")
		if state != "running" && state != "degraded" {
			return fmt.Errorf("%q %w: %s", state, err, said.String())
		}
		return nil
	})
}

// removeGroup removes the control groups of a scratch that has ended.
func removeGroup(t *testing.T, group string) {
	t.Helper()
	script := `groups=$(mktemp -d) && mount --make-rprivate / && mount -t cgroup2 cgroup2 "$groups" &&
		echo 1 >"$groups/$1/cgroup.kill" && while grep -q 'populated 1' "$groups/$1/cgroup.events"; do sleep 0.1; done &&
		find "$groups/$1" -depth -type d -exec rmdir {} +; umount "$groups"; rmdir "$groups"`
	if out, err := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", group).CombinedOutput(); err != nil {
		t.Errorf("remove the control groups: %v: %s", err, out)
	}
}

// try runs a command in the scratch and returns what it printed, cut of blanks.
func (s *scratch) try(args ...string) (string, error) {
	args = append([]string{
		"--target", strconv.Itoa(s.init), "--all", "--root", "--wd", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "timeout", "180",
	}, args...)
	var complaint bytes.Buffer
	cmd := exec.Command("nsenter", args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(string(out)), err
}

// run is try for what has to succeed.
func (s *scratch) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// await waits until what is asked for holds.
func (s *scratch) await(what string, is func() error) {
	s.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		err := is()
		if err == nil {
			return
		}
		if time.Since(start) > patience {
			s.t.Fatalf("%s: not after %v: %v", what, patience, err)
		}
	}
}

// property returns a property of the service.
func (s *scratch) property(name string) string {
	s.t.Helper()
	return s.run("systemctl", "show", "--value", "--property="+name, "mqcluster.service")
}

// put writes a file into the scratch.
func (s *scratch) put(path string, text []byte) {
	s.t.Helper()
	path = filepath.Join(s.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// get reads one.
func (s *scratch) get(path string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.root, path))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *scratch) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(s.root, path))
	return err == nil
}

// paths lists everything on the scratch's disk but what dpkg, systemd and the user
// database keep for themselves.
func (s *scratch) paths() []string {
	s.t.Helper()
	var all []string
	err := filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, s.root)
		switch name {
		case "/var/lib/dpkg", "/var/log", "/var/cache", "/debs", "/root", "/var/lib/systemd/catalog":
			return fs.SkipDir
		case "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock":
			return nil
		}
		all = append(all, name)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}
