package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

// workerFlag makes the program a worker.
const workerFlag = "-worker"

// remote is a worker process as its parent sees it.
type remote struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	encoder *gob.Encoder
	decoder *gob.Decoder
}

// workers are all of them. They end when their standard input does.
type workers []*remote

// startWorkers runs this program again, once for each generator of the plan.
func startWorkers(p *plan) (all workers, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("this program does not know its own path: %w", err)
	}
	for i := range p.Workers {
		cmd := exec.Command(self, workerFlag)
		if i < p.stormy() {
			// The devices of the storm have processors of their own: what they compute for
			// their handshakes is not to be taken from the nodes, nor from those measured.
			cmd = leisurely(self, workerFlag)
		}
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return all, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return all, err
		}
		if err := cmd.Start(); err != nil {
			return all, fmt.Errorf("a generator process cannot be started: %w", err)
		}
		all = append(all, &remote{cmd, in, gob.NewEncoder(in), gob.NewDecoder(out)})
	}
	return all, nil
}

// close ends all and waits for them.
func (ws workers) close() error {
	var errs []error
	for _, w := range ws {
		errs = append(errs, w.in.Close())
	}
	for _, w := range ws {
		errs = append(errs, w.cmd.Wait())
	}
	return errors.Join(errs...)
}

func (ws workers) pids() (out []int) {
	for _, w := range ws {
		out = append(out, w.cmd.Process.Pid)
	}
	return out
}

func (r *remote) call(q request) (reply, error) {
	var answer reply
	if err := r.encoder.Encode(q); err != nil {
		return answer, fmt.Errorf("a generator process cannot be told to %s: %w", q.Op, err)
	}
	if err := r.decoder.Decode(&answer); err != nil {
		return answer, fmt.Errorf("a generator process ended instead of answering %s: %w", q.Op, err)
	}
	if answer.Error != "" {
		return answer, fmt.Errorf("a generator process could not %s: %s", q.Op, answer.Error)
	}
	return answer, nil
}

// call asks all at the same time. The requests are one for all or one for each.
func (ws workers) call(qs ...request) ([]reply, error) {
	replies, errs := make([]reply, len(ws)), make([]error, len(ws))
	var all sync.WaitGroup
	for i, w := range ws {
		all.Go(func() { replies[i], errs[i] = w.call(qs[i%len(qs)]) })
	}
	all.Wait()
	return replies, errors.Join(errs...)
}

// tell asks all for nothing but to do something.
func (ws workers) tell(op string) error {
	_, err := ws.call(request{Op: op})
	return err
}

func (ws workers) status() (s status, err error) {
	replies, err := ws.call(request{Op: opStatus})
	for _, r := range replies {
		s.add(r.Status)
	}
	return s, err
}

func (ws workers) account() (a account, err error) {
	replies, err := ws.call(request{Op: opAccount})
	for _, r := range replies {
		a.merge(r.Account)
	}
	return a, err
}

func (ws workers) samples() (s samples, outages []outage, err error) {
	replies, err := ws.call(request{Op: opSamples})
	for _, r := range replies {
		s.merge(r.Samples)
		outages = append(outages, r.Outages...)
	}
	return s, outages, err
}
