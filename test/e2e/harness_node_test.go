//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Node is one process of a Cluster, or its remains.
type Node struct {
	ID  string
	Dir string
	// TLS and Plain are the addresses for clients, Mesh is where the process
	// listens for the others and Advertise where they look for it.
	TLS, Plain, Mesh, Advertise, Health string
	Disk                                *disk // with Options.Disks

	t       *testing.T
	cluster *Cluster
	log     string // file
	wall    string // file, with Options.Wall

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	paused bool
}

// flags are what init and join write into the node's configuration. The clients of
// these tests have no balancer that would have to notice a drain; of flags that come
// twice the later one counts.
func (n *Node) flags(extra []string) []string {
	return append([]string{
		"--drain.delay", "0s",
		"--data-dir", n.Dir, "--node", n.ID, "--mesh.listen", n.Mesh, "--mesh.advertise", n.Advertise,
		"--health.listen", n.Health, "--listener", "tls,address=" + n.TLS,
		"--listener", "tcp,allow_plaintext=true,allow_anonymous=true,address=" + n.Plain,
	}, extra...)
}

// Start starts the process and returns at once; WaitReady waits for it.
func (n *Node) Start() {
	n.t.Helper()
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, "run", "--data-dir", n.Dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), n.cluster.env...)
	if n.wall != "" {
		cmd.Env = append(cmd.Env, wallVariable+"="+n.wall)
	}
	// A test program that is killed leaves no processes behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.exited, n.paused = cmd, exited, false
	n.mu.Unlock()
	go func() {
		_ = cmd.Wait() // the state is in cmd.ProcessState
		close(exited)
	}()
}

// PID is the process id, 0 if the node does not run.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Running tells whether the process is there, paused or not.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if !n.Running() {
		n.t.Fatalf("node %s does not run and cannot be sent %v", n.ID, s)
	}
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatalf("node %s: %v: %v", n.ID, s, err)
	}
}

// Kill is kill -9; it returns when the process is gone.
func (n *Node) Kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	<-n.exited
	n.forget()
}

func (n *Node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = nil
}

// Stop is SIGTERM; it returns when the process has ended by itself.
func (n *Node) Stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	n.AwaitExit(patience)
}

// AwaitExit waits until the process has ended, with code 0.
func (n *Node) AwaitExit(limit time.Duration) {
	n.t.Helper()
	select {
	case <-n.exited:
	case <-time.After(limit):
		n.t.Fatalf("node %s did not end within %v", n.ID, limit)
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		n.t.Errorf("node %s ended with %v", n.ID, n.cmd.ProcessState)
	}
	n.forget()
}

// Pause is SIGSTOP: the node hangs and its connections stay.
func (n *Node) Pause() {
	n.t.Helper()
	n.signal(syscall.SIGSTOP)
	// The signal is sent, not yet felt by all threads. One that waits for a disk (D)
	// stops before it computes again.
	await(n.t, patience, func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n.cmd.Process.Pid))
		if err != nil || len(tasks) == 0 {
			return false
		}
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if _, rest, ok := strings.Cut(string(stat), ") "); err == nil && (!ok || !strings.ContainsRune("TDZX", rune(rest[0]))) {
				return false
			}
		}
		return true
	}, func() string { return n.ID + " does not stop on SIGSTOP" })
	n.paused = true
}

// Resume is SIGCONT.
func (n *Node) Resume() {
	n.t.Helper()
	n.signal(syscall.SIGCONT)
	n.paused = false
}

// Restart starts a node that does not run and waits until it is ready.
func (n *Node) Restart() {
	n.t.Helper()
	n.Start()
	n.WaitReady(patience)
}

