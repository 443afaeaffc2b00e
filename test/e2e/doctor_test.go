//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// finding is one of doctor -o json.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Found  string `json:"found"`
	Remedy string `json:"remedy"`
}

// doctor runs it, and fails where its exit code is not that of what it found.
func (n *Node) doctor(args ...string) (all []finding) {
	n.t.Helper()
	out, err := n.TryCLI("", append([]string{"doctor", "-o", "json"}, args...)...)
	if jsonErr := json.Unmarshal([]byte(out), &all); jsonErr != nil {
		n.t.Fatalf("doctor: %v: %q %v", jsonErr, out, err)
	}
	failures := 0
	for _, f := range all {
		if f.State == "failure" {
			failures++
		}
		if f.State != "ok" && f.Remedy == "" {
			n.t.Errorf("no remedy: %+v", f)
		}
	}
	if (err != nil) != (failures > 0) {
		n.t.Errorf("%d failures, and %v", failures, err)
	}
	return all
}

// found tells whether a finding of a state says something.
func found(all []finding, state, check, says string) bool {
	for _, f := range all {
		if f.State == state && f.Check == check && strings.Contains(f.Found, says) {
			return true
		}
	}
	return false
}

// TestDoctor has a cluster that is well, and then breaks one thing after the other.
func TestDoctor(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	n := c.Nodes[0]
	well := n.doctor()
	for _, f := range well {
		if f.State == "failure" {
			t.Errorf("of a cluster that is well: %+v", f)
		}
	}
	for _, check := range []string{"secrets", "certificate", "chain", "names", "disk", "quorum", "ready", "members", "versions", "ports", "clock", "files", "listener", "rights"} {
		ok := false
		for _, f := range well {
			ok = ok || f.Check == check && f.State != "failure"
		}
		if !ok {
			t.Errorf("nothing was said of %s: %+v", check, well)
		}
	}
	if !found(well, "warning", "ca key", "not encrypted") || !found(well, "warning", "config", "not encrypted") {
		t.Errorf("a key and a listener in clear text are no warning: %+v", well)
	}

	n.CLI("acl", "set", "user:nobody-there", "allow both #")
	if all := n.doctor(); !found(all, "warning", "rights", `user "nobody-there"`) {
		t.Errorf("rules of a user who does not exist: %+v", all)
	}
	key := n.path("tls", "node.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if all := n.doctor(); !found(all, "failure", "secrets", "can be read by others (mode 0644)") {
		t.Errorf("a key that others can read: %+v", all)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}

	victim := c.Followers()[0]
	if victim == n {
		victim = c.Followers()[1]
	}
	victim.Kill()
	var all []finding
	await(t, patience, func() bool { all = n.doctor(); return found(all, "failure", "members", victim.ID) },
		func() string { return "a node that is down is not found" })
	if !found(all, "failure", "ports", "mesh port of node "+victim.ID) || !found(all, "ok", "quorum", "leads") {
		t.Errorf("with one node down: %+v", all)
	}
	for _, other := range c.Nodes {
		if other != n && other.Running() {
			other.Kill()
		}
	}
	await(t, patience, func() bool { all = n.doctor(); return found(all, "failure", "quorum", "nothing is accepted") },
		func() string { return "a lost majority is not found" })
	n.Kill()
	if all := n.doctor(); !found(all, "failure", "node", "does not answer") || !found(all, "ok", "certificate", "valid until") {
		t.Errorf("of a node that does not run: %+v", all)
	}
	out, err := command("", "doctor", "--connect", n.TLS, "--timeout", (2 * time.Second).String())
	if err == nil || !strings.Contains(out, "nothing listens on "+n.TLS) {
		t.Errorf("doctor --connect: %v %s", err, out)
	}
}
