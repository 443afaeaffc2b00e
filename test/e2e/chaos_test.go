//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestChaos has clients of every QoS work while one fault after the other befalls
// the nodes, two of which are well at any time. E2E_SEED repeats a run's faults.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("E2E_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("E2E_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := NewCluster(t, Options{Proxy: true, Flags: []string{"--drain.isolated-after", "2s",
		// Small, so that nodes come back by a snapshot and not by the log alone.
		"--raft.snapshot-interval", "1s", "--raft.snapshot-threshold", "300", "--raft.trailing-logs", "50"}})
	run := c.Record(t)
	var subs []*history.Subscriber
	var pubs []*history.Publisher
	for i, n := range c.Nodes {
		subs = append(subs, run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(n), Name: fmt.Sprintf("sub-%d", i), Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("chaos/#", byte(1+i%2))}}))
		for qos := byte(1); qos <= 2; qos++ {
			pubs = append(pubs, run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(n), Name: fmt.Sprintf("pub-%d-%d", i, qos), Expiry: 3600, QoS: qos,
				Topics: []string{fmt.Sprintf("chaos/%d/%d", i, qos)}, Rate: 100, Window: 30, Size: 64}))
		}
	}
	longest := time.Duration(0)
	for range scaled(3) {
		longest = max(longest, mishap(t, c, run, random))
		c.WaitWhole()
		for _, p := range pubs {
			awaitAcked(t, p, p.Acked()+30, patience)
		}
	}
	for _, p := range pubs {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	run.Finish(subs...)
	// A client of a node that hangs or is cut off does not learn of its takeover.
	run.Judge(history.Options{MinAcked: 1000, MinOwed: 3000, TakeoverGrace: longest + 5*time.Second})
	noGhosts(t, c)
}

// noGhosts fails if the cluster believes that a client is connected, when all have
// gone: such a session would never end and its will never fire.
func noGhosts(t *testing.T, c *Cluster) {
	t.Helper()
	var ghosts []string
	await(t, patience, func() bool {
		var sessions []struct{ Client, Node string }
		if err := json.Unmarshal([]byte(c.Nodes[0].CLI("session", "list", "-o", "json")), &sessions); err != nil {
			t.Fatal(err)
		}
		ghosts = nil
		for _, s := range sessions {
			if s.Node != "" {
				ghosts = append(ghosts, s.Client+" on "+s.Node)
			}
		}
		return len(ghosts) == 0
	}, func() string {
		return "all clients have gone, and these count as connected: " + strings.Join(ghosts, ", ")
	})
}

// TestCatchUpBySnapshot keeps a node away until the log that it needs is gone: it
// comes back by a snapshot, with queues, retained messages and subscriptions, and
// its clients are served.
func TestCatchUpBySnapshot(t *testing.T) {
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

// mishap does something bad to a node, repairs it, and returns how long it lasted.
func mishap(t *testing.T, c *Cluster, run *Run, random *rand.Rand) time.Duration {
	t.Helper()
	n := c.Nodes[random.IntN(len(c.Nodes))]
	lasts := time.Duration(500+random.IntN(7500)) * time.Millisecond
	wait := func() { time.Sleep(lasts) } // how long it lasts is the test
	kind := random.IntN(5)
	note := fmt.Sprintf("%s of %s for %v", []string{"kill", "pause", "isolation", "stop", "cut link"}[kind], n.ID, lasts)
	t.Log(note)
	run.Mark(note)
	switch kind {
	case 0:
		run.KillNode(n)
		wait()
		n.Restart()
	case 1:
		n.Pause()
		wait()
		n.Resume()
	case 2:
		c.Net.Isolate(n)
		wait()
		c.Net.Heal()
	case 3:
		n.Stop()
		wait()
		n.Restart()
	case 4:
		c.Net.Cut(n, c.Nodes[(int(n.ID[1]-'0'))%len(c.Nodes)])
		wait()
		c.Net.Heal()
	}
	run.Mark("repaired " + n.ID)
	return lasts
}

// TestConnectOfUnknownOutcome has clients connect to a node whose words reach the
// leader and that hears nothing: their claims are carried out, and their node gives
// them up. When it hears again they must not count as connected for ever.
func TestConnectOfUnknownOutcome(t *testing.T) {
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
