//go:build linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownNetwork is set in the process that inOwnNetwork starts.
const ownNetwork = "E2E_OWN_NETWORK"

// inOwnNetwork runs the test again, in a process whose network is a namespace of
// its own: on its loopback speaks nobody but that test. It returns true in that
// process, where the test goes on; in the one that asked it waits for the other,
// reports what that said and returns false. Without root a user namespace makes
// it possible, where the system allows one.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	need(t, "ip")
	if os.Getenv(ownNetwork) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("bring up the loopback of the namespace: %v: %s", err, out)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v")
	if deadline, ok := t.Deadline(); ok {
		cmd.Args = append(cmd.Args, "-test.timeout", (time.Until(deadline) - 5*time.Second).String())
	}
	cmd.Env = append(os.Environ(), ownNetwork+"=1", "MQCLUSTER_BIN="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: id, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		t.Errorf("in a network of its own: %v\n%s", err, out)
	case err != nil && os.Getenv("CI") == "":
		t.Skipf("no network namespace can be made (run as root): %v", err)
	case err != nil:
		t.Fatalf("no network namespace can be made: %v", err)
	case strings.Contains(string(out), "\n--- SKIP: "):
		t.Skipf("%s", out)
	case !strings.Contains(string(out), "\n--- PASS: "+t.Name()+" "):
		t.Errorf("the process in a network of its own did not run the test:\n%s", out)
	default:
		t.Logf("%s", out)
	}
	return false
}
