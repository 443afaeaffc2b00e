package demo

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseMetrics(t *testing.T) {
	got, err := parseMetrics(strings.NewReader(`# HELP a what it is
# TYPE a counter
a{qos="0"} 1
a{qos="1 2"} 2.5
b 7
b_total 1e3
odd
`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"a": 3.5, "b": 7, "b_total": 1000}, got); diff != "" {
		t.Error(diff)
	}
}

func TestWorkdir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo-data")
	w, err := openWorkdir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openWorkdir(path); err == nil || !strings.Contains(err.Error(), "a demo runs in") {
		t.Errorf("a second demo in the same directory: %v", err)
	}
	outside := filepath.Join(t.TempDir(), "precious")
	for _, file := range []string{w.join("n1.log"), outside} {
		if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(w.join("n1", "raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), w.join("link")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openWorkdir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || entries[0].Name() != marker {
		t.Errorf("an earlier demo left %v, %v", entries, err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error("a file outside the directory was removed:", err)
	}
}

func TestWorkdirLeavesOthersAlone(t *testing.T) {
	path := t.TempDir()
	file := filepath.Join(path, "thesis.txt")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openWorkdir(path); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a directory of somebody else: %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestCommandRefuses(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--nodes 4", "write 3 or 5"},
		{"--nodes 1", "write 3 or 5"},
		{"--endpoint 8883", "is not host:port"},
		{"--endpoint 127.0.0.1:0", "no port between"},
		{"--endpoint 127.0.0.1:mqtts", "no port between"},
		{"--endpoint 0.0.0.0:8883", "loopback"},
		{"--endpoint example.com:8883", "loopback"},
		{"--dir=", "--dir is empty"},
		{"now", "unknown command"},
	} {
		cmd := Command()
		cmd.SetArgs(strings.Fields(test.args))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.args, err)
		}
	}
}

func TestEnvironmentDoesNotConfigureTheNodes(t *testing.T) {
	t.Setenv("MQCLUSTER_MESH_LISTEN", "0.0.0.0:1")
	t.Setenv("NOTIFY_SOCKET", "/run/somewhere")
	t.Setenv("UNRELATED", "stays")
	got := strings.Join(environment(), "\n") + "\n"
	if strings.Contains(got, "MQCLUSTER_") || strings.Contains(got, "NOTIFY_SOCKET") || !strings.Contains(got, "UNRELATED=stays\n") {
		t.Errorf("the nodes get %q", got)
	}
}

// TestNodeProcess runs a stand-in for the program.
func TestNodeProcess(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "stand-in")
	script := "#!/bin/sh\nif [ -e " + dir + "/fail ]; then echo cause and remedy; exit 3; fi\nexec sleep 60\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	n := &node{target: &target{name: "n1"}, log: filepath.Join(dir, "n1.log"), dir: dir, program: program}
	n.stop() // of a node that was never started
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	if !n.running() || n.pid() == 0 || n.died() != nil {
		t.Errorf("running %t, pid %d, died %v", n.running(), n.pid(), n.died())
	}
	n.kill()
	if n.running() || n.pid() != 0 || n.died() != nil {
		t.Errorf("after a kill: running %t, pid %d, died %v", n.running(), n.pid(), n.died())
	}
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if n.running() || n.died() != nil {
		t.Errorf("after a stop: running %t, died %v", n.running(), n.died())
	}
	if err := os.WriteFile(filepath.Join(dir, "fail"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return !n.running() })
	if err := n.died(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "cause and remedy") {
		t.Errorf("a node that ends by itself: %v", err)
	}
}

// TestStory runs the whole demo with the real program. It takes half a minute,
// so it only runs when MQCLUSTER_DEMO_TEST is set.
func TestStory(t *testing.T) {
	if os.Getenv("MQCLUSTER_DEMO_TEST") == "" {
		t.Skip("set MQCLUSTER_DEMO_TEST=1 to run it")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "mqcluster")
	build := exec.Command("go", "build", "-o", program, "github.com/mqcluster/mqcluster/cmd/mqcluster")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	endpoint, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	demo := exec.CommandContext(ctx, program, "demo", "--once", "--endpoint", endpoint, "--dir", filepath.Join(dir, "data"))
	demo.Stdout, demo.Stderr = &out, &out
	start := time.Now()
	err = demo.Run()
	t.Logf("%v\n%s", time.Since(start).Round(time.Second), out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kill -9 of", " leads after ", "has caught up with", "is back at", "nothing is lost", " 0 lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story does not say %q", want)
		}
	}
	if left := processesOf(program); left != "" {
		t.Errorf("left running: %s", left)
	}
}

// processesOf lists the processes of a program, where there is a /proc.
func processesOf(program string) (list string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == program {
			list += link + " "
		}
	}
	return list
}
