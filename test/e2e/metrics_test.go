//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// scrape reads /metrics as Prometheus does.
func (n *Node) scrape() (text string, took time.Duration) {
	n.t.Helper()
	start := time.Now()
	r, err := http.Get("http://" + n.Health + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		n.t.Fatalf("/metrics of %s: %s %v", n.ID, r.Status, err)
	}
	return string(body), time.Since(start)
}

// A selector is a series with the labels that must be equal.
var (
	selectors = regexp.MustCompile(`(mqcluster_[a-z0-9_]+|process_[a-z_]+)(\{[^}]*\})?`)
	equals    = regexp.MustCompile(`([a-z_]+)="([^"$]+)"`)
)

// wanted are the series that a file of deploy/grafana names, as name{label="value"}
// without those labels that Prometheus adds.
func wanted(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "grafana", file))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range selectors.FindAllStringSubmatch(strings.ReplaceAll(string(text), `\"`, `"`), -1) {
		name := m[1]
		var labels []string
		for _, l := range equals.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "instance" && l[1] != "job" && l[1] != "le" {
				labels = append(labels, l[0])
			}
		}
		out = append(out, name+"{"+strings.Join(labels, ",")+"}")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// has tells whether a scrape has a series that is wanted.
func has(text, want string) bool {
	name, labels, _ := strings.Cut(strings.TrimSuffix(want, "}"), "{")
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		all := true
		for l := range strings.SplitSeq(labels, ",") {
			all = all && (l == "" || strings.Contains(rest, l))
		}
		if all {
			return true
		}
	}
	return false
}

// TestSeriesExist: every series that the alerts and the dashboard name is there on a
// cluster that runs. Those of the leader are on one node, others on each.
func TestSeriesExist(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: []string{"--backup.directory", t.TempDir(), "--backup.recipient", newVault(t).recipient}})
	// A message of each road, so that what is counted by reason or stage has come to be.
	s := c.Nodes[0].Connect(clean("sub"))
	s.Sub(rawmqtt.Sub("#", 1))
	p := c.Nodes[1].Connect(clean("pub"))
	p.Pub("x", 1, false, "x")
	p.Pub("x", 0, false, "x")
	s.Messages(2, patience)
	var texts []string
	for _, n := range c.Nodes {
		text, _ := n.scrape()
		texts = append(texts, text)
	}
	for _, file := range []string{"mqcluster.rules.yaml", "mqcluster.json"} {
		series := wanted(t, file)
		if len(series) < 20 {
			t.Errorf("%s names only %d series", file, len(series))
		}
		for _, want := range series {
			if !slices.ContainsFunc(texts, func(text string) bool { return has(text, want) }) {
				t.Errorf("%s names %s, which no node has", file, want)
			}
		}
	}
	// Nothing that a client chooses is a label.
	for _, text := range texts {
		if strings.Contains(text, `"sub"`) || strings.Contains(text, `"pub"`) {
			t.Error("a client id is a label")
		}
	}
}

// TestMetricsOfManyClients: with 10,000 clients (1,000 in the short form) on a node a
// scrape takes less than 100 ms and 500 KB.
func TestMetricsOfManyClients(t *testing.T) {
	clients := 1000
	if long() {
		clients = 10_000
	}
	c := NewCluster(t, Options{Nodes: 1, Flags: []string{"--limits.connect-timeout", "60s"}})
	n := c.Nodes[0]
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []*rawmqtt.Client
	next := make(chan int)
	for range 50 {
		all.Go(func() {
			for i := range next {
				// The port without TLS, where nobody needs a password: it is the metrics that
				// are measured, and not handshakes.
				raw, err := rawmqtt.Dial(t.Context(), n.Plain, nil, 5)
				if err != nil {
					t.Error(err)
					return
				}
				ack, err := raw.Connect(rawmqtt.Connect{Version: 5, ClientID: fmt.Sprintf("many-%d", i), KeepAlive: 600, CleanStart: true})
				if err == nil && ack.Reason == 0 {
					_, err = raw.Subscribe(1, rawmqtt.Sub(fmt.Sprintf("many/%d/#", i), 1))
				}
				if err != nil || ack.Reason != 0 {
					t.Errorf("client %d: %v %v", i, ack, err)
					return
				}
				mu.Lock()
				open = append(open, raw)
				mu.Unlock()
			}
		})
	}
	for i := range clients {
		next <- i
	}
	close(next)
	all.Wait()
	defer func() {
		for _, raw := range open {
			raw.Close()
		}
	}()
	if got := n.Metric("mqcluster_broker_connections"); int(got) < clients {
		t.Fatalf("%v clients are connected, not %d", got, clients)
	}
	var times []time.Duration
	size := 0
	for range 20 {
		text, took := n.scrape()
		times, size = append(times, took), len(text)
	}
	slices.Sort(times)
	t.Logf("%d clients: %d bytes; a scrape took %v in the median and %v at most", clients, size, times[10], times[19])
	if size > 500_000 || times[10] > 100*time.Millisecond {
		t.Errorf("a scrape has %d bytes and takes %v", size, times[10])
	}
}
