package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/node"
)

const (
	// probeEvery is how often it is looked at what systemd has to know.
	probeEvery = 200 * time.Millisecond
	// A node that waits for its cluster is not stuck: every extendEvery it asks
	// systemd for startMargin more before the start counts as failed.
	extendEvery = 10 * time.Second
	startMargin = time.Minute
)

// service is what systemd is told of a node: READY=1 once /readyz says so,
// WATCHDOG=1 while the node answers, STATUS= with the reason where it is not ready.
// Without systemd it only waits.
type service struct {
	manager  *notifier
	log      *slog.Logger
	watchdog time.Duration // 0: systemd has none

	ready    bool
	status   string
	extended time.Time
}

func newService(env []string, log *slog.Logger) *service {
	return &service{manager: newNotifier(env), log: log, watchdog: watchdogInterval(env)}
}

// wait returns when the node is to stop.
func (s *service) wait(ctx context.Context, running Node) {
	strokes, done := s.strokes()
	defer done()
	var probes <-chan time.Time
	if s.manager.address != "" {
		ticker := time.NewTicker(probeEvery)
		defer ticker.Stop()
		probes = ticker.C
		s.probe(running)
	}
	for {
		select {
		case <-ctx.Done():
			s.log.Info("stopping on a signal")
			return
		case <-running.Left():
			s.log.Info("stopping: this node has left the cluster")
			return
		case <-running.Asked():
			s.log.Info("stopping: an operator drained this node to stop it")
			return
		case <-probes:
			s.probe(running)
		case <-strokes:
			s.stroke(running)
		}
	}
}

// probe tells systemd what has changed since the last time.
func (s *service) probe(running Node) {
	var news []string
	readiness := running.Ready()
	status := "serving"
	if !readiness.Ready() {
		status = "not ready: " + strings.Join(readiness.Reasons, "; ")
	}
	if readiness.Ready() && !s.ready {
		s.ready = true
		news = append(news, "READY=1")
	}
	if !s.ready && time.Since(s.extended) >= extendEvery {
		s.extended = time.Now()
		news = append(news, extension(startMargin))
	}
	if status != s.status {
		s.status = status
		news = append(news, "STATUS="+status)
	}
	if len(news) > 0 {
		s.tell(strings.Join(news, "\n"))
	}
}

// strokes ticks when the watchdog is due.
func (s *service) strokes() (<-chan time.Time, func()) {
	if s.watchdog <= 0 {
		return nil, func() {}
	}
	ticker := time.NewTicker(s.watchdog)
	return ticker.C, ticker.Stop
}

// stroke tells the watchdog that the node is well. One whose locks are never
// released does not come back from Ready, and systemd ends it.
func (s *service) stroke(running Node) {
	if live, can := running.(interface{ Live() error }); can {
		if err := live.Live(); err != nil {
			s.log.Error("the watchdog is not stroked", "err", err)
			return
		}
	}
	running.Ready()
	s.tell("WATCHDOG=1")
}

// stop closes the node within limit, and has systemd wait that long. What has not
// ended by then is left to the end of the process, which loses nothing that was
// acknowledged.
func (s *service) stop(running Node, limit time.Duration) error {
	s.tell("STOPPING=1\nSTATUS=sending clients away\n" + extension(limit))
	closed := make(chan error, 1)
	go func() { closed <- running.Close() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	strokes, done := s.strokes()
	defer done()
	for {
		select {
		case err := <-closed:
			return err
		case <-strokes: // limit is the watchdog now
			s.tell("WATCHDOG=1")
		case <-timer.C:
			return fmt.Errorf("the node did not stop within %s: it was ended; nothing acknowledged is lost", node.FormatDuration(limit))
		}
	}
}

// extension asks systemd to wait for at least d from now for what it waits for.
func extension(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}

func (s *service) tell(state string) {
	if err := s.manager.notify(state); err != nil {
		s.log.Warn("systemd was not told", "err", err)
	}
}
