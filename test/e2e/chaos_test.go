//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
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
	c := NewCluster(t, Options{Proxy: true, Flags: []string{"--drain.isolated-after", "2s"}})
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
	for range scaled(5) {
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
