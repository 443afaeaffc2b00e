//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TraceStep is one line of trace -o json.
type TraceStep struct {
	Node      string `json:"node"`
	Step      string `json:"step"`
	Client    string `json:"client"`
	Publisher string `json:"publisher"`
	Topic     string `json:"topic"`
	Index     uint64 `json:"index"`
	PacketID  uint16 `json:"packet_id"`
	Why       string `json:"why"`
}

// traced is a mqcluster trace that runs.
type traced struct {
	t    *testing.T
	stop func()

	mu    sync.Mutex
	steps []TraceStep
}

// Trace starts a trace and returns when all running nodes take part.
func (n *Node) Trace(args ...string) *traced {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, append([]string{"trace", "-o", "json", "--data-dir", n.Dir}, args...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	done := make(chan struct{})
	tr := &traced{t: n.t, stop: func() { cancel(); <-done }}
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s TraceStep
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
				n.t.Errorf("trace printed %q: %v", lines.Text(), err)
				continue
			}
			tr.mu.Lock()
			tr.steps = append(tr.steps, s)
			tr.mu.Unlock()
		}
		_ = cmd.Wait() // it was killed
	}()
	n.t.Cleanup(tr.stop)
	for _, other := range n.cluster.Running() {
		tr.await(func(s TraceStep) bool { return s.Step == "note" && s.Node == other.ID && s.Why == "is traced" })
	}
	return tr
}

// await returns the first step that is as wanted.
func (tr *traced) await(is func(TraceStep) bool) (found TraceStep) {
	tr.t.Helper()
	await(tr.t, patience, func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, s := range tr.steps {
			if is(s) {
				found = s
				return true
			}
		}
		return false
	}, func() string {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		var all []string
		for _, s := range tr.steps {
			all = append(all, fmt.Sprintf("%+v", s))
		}
		return "the step does not come:\n" + strings.Join(all, "\n")
	})
	return found
}

// step awaits a step of a kind on a node about a client.
func (tr *traced) step(node *Node, kind, client string) TraceStep {
	tr.t.Helper()
	return tr.await(func(s TraceStep) bool {
		return (node == nil || s.Node == node.ID) && s.Step == kind && s.Client == client
	})
}

