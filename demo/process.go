package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

// verbTimeout bounds init and join.
const verbTimeout = 30 * time.Second

// stopTimeout is how long a node may take to stop by itself.
const stopTimeout = 8 * time.Second

// node is one node of the demo: its ports, its files and its process, if any.
type node struct {
	*target
	mesh    string
	dir     string
	log     string // file
	socket  string // of the admin API; empty: the node's own choice
	program string
	admin   *admin.Client

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	wanted bool          // the demo did not end the process itself
}

// newNode chooses the ports of a node, whose files go into w, but for its socket
// if there is a temp.
func newNode(name string, w *workdir, temp, program string) (*node, error) {
	n := &node{
		target: &target{name: name}, dir: w.join(name), log: w.join(name + ".log"), program: program,
	}
	for _, address := range []*string{&n.address, &n.health, &n.mesh} {
		free, err := freeAddress()
		if err != nil {
			return nil, err
		}
		*address = free
	}
	socket := w.join(name, socketFile)
	if temp != "" {
		n.socket = temp + "/" + name + ".sock"
		socket = n.socket
	}
	n.admin = admin.NewClient(socket)
	return n, nil
}

// socketFile is where a node has its socket by itself, in its directory.
const socketFile = "admin.sock"

// maxSocketPath is what the shortest sun_path of the systems holds.
const maxSocketPath = 100

// freeAddress returns an address of loopback that nobody listens at. Its port is
// below those that systems give to outgoing connections, so that it is still
// free when the node is started again.
func freeAddress() (string, error) {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(22000))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no port of 127.0.0.1 between 10000 and 32000 is free: stop what uses them")
}

// flags are what init and join write into the node's configuration.
func (n *node) flags() []string {
	flags := []string{
		"--data-dir", n.dir, "--node", n.name,
		"--mesh.listen", n.mesh, "--mesh.advertise", n.mesh, "--health.listen", n.health,
		"--listener", "tls,address=" + n.address + ",require_client_cert=true,proxy_from=127.0.0.0/8",
		"--drain.delay", "0s", "--drain.timeout", "2s",
	}
	if n.socket != "" {
		flags = append(flags, "--admin.socket", n.socket)
	}
	return flags
}

// verb runs one verb of the program to its end and returns what it printed.
func verb(ctx context.Context, program, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, complaint bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environment(), strings.NewReader(stdin), &out, &complaint
	cmd.SysProcAttr = processAttr()
	if err := cmd.Run(); err != nil {
		if text := lastLine(complaint.String()); text != "" {
			return "", fmt.Errorf("%s failed: %s", args[0], text)
		}
		return "", fmt.Errorf("%s failed: %w", args[0], err)
	}
	return out.String(), nil
}

// environment is that of the demo without what would configure the nodes.
func environment() (out []string) {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch {
		case strings.HasPrefix(name, "MQCLUSTER_"):
		case name == "NOTIFY_SOCKET", name == "WATCHDOG_USEC", name == "WATCHDOG_PID", name == "JOURNAL_STREAM":
		default:
			out = append(out, variable)
		}
	}
	return out
}

// start starts the node's process and returns when it exists; whether it is
// ready is for its probes to say.
func (n *node) start() error {
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("the log of node %s cannot be written: %w", n.name, err)
	}
	defer out.Close()
	cmd := exec.Command(n.program, "run", "--data-dir", n.dir)
	cmd.Env, cmd.Stdout, cmd.Stderr = environment(), out, out
	cmd.SysProcAttr = processAttr()
	exited, started := make(chan struct{}), make(chan error, 1)
	go func() {
		// The signal of Pdeathsig comes when the thread ends that started the
		// process: this one does not before the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the outcome is in cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("node %s cannot be started: %w", n.name, err)
	}
	n.mu.Lock()
	n.cmd, n.exited, n.wanted = cmd, exited, true
	n.mu.Unlock()
	return nil
}

// process returns the process and the channel that is closed at its end; both
// are nil before the first start.
func (n *node) process() (*exec.Cmd, chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd, n.exited
}

// running tells whether the process is there.
func (n *node) running() bool {
	_, exited := n.process()
	if exited == nil {
		return false
	}
	select {
	case <-exited:
		return false
	default:
		return true
	}
}

// died returns an error if the process ended although the demo wants it.
func (n *node) died() error {
	cmd, _ := n.process()
	n.mu.Lock()
	wanted := n.wanted
	n.mu.Unlock()
	if cmd == nil || !wanted || n.running() {
		return nil
	}
	text, _ := os.ReadFile(n.log) // without it there is still the state
	return fmt.Errorf("node %s ended by itself (%s): %s; its log is %s", n.name, cmd.ProcessState, lastLine(string(text)), shown(n.log))
}

// pid is 0 if the process is not there.
func (n *node) pid() int {
	cmd, _ := n.process()
	if cmd == nil || !n.running() {
		return 0
	}
	return cmd.Process.Pid
}

// kill is kill -9; it returns when the process is gone.
func (n *node) kill() {
	n.end(syscall.SIGKILL)
	if _, exited := n.process(); exited != nil {
		<-exited
	}
}

// stop asks the process to end and kills it if that takes too long.
func (n *node) stop() {
	cmd, exited := n.process()
	if cmd == nil {
		return
	}
	n.end(syscall.SIGTERM)
	// A process that somebody has paused cannot hear the signal.
	_ = cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-exited:
	case <-time.After(stopTimeout):
		n.kill()
	}
}

func (n *node) end(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted = false
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s) // it may have ended at the same time
	}
}

func lastLine(text string) string {
	text = strings.TrimRight(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
