//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestCatchUpBySnapshot keeps a node away until the log that it needs is gone: it
// comes back by a snapshot, with queues, retained messages and subscriptions, and
// its clients are served.
func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Proxy: true, Flags: []string{"--raft.snapshot-interval", "1s", "--raft.snapshot-threshold", "100", "--raft.trailing-logs", "20", "--drain.isolated-after", "2s"}})
	away, leader := c.Followers()[0], c.Leader()
	keep := away.Connect(persistent("keep", 3600))
	keep.Sub(rawmqtt.Sub("snap/#", 1))
	const connects = 20
	for i := range connects {
		away.Connect(willed(fmt.Sprintf("ghost-%d", i), 5, 10))
	}
	c.Net.Isolate(away)
	p := leader.Connect(clean("snap-pub"))
	snapshots := strings.Count(leader.Log(), "snapshot complete")
	sent := 0
	await(t, 2*time.Minute, func() bool {
		p.Pub(fmt.Sprintf("snap/%d", sent%50), 1, true, fmt.Sprint(sent))
		sent++
		return sent > 1000 && strings.Count(leader.Log(), "snapshot complete") > snapshots+1
	}, func() string { return "the leader took no snapshot" })
	c.Net.Heal()
	t.Logf("ready %v after the link is whole, %d messages behind", away.WaitReadyz(200, patience).Round(time.Millisecond), sent)
	again := away.Connect(persistent("keep", 3600))
	if !again.Present {
		t.Error("the session is gone")
	}
	for i, m := range again.Messages(sent, 2*patience) {
		if string(m.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d of the queue is %q", i, m.Payload)
		}
	}
	want := retained(t, leader, "snap/#")
	if got := retained(t, away, "snap/#"); !maps.Equal(got, want) || len(got) != 50 {
		t.Errorf("retained messages differ: %v %v", got, want)
	}
	p.Disconnect(0)
	again.Disconnect(0)
	noGhosts(t, c)
}

// TestConnectOfUnknownOutcome has clients connect to a node whose words reach the
// leader and that hears nothing: their claims are carried out, and their node gives
// them up. When it hears again they must not count as connected for ever.
func TestConnectOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Proxy: true, Flags: []string{"--drain.isolated-after", "2s"}})
	deaf, leader := c.Followers()[0], c.Leader()
	for _, n := range c.Nodes {
		if n != deaf {
			c.Net.Mute(n, deaf)
		}
	}
	seen := witnesses(leader)[0]
	start := time.Now()
	var wg sync.WaitGroup
	const clients = 5
	for i := range clients {
		wg.Go(func() {
			raw, err := deaf.Dial(5)
			if err != nil {
				t.Error(err)
				return
			}
			defer raw.Close()
			raw.Timeout = patience
			name, secret := user, password
			o := willed(fmt.Sprintf("unknown-%d", i), 0, 3600)
			o.Username, o.Password = &name, &secret
			ack, err := raw.Connect(o)
			t.Logf("after %v: %v %v", time.Since(start).Round(time.Millisecond), ack, err)
			if err == nil && ack.Reason == 0 {
				t.Error("a node that hears nothing accepted a client")
			}
		})
	}
	wg.Wait()
	c.Net.Heal()
	deaf.WaitReady(patience)
	c.WaitWhole()
	// Their wills, with no delay, fire: the cluster took them for clients that died.
	_, wills := collectAll([]*Client{seen}, 0)
	t.Logf("%v wills came", wills)
	seen.Disconnect(0)
	noGhosts(t, c)
}
