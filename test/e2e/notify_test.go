//go:build linux

package e2e

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSystemdHearsWhatReadyzSays runs a node with the socket that systemd would give
// it. It is started when /readyz says so and not before, strokes the watchdog while it
// waits, too, and says that it stops.
func TestSystemdHearsWhatReadyzSays(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 3})
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(c.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, n := range c.Nodes {
		n.Stop()
	}
	const watchdog = 400 * time.Millisecond
	n := c.Nodes[0]
	c.env = []string{"NOTIFY_SOCKET=" + filepath.Join(c.dir, "notify"), "WATCHDOG_USEC=400000"}
	n.Start()
	c.env = nil

	// hear reads until one has the text, and returns all that came.
	hear := func(want string) (all []string) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for text := make([]byte, 4096); ; {
			count, err := socket.Read(text)
			if err != nil {
				t.Fatalf("%v: no %q after %q", err, want, all)
			}
			all = append(all, string(text[:count]))
			if strings.Contains(all[len(all)-1], want) {
				return all
			}
		}
	}
	hear("STATUS=not ready: no lease")
	// Five times the watchdog's time without a majority: it lives and is not ready.
	start := time.Now()
	for range 10 {
		if all := hear("WATCHDOG=1"); strings.Contains(strings.Join(all, "\n"), "READY=1") {
			t.Fatalf("a node without a majority says it is ready: %q", all)
		}
	}
	if took := time.Since(start); took > 10*watchdog {
		t.Errorf("ten strokes took %v, and systemd wants one every %v", took, watchdog)
	}
	if code, _ := n.Ready(); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d without a majority", code)
	}
	c.Nodes[1].Start()
	hear("READY=1\n")
	if code, body := n.Ready(); code != http.StatusOK {
		t.Errorf("it says READY=1 and /readyz says %d %s", code, body)
	}
	hear("WATCHDOG=1")
	n.Stop()
	hear("STOPPING=1\n")
}
