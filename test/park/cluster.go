package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is one that was started; done is closed at its end.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// stopIn is how long a process may take to end by itself.
const stopIn = 20 * time.Second

// spawn starts a process whose output goes to a file, behind what is there.
func spawn(name, log, path string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: name, log: log, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = out, out, processAttr()
	started := make(chan error, 1)
	go func() {
		// The signal of Pdeathsig comes when the thread ends that started the process:
		// this one does not before the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in its ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", name, err)
	}
	return p, nil
}

// kill is kill -9; it returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(stopIn):
		p.kill()
	}
}

// ended is an error if the process is gone.
func (p *process) ended() error {
	select {
	case <-p.done:
		text, _ := os.ReadFile(p.log) // without it there is still the state
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return fmt.Errorf("%s ended (%s): %s", p.name, p.cmd.ProcessState, lines[len(lines)-1])
	default:
		return nil
	}
}

// node is one node of the cluster. Its process is nil while it is not running.
type node struct {
	name, dir             string
	clients, mesh, health string // addresses
	process               *process
}

// cluster is the nodes and the program that they run.
type cluster struct {
	program string
	dir     string
	nodes   []*node
}

// freeAddress returns one that nobody listens at. They are below the ports that the
// system gives to outgoing connections, so that a node that starts again finds its
// own free.
type freeAddresses struct{ next int }

func (f *freeAddresses) address() (string, error) {
	for ; f.next < 32000; f.next++ {
		address := fmt.Sprintf("127.0.0.1:%d", f.next)
		if l, err := net.Listen("tcp", address); err == nil {
			f.next++
			return address, l.Close()
		}
	}
	return "", errors.New("no port of 127.0.0.1 below 32000 is free: stop what uses them")
}

// newCluster makes three nodes, starts them and waits until they serve. memory is
// what one password hash takes, empty for the program's default.
func newCluster(ctx context.Context, program, dir, deviceCA, memory string, free *freeAddresses) (*cluster, error) {
	c := &cluster{program: program, dir: dir}
	token := filepath.Join(dir, "token")
	for _, name := range []string{"a", "b", "c"} {
		n := &node{name: name, dir: filepath.Join(dir, name)}
		for _, address := range []*string{&n.clients, &n.mesh, &n.health} {
			var err error
			if *address, err = free.address(); err != nil {
				return c, err
			}
		}
		args := []string{"init", "--cluster.name", "park"}
		if len(c.nodes) > 0 {
			args = []string{"join", c.nodes[0].mesh, "--token-file", token}
		}
		args = append(args, "--data-dir", n.dir, "--node", name, "--mesh.listen", n.mesh, "--mesh.advertise", n.mesh,
			"--health.listen", n.health, "--listener", "tls,address="+n.clients+",require_client_cert=true,client_ca_file="+deviceCA+
				",min_version=1.3,proxy_from=127.0.0.0/8", "--drain.delay", "0s") // they stop all at once
		if memory != "" {
			args = append(args, "--auth.argon2-memory", memory)
		}
		if _, err := c.verb(ctx, args...); err != nil {
			return c, err
		}
		c.nodes = append(c.nodes, n)
		if err := c.start(ctx, n); err != nil {
			return c, err
		}
		if len(c.nodes) > 1 {
			continue
		}
		text, err := c.verb(ctx, "token", "create", "--quiet", "--uses", "2", "--data-dir", n.dir)
		if err != nil {
			return c, err
		}
		if err := os.WriteFile(token, text, 0o600); err != nil {
			return c, err
		}
	}
	return c, nil
}

// verb runs one verb of the program to its end and returns what it printed.
func (c *cluster) verb(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, c.program, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, fmt.Errorf("mqcluster %s: %s", args[0], strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return out, fmt.Errorf("mqcluster %s: %w", args[0], err)
	}
	return out, nil
}

// start runs a node and waits until it serves.
func (c *cluster) start(ctx context.Context, n *node) (err error) {
	n.process, err = spawn("node "+n.name, filepath.Join(c.dir, n.name+".log"), c.program, "run", "--data-dir", n.dir)
	if err != nil {
		return err
	}
	return await(ctx, time.Minute, "node "+n.name+" is ready", func() (bool, error) {
		if err := n.process.ended(); err != nil {
			return false, err
		}
		response, err := http.Get("http://" + n.health + "/readyz")
		if err != nil {
			return false, nil // it does not listen yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
}

// metrics are the node's own, as Prometheus reads them.
func (n *node) metrics() (string, error) {
	response, err := http.Get("http://" + n.health + "/metrics")
	if err != nil {
		return "", fmt.Errorf("the metrics of node %s: %w", n.name, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// close stops all nodes.
func (c *cluster) close() {
	for _, n := range c.nodes {
		if n.process != nil {
			n.process.stop()
		}
	}
}

// view is what status tells of the cluster.
type view struct {
	Leader  string `json:"leader"`
	Members []struct {
		Node    string `json:"node"`
		Clients int    `json:"clients"`
	} `json:"members"`
}

func (c *cluster) view(ctx context.Context) (v view, err error) {
	for _, n := range c.nodes {
		if n.process == nil || n.process.ended() != nil {
			continue
		}
		text, err := c.verb(ctx, "status", "-o", "json", "--data-dir", n.dir)
		if err != nil {
			return v, err
		}
		return v, json.Unmarshal(text, &v)
	}
	return v, errors.New("no node runs")
}

// victim is the leader, and how many clients it serves.
func (c *cluster) victim(ctx context.Context) (*node, int, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, 0, err
	}
	for i, m := range v.Members {
		if m.Node == v.Leader {
			for _, n := range c.nodes {
				if n.name == v.Leader {
					return n, v.Members[i].Clients, nil
				}
			}
		}
	}
	return nil, 0, fmt.Errorf("the status names no leader among the members: %+v", v)
}

// await asks until is is true, and fails after limit.
func await(ctx context.Context, limit time.Duration, what string, is func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := is()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not come true in %v that %s: %w", limit, what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
