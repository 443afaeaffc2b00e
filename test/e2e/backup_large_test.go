//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// publishAll publishes the numbers from 0 to count, by several clients of which each has
// many under way; of makes the n-th publish.
func publishAll(t *testing.T, n *Node, count int, of func(i int) rawmqtt.Publish) {
	t.Helper()
	const publishers, window = 10, 500
	var wg sync.WaitGroup
	for k := range publishers {
		c := n.Connect(clean(fmt.Sprint("publisher-", k)))
		wg.Go(func() {
			defer c.Disconnect(0)
			sent, acked := 0, 0
			for i := k; i < count || acked < sent; {
				if i < count && sent-acked < window {
					p := of(i)
					p.QoS, p.ID = 1, uint16(sent%60_000+1)
					if err := c.Publish(p); err != nil {
						t.Error(err)
						return
					}
					sent, i = sent+1, i+publishers
					continue
				}
				p, err := c.Read(patience)
				if err != nil {
					t.Errorf("%d of %d are acknowledged: %v", acked, sent, err)
					return
				}
				if p.Type == rawmqtt.PUBACK {
					acked++
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// probe publishes one message after the other and writes down how long each took,
// until stop.
func probe(n *Node, stop *atomic.Bool) func() []time.Duration {
	c := n.Connect(clean("probe"))
	var took []time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			start := time.Now()
			if _, err := c.PublishAcked(rawmqtt.Publish{Topic: "probe", QoS: 1, ID: c.next()%60_000 + 1, Payload: []byte("x")}); err != nil {
				n.t.Error(err)
				return
			}
			took = append(took, time.Since(start))
		}
	}()
	return func() []time.Duration { <-done; slices.Sort(took); return took }
}

// measured probes while f runs.
func measured(n *Node, what string, f func()) {
	var stop atomic.Bool
	ended := probe(n, &stop)
	start := time.Now()
	f()
	stop.Store(true)
	took := ended()
	if len(took) == 0 {
		n.t.Errorf("%s: nothing was acknowledged", what)
		return
	}
	n.t.Logf("%s: %v; %d publishes one by one meanwhile, median %v, 99th percentile %v, longest %v", what, time.Since(start).Round(time.Millisecond),
		len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

// sums are hashes of what each session is owed, in order, and of all retained
// messages.
func sums(t *testing.T, n *Node, sessions, each, topics int) (out []string) {
	t.Helper()
	for k := range sessions {
		c := n.Connect(persistent(fmt.Sprint("session-", k), 360_000))
		h := sha256.New()
		for range each {
			m := c.Messages(1, patience)[0]
			fmt.Fprintf(h, "%s %s\n", m.Topic, m.Payload)
		}
		c.Close()
		out = append(out, fmt.Sprintf("session %d %v %x", k, c.Present, h.Sum(nil)))
	}
	c := n.Connect(clean("reader"))
	c.Sub(rawmqtt.Sub("kept/#", 1))
	all := make([]string, 0, topics)
	for _, m := range c.Messages(topics, 20*patience) {
		all = append(all, m.Topic+" "+string(m.Payload))
	}
	slices.Sort(all)
	return append(out, fmt.Sprintf("retained %x", sha256.Sum256([]byte(fmt.Sprint(all)))))
}

// TestBackupLarge backs up and restores many retained and queued messages, a million
// of each in the long form, and compares them client by client.
func TestBackupLarge(t *testing.T) {
	const sessions = 100
	count := 20_000
	if long() {
		count = 1_000_000
	}
	c := NewCluster(t, Options{Nodes: 1, Flags: []string{"--limits.retained-rate", "0"}})
	v, n := newVault(t), c.Nodes[0]
	n.CLI("setting", "set", "queue.max_messages", "10000000")
	for k := range sessions {
		s := n.Connect(persistent(fmt.Sprint("session-", k), 360_000))
		s.Sub(rawmqtt.Sub(fmt.Sprintf("queue/%d/#", k), 1))
		s.Disconnect(0)
	}
	start := time.Now()
	pad := fmt.Sprintf("%064d", 7)
	publishAll(t, n, count, func(i int) rawmqtt.Publish {
		return rawmqtt.Publish{Topic: fmt.Sprintf("kept/%d/%d", i%1000, i), Retain: true, Payload: fmt.Appendf(nil, "%d %s", i, pad)}
	})
	publishAll(t, n, count, func(i int) rawmqtt.Publish {
		return rawmqtt.Publish{Topic: fmt.Sprintf("queue/%d/x", i%sessions), Payload: fmt.Appendf(nil, "%d %s", i, pad)}
	})
	t.Logf("%d retained and %d queued messages after %v", count, count, time.Since(start).Round(time.Millisecond))
	measured(n, "before", func() { time.Sleep(2 * time.Second) })
	var path string
	var made Backup
	measured(n, "backup", func() { path, made = v.take(n, "large.mqb") })
	t.Logf("the file has %d MiB: %+v", made.Size>>20, made.Contents)
	if made.Contents.Retained < count || made.Contents.Messages < count {
		t.Errorf("the backup holds %+v", made.Contents)
	}
	start = time.Now()
	if out, err := command("", "restore", path, "--key-file", v.key, "--dry-run"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("dry run: %v", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	again := v.restore(path, "--limits.retained-rate", "0")
	t.Logf("restored and ready: %v", time.Since(start).Round(time.Millisecond))
	before := sums(t, n, sessions, count/sessions, count)
	after := sums(t, again.Nodes[0], sessions, count/sessions, count)
	for i := range before {
		if before[i] != after[i] {
			t.Errorf("%s is %s after the restore", before[i], after[i])
		}
	}
	if info, err := os.Stat(filepath.Join(v.dir, "large.mqb")); err != nil || info.Size() != made.Size {
		t.Errorf("the file: %v %v", info, err)
	}
}
