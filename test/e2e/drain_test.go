//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestDrain drains the leader for good: it is not ready and leads no more before the
// clients go, at the pace that was asked for; MQTT 5 clients are told where to go,
// older ones are closed; no will fires for those that come back; the process ends.
func TestDrain(t *testing.T) {
	t.Parallel()
	const clients, rate = 20, 10
	// A slow drain goes its pace although the node is not ready for longer than that.
	c := NewCluster(t, Options{Flags: []string{"--drain.reference", "mqtt.example.org", "--drain.grace", "20s", "--drain.isolated_after", "500ms"}})
	// One that was drained and is not to be any more serves again.
	leader := c.Leader()
	leader.CLI("drain")
	leader.WaitReadyz(http.StatusServiceUnavailable, patience)
	leader.CLI("drain", "--off")
	leader.WaitReady(patience)
	leader.Connect(clean("again")).Disconnect(0)

	leader = c.Leader() // it is another one now
	other := c.Followers()[0]
	w := witnesses(other)[0]
	if out := leader.CLI("upgrade", "--check", "--to", program); !strings.Contains(out, "may be stopped") {
		t.Errorf("upgrade --check with all well: %s", out)
	}
	var all []*Client
	var as []rawmqtt.Connect
	for i := range clients {
		o := willed(fmt.Sprint("drained-", i), 0, 3600)
		if i%2 == 1 {
			o.Version, o.Properties = 4, nil
		}
		as = append(as, o)
		all = append(all, leader.Connect(o))
	}
	type answer struct {
		out string
		err error
	}
	done := make(chan answer, 1)
	start := time.Now()
	go func() {
		out, err := leader.TryCLI("", "drain", "--rate", fmt.Sprint(rate), "--stop")
		done <- answer{out, err}
	}()
	leader.WaitReadyz(http.StatusServiceUnavailable, patience)
	reds := time.Since(start)
	for i, k := range all {
		last, _ := k.AwaitClose(patience)
		told := len(last) > 0 && last[len(last)-1].Type == rawmqtt.DISCONNECT
		if as[i].Version == 4 {
			if told {
				t.Errorf("a client of 3.1.1 was told %v", last)
			}
		} else if where, ok := "", false; !told || last[len(last)-1].Reason != 0x9c {
			t.Errorf("a client of MQTT 5 was told %v", last)
		} else if where, ok = last[len(last)-1].Text(rawmqtt.ServerReference); !ok || where != "mqtt.example.org" {
			t.Errorf("the server reference is %q", where)
		}
		if back := other.Connect(as[i]); !back.Present {
			t.Errorf("%s finds no session on %s", as[i].ClientID, other.ID)
		}
	}
	took := time.Since(start)
	if least := (clients - 1) * time.Second / rate; took < least {
		t.Errorf("%d clients were gone after %v: %d a second take %v", clients, took, rate, least)
	}
	a := <-done
	t.Logf("not ready after %v, all gone after %v: %s", reds, took, a.out)
	if a.err != nil {
		t.Error(a.err)
	}
	leader.AwaitExit(patience)
	if now := c.Leader(); now == leader {
		t.Error("the drained node leads")
	}
	w.Quiet(quiet)
	if out, err := other.TryCLI("", "upgrade", "--check"); err == nil || !strings.Contains(err.Error(), "quorum without it") {
		t.Errorf("upgrade --check with a voter away: %v\n%s", err, out)
	}
}

// TestDrainNotice drains by each way in which a node can be: it leads no more, turns red,
// serves on as long as balancers have to notice, then sends its clients away, and says
// whether it comes back.
func TestDrainNotice(t *testing.T) {
	t.Parallel()
	const delay = 1500 * time.Millisecond
	c := NewCluster(t, Options{Flags: []string{"--drain.reference", "mqtt.example.org", "--drain.delay", delay.String()}})
	for i, tt := range []struct {
		name   string
		drain  func(n *Node) error
		reason byte
		ends   bool
	}{
		{"drain", func(n *Node) error {
			out, err := commandBoth("drain", "--data-dir", n.Dir)
			for _, want := range []string{"serving on until balancers have noticed", "were sent away"} {
				if err == nil && !strings.Contains(out, want) {
					err = fmt.Errorf("drain does not say %q: %s", want, out)
				}
			}
			return err
		}, 0x9c, false},
		{"SIGTERM", func(n *Node) error { n.signal(syscall.SIGTERM); return nil }, 0x9c, true},
		{"leave", func(n *Node) error { _, err := n.TryCLI("", "leave"); return err }, 0x9d, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			n := c.Leader()
			k := n.Connect(persistent(fmt.Sprint("notice-", i), 3600))
			start := time.Now()
			done := make(chan error, 1)
			go func() { done <- tt.drain(n) }()
			n.WaitReadyz(http.StatusServiceUnavailable, patience)
			if s, err := n.Status(); err == nil && s.Leader == n.ID {
				t.Error("it is not ready and leads on")
			}
			// HAProxy, which closes who is connected to a node that is down.
			if code := n.get("/readyz?draining=404"); code != http.StatusNotFound {
				t.Errorf("asked for 404 it says %d", code)
			}
			late := n.Connect(persistent(fmt.Sprint("notice-late-", i), 3600))
			red := time.Since(start)
			for _, k := range []*Client{k, late} {
				last, _ := k.AwaitClose(patience)
				if took := time.Since(start); took < delay {
					t.Errorf("a client was sent away after %v", took)
				}
				if len(last) == 0 || last[len(last)-1].Type != rawmqtt.DISCONNECT || last[len(last)-1].Reason != tt.reason {
					t.Errorf("a client was told %v, not 0x%02x", last, tt.reason)
				} else if where, _ := last[len(last)-1].Text(rawmqtt.ServerReference); where != "mqtt.example.org" {
					t.Errorf("the server reference is %q", where)
				}
			}
			t.Logf("red within %v, all gone after %v", red, time.Since(start))
			if err := <-done; err != nil {
				t.Error(err)
			}
			if tt.ends {
				n.AwaitExit(patience)
				return
			}
			if code := n.get("/readyz?draining=404"); code != http.StatusNotFound {
				t.Errorf("drained, it says %d", code)
			}
			n.CLI("drain", "--off")
			if code := n.get("/readyz?draining=404"); code != http.StatusOK {
				t.Errorf("after drain --off it says %d", code)
			}
		})
		if tt.name == "SIGTERM" {
			for _, n := range c.Nodes {
				if !n.Running() {
					n.Restart()
				}
			}
			c.WaitWhole()
		}
	}
}

// TestDrainTakenBack takes a drain back while balancers have time to notice: nobody is
// sent away, and the node serves.
func TestDrainTakenBack(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: []string{"--drain.delay", "20s"}}) // a node alone does not wait
	n := c.Nodes[0]
	k := n.Connect(clean("stays"))
	done := make(chan error, 1)
	go func() {
		out, err := n.TryCLI("", "drain")
		if err == nil && !strings.Contains(out, "0 clients were sent away, 1 are still connected") {
			err = fmt.Errorf("drain says %q", out)
		}
		done <- err
	}()
	n.WaitReadyz(http.StatusServiceUnavailable, patience)
	n.CLI("drain", "--off")
	if err := <-done; err != nil {
		t.Error(err)
	}
	n.WaitReady(patience)
	k.Pub("stays/a", 1, false, "x")
	n.Connect(clean("comes")).Disconnect(0)
}
