package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mqcluster/mqcluster/bench"
)

// readyIn bounds how long a broker may take to serve.
const readyIn = 30 * time.Second

// starter starts brokers and ends them.
type starter struct {
	options
	dir    string
	pki    *pki
	starts int
	procs  []*proc
	last   map[string]*clusterNode // of each cluster, the one with the subscribers
}

// clusterNode is a node that was started and may be killed and started again.
type clusterNode struct {
	name, target, dir, health string
	proc                      *proc
}

// proc is a process that was started, with its end.
type proc struct {
	target, log string
	cmd         *exec.Cmd
	done        chan struct{} // closed after it has ended
}

// start starts a target in a directory of its own. Its Renew starts it once more
// and ends the one before.
func (s *starter) start(ctx context.Context, name string) (bench.Target, error) {
	s.starts++
	dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", name, s.starts))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return bench.Target{}, err
	}
	t, err := s.startIn(ctx, name, dir)
	t.Renew = func(ctx context.Context) (bench.Target, error) {
		if err := s.end(name); err != nil {
			return bench.Target{}, err
		}
		return s.start(ctx, name)
	}
	return t, err
}

func (s *starter) startIn(ctx context.Context, name, dir string) (bench.Target, error) {
	if command := s.commands[name]; command != "" {
		return s.startCommand(ctx, name, dir, command)
	}
	switch name {
	case "mosquitto":
		return s.startMosquitto(ctx, name, dir)
	case "nats":
		return s.startNATS(ctx, name, dir)
	case "null":
		return s.startNull(ctx, name, dir)
	case "one":
		return s.startCluster(ctx, name, dir, 1)
	case "watched":
		return s.startWatched(ctx, name, dir)
	case "three":
		return s.startCluster(ctx, name, dir, 3)
	}
	return bench.Target{}, errors.New("it is none of mosquitto, nats, null, one, watched and three, and no -peer")
}

// spawn starts a process of a target, whose output goes to a file.
func (s *starter) spawn(target, output, path string, args ...string) (*proc, error) {
	log, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proc{target: target, log: output, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in its log
	}()
	s.procs = append(s.procs, p)
	return p, nil
}

// close ends all processes and waits for them.
func (s *starter) close() error { return s.end("") }

// end ends the processes of a target, or of all, and waits for them.
func (s *starter) end(target string) error {
	var ending []*proc
	s.procs = slices.DeleteFunc(s.procs, func(p *proc) bool {
		mine := target == "" || p.target == target
		if mine {
			ending = append(ending, p)
		}
		return mine
	})
	var errs []error
	for _, p := range ending {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, p := range ending {
		select {
		case <-p.done:
		case <-time.After(readyIn):
			errs = append(errs, fmt.Errorf("a process of %s did not end in %v and was killed: see %s", p.target, readyIn, p.log))
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	return errors.Join(errs...)
}

// until asks again until f gives no error, the process ends or the time is up.
func (p *proc) until(ctx context.Context, f func(context.Context) error) error {
	return poll(ctx, p, f)
}

// poll asks again until f gives no error, the process, if there is one, ends or the
// time is up.
func poll(ctx context.Context, p *proc, f func(context.Context) error) error {
	var done chan struct{}
	if p != nil {
		done = p.done
	}
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("%s has ended: see %s", p.cmd.Path, p.log)
		case <-ctx.Done():
			return fmt.Errorf("not ready in %v: %w", readyIn, err)
		case <-tick.C:
		}
	}
}

// freeAddresses are n loopback addresses, no two alike, with ports that were free
// just now. They are held until all are chosen: the kernel likes to give a port
// that was let go once more.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		all = append(all, ln.Addr().String())
	}
	return all, nil
}
