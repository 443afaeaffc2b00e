package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/bench"
)

// restartCase measures how soon a node with a large state serves again after
// kill -9, and how much memory it takes: topics retained topics and messages
// queued ones, all of which are read from that node afterwards and counted. Its
// 99th percentile is the time from exec to 200 of /readyz.
func (s *starter) restartCase(topics, messages int) bench.Case {
	const publishers, sessions = 100, 100
	fill := bench.Config{Scenario: bench.Retained, Clients: publishers, Count: topics / publishers, QoS: 1, Size: 64, Strict: true}
	return bench.Case{Name: "restart", Config: fill, Own: func(ctx context.Context, t bench.Target, c bench.Config) (bench.Report, error) {
		last := s.last[t.Name]
		if last == nil {
			return bench.Report{}, errors.New("only clusters that this program has started are restarted")
		}
		before, err := memory(last.proc.cmd.Process.Pid)
		if err != nil {
			return bench.Report{}, err
		}
		var out bench.Report
		c.PIDs = nil // one of them is to be another
		c.Between = func(ctx context.Context) error {
			q := c
			q.Scenario, q.Clients, q.Count, q.Persistent = bench.Offline, sessions, messages/sessions, true
			q.Between = func(ctx context.Context) error { return s.restart(ctx, last, &out) }
			queued, err := bench.Run(ctx, q)
			out.Phases = append(out.Phases, queued.Phases...)
			return err
		}
		stored, err := bench.Run(ctx, c)
		notes, latency := out.Notes, out.Latency
		phases := append(stored.Phases, out.Phases...)
		out = stored
		out.Phases, out.Latency, out.AckLatency = phases, latency, nil
		after, merr := memory(last.proc.cmd.Process.Pid)
		out.Notes = append(notes, fmt.Sprintf("%d retained topics, %d queued messages; resident when new %s, after everything was read %s",
			topics, messages, before, after))
		return out, errors.Join(err, merr)
	}}
}

// restart kills a node and starts it again.
func (s *starter) restart(ctx context.Context, n *clusterNode, out *bench.Report) error {
	full, err := memory(n.proc.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := n.proc.cmd.Process.Kill(); err != nil {
		return err
	}
	<-n.proc.done
	from := time.Now()
	if n.proc, err = s.spawn(n.target, n.dir+"-again.log", s.mqcluster, "run", "--data-dir", n.dir); err != nil {
		return err
	}
	if err := n.proc.until(ctx, func(ctx context.Context) error { return ready(ctx, n.health) }); err != nil {
		return err
	}
	took := time.Since(from)
	ms := float64(took) / float64(time.Millisecond)
	out.Latency = &bench.Quantiles{Count: 1, Mean: ms, P50: ms, P90: ms, P99: ms, P999: ms, Max: ms}
	again, err := memory(n.proc.cmd.Process.Pid)
	size := int64(0)
	walk := filepath.WalkDir(n.dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil // files come and go
	})
	out.Notes = append(out.Notes, fmt.Sprintf("ready %.2f s after exec; resident before the kill %s, when ready %s; data directory %d MiB",
		took.Seconds(), full, again, size>>20))
	return errors.Join(err, walk)
}

// resident is the memory of a process, in MiB: what it has allocated, and what it
// has mapped of files (the raft log), which the kernel takes back when it wants.
type resident struct{ own, mapped, peak int64 }

func (r resident) String() string {
	return fmt.Sprintf("%d MiB of its own and %d of files (peak %d)", r.own, r.mapped, r.peak)
}

func memory(pid int) (r resident, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return r, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		var kib int64
		switch _, _ = fmt.Sscan(value, &kib); key {
		case "RssAnon":
			r.own = kib >> 10
		case "RssFile":
			r.mapped = kib >> 10
		case "VmHWM":
			r.peak = kib >> 10
		}
	}
	return r, nil
}
