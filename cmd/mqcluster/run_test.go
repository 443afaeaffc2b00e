package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
)

// stubNode is a Node without a network.
type stubNode struct {
	left  chan struct{}
	asked chan struct{}
	hang  chan struct{} // Close waits for it, if there is one
	alive error
	ready atomic.Bool
}

func (s *stubNode) Left() <-chan struct{}  { return s.left }
func (s *stubNode) Asked() <-chan struct{} { return s.asked }
func (s *stubNode) Live() error            { return s.alive }
func (s *stubNode) Ready() admin.Readiness {
	if !s.ready.Load() {
		return admin.Readiness{Serving: true, Reasons: []string{"no lease"}}
	}
	return admin.Readiness{Lease: true, CaughtUp: true, Serving: true}
}
func (s *stubNode) Close() error {
	if s.hang != nil {
		<-s.hang
	}
	return nil
}

// What systemd hears of a node from its start to its end.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "n")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	stub := &stubNode{left: make(chan struct{}), hang: make(chan struct{})}
	app := fakeApp()
	app.Env = []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=2000", "MQCLUSTER_NODE_ID=a", "MQCLUSTER_MESH_LISTEN=127.0.0.1:7883"}
	app.Err = &bytes.Buffer{}
	app.Open = func(context.Context, node.Config, *slog.Logger) (Node, error) { return stub, nil }
	ended := make(chan int, 1)
	go func() { ended <- app.Main(t.Context(), []string{"run"}) }()
	hear := func() string {
		t.Helper()
		if err := systemd.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 100)
		n, err := systemd.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
	if got, want := hear(), "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=not ready: no lease"; got != want {
		t.Errorf("first %q, want %q", got, want)
	}
	// It is alive, and not ready as long as /readyz does not say so.
	if got := hear(); got != "WATCHDOG=1" {
		t.Errorf("before it is ready %q", got)
	}
	stub.ready.Store(true)
	after := func(want string) {
		t.Helper()
		got := hear()
		for got == "WATCHDOG=1" {
			got = hear()
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	after("READY=1\nSTATUS=serving")
	if got := hear(); got != "WATCHDOG=1" {
		t.Errorf("then %q", got)
	}
	// It is started once, whatever comes later.
	stub.ready.Store(false)
	after("STATUS=not ready: no lease")
	stub.ready.Store(true)
	after("STATUS=serving")
	close(stub.left)
	// As long as the drain may take, and what is left over for the rest.
	after("STOPPING=1\nSTATUS=sending clients away\nEXTEND_TIMEOUT_USEC=35000000")
	// A drain that takes longer than the watchdog's time is not the end.
	if got := hear(); got != "WATCHDOG=1" {
		t.Errorf("while it stops %q", got)
	}
	close(stub.hang)
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, test := range []struct {
		env  []string
		want time.Duration
	}{
		{nil, 0},
		{[]string{"WATCHDOG_USEC=3000000"}, 1500 * time.Millisecond},
		{[]string{"WATCHDOG_USEC=3000000", "WATCHDOG_PID=1"}, 0},
		{[]string{"WATCHDOG_USEC=x"}, 0},
	} {
		if got := watchdogInterval(test.env); got != test.want {
			t.Errorf("%v: %s", test.env, got)
		}
	}
}

// A node that is not well is not kept alive by its command line.
func TestWatchdogStopsWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		stub := &stubNode{left: make(chan struct{}), alive: errors.New("apply stands still")}
		newService([]string{"WATCHDOG_USEC=2000000"}, slog.New(slog.NewTextHandler(&log, nil))).wait(ctx, stub)
		if !strings.Contains(log.String(), "apply stands still") {
			t.Error(log.String())
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stub := &stubNode{hang: make(chan struct{})}
		before := time.Now()
		err := newService(nil, slog.New(slog.DiscardHandler)).stop(stub, 30*time.Second)
		if err == nil || !strings.Contains(err.Error(), "did not stop within 30s") || time.Since(before) != 30*time.Second {
			t.Errorf("%v after %s", err, time.Since(before))
		}
		close(stub.hang)
	})
}

func TestLog(t *testing.T) {
	for _, test := range []struct {
		name   string
		config node.LogConfig
		env    []string
		check  func(line string) bool
	}{
		{"text", node.LogConfig{Format: "text", Level: "info", Output: "stderr"}, nil, func(line string) bool {
			return strings.HasPrefix(line, "time=") && strings.HasSuffix(line, "level=WARN msg=hello node=a g.k=v\n")
		}},
		{"json", node.LogConfig{Format: "json", Level: "info", Output: "stderr"}, nil, func(line string) bool {
			var record struct{ Time, Level, Msg, Node string }
			return json.Unmarshal([]byte(line), &record) == nil && record.Level == "WARN" && record.Msg == "hello" && record.Node == "a" && record.Time != ""
		}},
		{"journald", node.LogConfig{Format: "text", Level: "info", Output: "journald"}, nil, func(line string) bool {
			return line == "<4>level=WARN msg=hello node=a g.k=v\n"
		}},
		{"under systemd", node.LogConfig{Format: "text", Level: "info", Output: "stderr"}, []string{"JOURNAL_STREAM=8:1"}, func(line string) bool {
			return line == "<4>level=WARN msg=hello node=a g.k=v\n"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			app := &App{Err: &out, Env: test.env}
			logger, done, err := app.openLog(test.config)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			logger.Debug("not this")
			logger.With("node", "a").WithGroup("g").Warn("hello", "k", "v")
			if !test.check(out.String()) {
				t.Errorf("%q", out.String())
			}
		})
	}
}

func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{"/a/b.c": "/a/b.c", "a b": "'a b'", "": "''", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := quoted(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