// Ready asks /readyz and returns its code, 0 if nobody answered.
func (n *Node) Ready() (code int, body string) {
	client := http.Client{Timeout: time.Second}
	r, err := client.Get("http://" + n.Health + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
	return r.StatusCode, strings.TrimSpace(string(text))
}

// get asks the health listener for a path and returns the code, 0 if nobody answered.
func (n *Node) get(path string) int {
	client := http.Client{Timeout: time.Second}
	r, err := client.Get("http://" + n.Health + path)
	if err != nil {
		return 0
	}
	r.Body.Close()
	return r.StatusCode
}

// WaitReady waits until /readyz says 200.
func (n *Node) WaitReady(limit time.Duration) {
	n.t.Helper()
	n.WaitReadyz(http.StatusOK, limit)
}

// WaitReadyz waits until /readyz answers with the code and returns how long that
// took.
func (n *Node) WaitReadyz(code int, limit time.Duration) time.Duration {
	n.t.Helper()
	var last int
	var body string
	return await(n.t, limit, func() bool {
		if !n.Running() {
			n.t.Fatalf("node %s has ended", n.ID)
		}
		last, body = n.Ready()
		return last == code
	}, func() string { return fmt.Sprintf("node %s: /readyz says %d (%s), not %d", n.ID, last, body, code) })
}

// Metric returns the value of a metric without labels, or the sum over labels.
func (n *Node) Metric(name string) float64 {
	n.t.Helper()
	r, err := http.Get("http://" + n.Health + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	total := 0.0
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err == nil {
			total += v
		}
	}
	return total
}

// CLI runs a verb of the program for this node and fails the test if it fails.
func (n *Node) CLI(args ...string) string {
	n.t.Helper()
	out, err := n.TryCLI("", args...)
	if err != nil {
		n.t.Fatalf("mqcluster %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TryCLI runs a verb and returns what it printed; the error has what it
// complained about.
func (n *Node) TryCLI(stdin string, args ...string) (string, error) {
	return command(stdin, append(args, "--data-dir", n.Dir)...)
}

// command runs the program, for at most patience.
func command(stdin string, args ...string) (string, error) {
	return commandContext(context.Background(), stdin, args...)
}

// commandBoth runs the program and returns what it printed and what it complained about.
func commandBoth(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}

func commandContext(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// Status is the part of status -o json that the tests read.
type Status struct {
	ClusterID    string   `json:"cluster_id"`
	Node         string   `json:"node"`
	Leader       string   `json:"leader"`
	Quorum       bool     `json:"quorum"`
	Term         uint64   `json:"term"`
	CommitIndex  uint64   `json:"commit_index"`
	AppliedIndex uint64   `json:"applied_index"`
	Members      []Member `json:"members"`
}

// Member is one line of it.
type Member struct {
	Node    string `json:"node"`
	Role    string `json:"role"`
	Up      bool   `json:"up"`
	Applied uint64 `json:"applied_index"`
	Clients int    `json:"clients"`
	Version string `json:"version"`
}

// Votes tells whether the member's vote counts.
func (m Member) Votes() bool { return m.Role == "leader" || m.Role == "voter" }

// Status asks the node for the cluster as it sees it.
func (n *Node) Status() (Status, error) {
	var s Status
	out, err := n.TryCLI("", "status", "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("status -o json of %s: %w in %q", n.ID, err, out)
	}
	return s, nil
}

// Log returns what the node has logged so far.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// tail is the end of the log, for the report of a failed test.
func (n *Node) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(n.Log()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// end kills the process, whatever state it is in.
func (n *Node) end() {
	if !n.Running() {
		return
	}
	_ = n.cmd.Process.Kill() // it may end at the same time
	<-n.exited
	n.forget()
}

func (n *Node) path(elem ...string) string {
	return filepath.Join(append([]string{n.Dir}, elem...)...)
}

// await polls a condition until it holds and returns how long that took; after
// limit the test fails with what it says.
func await(t *testing.T, limit time.Duration, is func() bool, says func() string) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Since(start) > limit {
			t.Fatalf("after %v: %s", limit, says())
		}
		<-tick.C
	}
	return time.Since(start)
}
