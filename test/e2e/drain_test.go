//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
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
	c := NewCluster(t, Options{Flags: []string{"--drain.reference", "mqtt.example.org", "--drain.grace", "20s"}})
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