// TestTrace shows the whole way of a message from a client on one node to a session
// that another one had and that comes back on a third; QoS 0 from node to node; and why
// messages are dropped.
func TestTrace(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	a, b, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	s := b.Connect(persistent("sub", 3600))
	s.Sub(rawmqtt.Sub("way/#", 1))
	s.Disconnect(0)
	await(t, patience, func() bool {
		return !strings.Contains(a.CLI("session", "show", "sub"), "on node")
	}, func() string { return "the session has a connection still" })

	t.Run("the way", func(t *testing.T) {
		c.In(t)
		tr := b.Trace("way/#")
		p := a.Connect(clean("pub"))
		p.Pub("way/1", 1, false, "x")
		tr.step(a, "accepted", "pub")
		committed := tr.step(a, "committed", "pub")
		waits := tr.step(nil, "waits", "sub")
		back := third.Connect(persistent("sub", 3600))
		if got := back.Messages(1, patience)[0]; string(got.Payload) != "x" {
			t.Fatalf("got %v", got)
		}
		delivered, acked := tr.step(third, "delivered", "sub"), tr.step(third, "acknowledged", "sub")
		for what, s := range map[string]TraceStep{"waits": waits, "delivered": delivered, "acknowledged": acked} {
			if s.Index != committed.Index || s.Index == 0 || s.Topic != "way/1" || s.Publisher != "pub" {
				t.Errorf("%s is %+v, committed %+v", what, s, committed)
			}
		}
		tr.step(third, "queued", "sub")
		// QoS 0 by the mesh, to the same client.
		p.Pub("way/zero", 0, false, "y")
		tr.await(func(s TraceStep) bool { return s.Step == "forwarded" && s.Node == a.ID && s.Topic == "way/zero" })
		tr.await(func(s TraceStep) bool { return s.Step == "arrived" && s.Node == third.ID && s.Topic == "way/zero" })
		tr.await(func(s TraceStep) bool {
			return s.Step == "delivered" && s.Node == third.ID && s.Topic == "way/zero" && s.Client == "sub" && s.Publisher == "pub"
		})
		// What does not match is not told.
		p.Pub("other", 1, false, "z")
		p.Pub("way/2", 1, false, "z")
		back.Messages(2, patience)
		tr.await(func(s TraceStep) bool { return s.Step == "acknowledged" && s.Topic == "way/2" })
		tr.mu.Lock()
		for _, s := range tr.steps {
			if s.Topic == "other" {
				t.Errorf("a step that nobody asked for: %+v", s)
			}
		}
		tr.mu.Unlock()
		back.Disconnect(0)
	})

	t.Run("drops", func(t *testing.T) {
		c.In(t)
		a.CLI("setting", "set", "queue.max_messages", "50")
		tr := b.Trace("--client", "pub")
		p := a.Connect(clean("pub"))
		for i := range 200 {
			p.Pub("way/limit", 1, false, fmt.Sprint(i))
		}
		got := tr.await(func(s TraceStep) bool { return s.Step == "dropped" && s.Client == "sub" })
		if got.Topic != "way/limit" || got.Why != "limit of the queue: messages" || got.Index == 0 {
			t.Errorf("given up by a limit: %+v", got)
		}
		small := third.Connect(rawmqtt.Connect{ClientID: "small", KeepAlive: 60, CleanStart: true,
			Properties: []rawmqtt.Property{rawmqtt.Int(rawmqtt.MaximumPacketSize, 50)}})
		small.Sub(rawmqtt.Sub("small/#", 1))
		p.Pub("small/1", 1, false, strings.Repeat("x", 100))
		if got := tr.step(third, "dropped", "small"); got.Why != "too_large" {
			t.Errorf("too large: %+v", got)
		}
		// A peer that is gone does not get QoS 0.
		small.Close()
		keeper := third.Connect(clean("keeper"))
		keeper.Sub(rawmqtt.Sub("gone/#", 0))
		third.Kill()
		end := time.Now().Add(patience)
		for found := false; !found && time.Now().Before(end); {
			p.Pub("gone/1", 0, false, "x")
			tr.mu.Lock()
			for _, s := range tr.steps {
				found = found || s.Step == "dropped" && s.Topic == "gone/1" && strings.HasPrefix(s.Why, "not forwarded to node "+third.ID)
			}
			tr.mu.Unlock()
			p.Pub("pace", 1, false, "x") // a round trip
		}
		tr.await(func(s TraceStep) bool { return s.Step == "dropped" && s.Topic == "gone/1" })
		third.Restart()
		// A trace goes on with a node that comes back.
		tr.await(func(s TraceStep) bool { return s.Step == "note" && s.Node == third.ID && s.Why != "is traced" })
	})
	if out, err := a.TryCLI("", "trace"); err == nil {
		t.Errorf("a trace of nothing: %q", out)
	}
}

// TestTop: the busiest client and topic of another node are on top.
func TestTop(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	p := c.Nodes[2].Connect(clean("busy"))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for k := 0; ; k++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := p.Publish(rawmqtt.Publish{Topic: "top/1", Payload: []byte("x")}); err != nil {
				t.Error(err)
				return
			}
			if k%200 == 0 {
				if _, err := p.PublishAcked(rawmqtt.Publish{Topic: "pace", QoS: 1, ID: uint16(k%60_000 + 1)}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	var top struct {
		Nodes []struct {
			Node string  `json:"node"`
			In   float64 `json:"messages_in_per_s"`
		} `json:"nodes"`
		Clients []struct {
			Name string `json:"name"`
		} `json:"clients"`
		Topics []struct {
			Name string  `json:"name"`
			Rate float64 `json:"messages_per_s"`
		} `json:"topics"`
	}
	decode(t, c.Nodes[0].CLI("top", "--rounds", "1", "--interval", "1s", "-o", "json"), &top)
	close(stop)
	<-done
	if len(top.Nodes) != 3 || top.Nodes[2].In <= 0 || len(top.Clients) == 0 || top.Clients[0].Name != "busy" || len(top.Topics) == 0 || top.Topics[0].Name != "top/1" {
		t.Errorf("top: %+v", top)
	}
	t.Logf("%+v", top)
}
