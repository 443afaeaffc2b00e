//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// Verification is the part of verify -o json that the tests read.
type Verification struct {
	Index uint64 `json:"index"`
	Nodes []struct {
		Node    string   `json:"node"`
		Records uint64   `json:"records"`
		Bytes   uint64   `json:"bytes"`
		Seconds float64  `json:"seconds"`
		Same    bool     `json:"same"`
		Faults  []string `json:"faults"`
		Error   string   `json:"error"`
	} `json:"nodes"`
	Differences []struct {
		Kind  string            `json:"kind"`
		Name  string            `json:"name"`
		Nodes []string          `json:"nodes"`
		Sums  map[string]string `json:"sums"`
	} `json:"differences"`
	More bool `json:"more"`
}

// Verify runs mqcluster verify, which takes as long as the state is large, and
// returns what it printed and whether it was content.
func (n *Node) Verify() (v Verification, agrees bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "verify", "-o", "json", "--data-dir", n.Dir)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if jsonErr := json.Unmarshal(out.Bytes(), &v); jsonErr != nil {
		n.t.Fatalf("verify: %v %v: %s %s", err, jsonErr, &out, &complaint)
	}
	return v, err == nil
}

// verifyLoad publishes QoS 1 messages that sessions are owed, and retained ones, until
// the function that it returns is called.
func verifyLoad(t *testing.T, c *Cluster, sessions int) (stop func()) {
	t.Helper()
	var ended atomic.Bool
	var all sync.WaitGroup
	var acked atomic.Int64
	for i, n := range c.Nodes {
		p := n.Connect(clean(fmt.Sprint("load-", i)))
		all.Go(func() {
			for k := 0; !ended.Load(); k++ {
				out := rawmqtt.Publish{Topic: fmt.Sprintf("queue/%d/load", k%sessions), QoS: 1, ID: uint16(k%60_000 + 1), Payload: fmt.Append(nil, k)}
				if k%3 == 0 {
					out.Topic, out.Retain = fmt.Sprintf("kept/load/%d/%d", i, k%50), true
				}
				if _, err := p.PublishAcked(out); err != nil {
					t.Errorf("the load: %v", err)
					return
				}
				acked.Add(1)
			}
		})
		// A session that reads, so that queues are collected meanwhile, on each node
		// when it likes.
		s := n.Connect(persistent(fmt.Sprint("reader-", i), 3600))
		s.Sub(rawmqtt.Sub("queue/+/load", 1))
		all.Go(func() {
			for !ended.Load() {
				if _, err := s.Read(200 * time.Millisecond); err != nil && !errors.Is(err, rawmqtt.ErrTimeout) {
					t.Errorf("the reader: %v", err)
					return
				}
			}
			s.Disconnect(0)
		})
	}
	return func() {
		ended.Store(true)
		all.Wait()
		t.Logf("%d publishes of the load were acknowledged", acked.Load())
	}
}

// flip changes one byte of one record of a node that does not run, behind its back
// but as its own program would write it: the disk's checksums are right.
func (n *Node) flip(t *testing.T, prefix string) (key []byte) {
	t.Helper()
	current, err := os.ReadFile(n.path("state", "CURRENT"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(n.path("state", string(current)), &pebble.Options{DisableWAL: true, Logger: quietPebble{}})
	if err != nil {
		t.Fatal(err)
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	if !it.First() || !bytes.HasPrefix(it.Key(), []byte(prefix)) {
		t.Fatalf("node %s has no record %q...", n.ID, prefix)
	}
	key, value := slices.Clone(it.Key()), slices.Clone(it.Value())
	value[len(value)-1] ^= 1
	if err := errors.Join(it.Close(), db.Set(key, value, pebble.NoSync), db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
	return key
}

// quietPebble is a logger for a look at a store; Pebble's Fatalf must not return.
type quietPebble struct{}

func (quietPebble) Infof(string, ...any)      {}
func (quietPebble) Errorf(string, ...any)     {}
func (quietPebble) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// TestVerify: under load the nodes agree; a byte that is flipped on one is found, and
// named with its node and key. The long form has a million retained and a million
// queued messages.
func TestVerify(t *testing.T) {
	const sessions = 100
	count := 5_000
	if long() {
		count = 1_000_000
	}
	c := NewCluster(t, Options{})
	first := c.Nodes[0]
	first.CLI("setting", "set", "queue.max_messages", "100000000")
	for k := range sessions {
		s := c.Nodes[k%3].Connect(persistent(fmt.Sprint("session-", k), 360_000))
		s.Sub(rawmqtt.Sub(fmt.Sprintf("queue/%d/#", k), 1))
		s.Disconnect(0)
	}
	start := time.Now()
	publishAll(t, first, count, func(i int) rawmqtt.Publish {
		return rawmqtt.Publish{Topic: fmt.Sprintf("kept/%d/%d", i%1000, i), Retain: true, Payload: fmt.Appendf(nil, "%064d", i)}
	})
	publishAll(t, first, count, func(i int) rawmqtt.Publish {
		return rawmqtt.Publish{Topic: fmt.Sprintf("queue/%d/x", i%sessions), Payload: fmt.Appendf(nil, "%064d", i)}
	})
	t.Logf("%d retained and %d queued messages after %v", count, count, time.Since(start).Round(time.Millisecond))

	stop := verifyLoad(t, c, sessions)
	for range 2 {
		start := time.Now()
		v, agrees := c.Nodes[1].Verify()
		if !agrees || len(v.Nodes) != 3 || len(v.Differences) > 0 {
			t.Fatalf("the nodes do not agree: %+v", v)
		}
		for _, n := range v.Nodes {
			if n.Records != v.Nodes[0].Records || n.Records < uint64(3*count) || n.Bytes != v.Nodes[0].Bytes {
				t.Errorf("they agree on %+v", v.Nodes)
			}
		}
		t.Logf("under load, %d records of %d bytes on each node: agreed after %v", v.Nodes[0].Records, v.Nodes[0].Bytes, time.Since(start).Round(time.Millisecond))
	}
	stop()

	bad := c.Followers()[0]
	for _, tt := range []struct{ prefix, kind, name string }{
		{"rkept\x017\x01", "retained message", "kept/7/"},
		{"m", "queued message", "log index "},
		{"ssession-4", "session", "session-4"},
		{"bsession-5", "subscription", "queue/5"},
	} {
		bad.Stop()
		bad.flip(t, tt.prefix)
		bad.Restart()
		start := time.Now()
		v, agrees := first.Verify()
		found := false
		for _, d := range v.Differences {
			found = found || d.Kind == tt.kind && strings.Contains(d.Name, tt.name) && slices.Equal(d.Nodes, []string{bad.ID})
			for _, n := range d.Nodes {
				if n != bad.ID {
					t.Errorf("%s: node %s is accused: %+v", tt.kind, n, d)
				}
			}
		}
		if agrees || !found {
			t.Errorf("a byte of %q of %s was flipped, and verify says %+v", tt.prefix, bad.ID, v)
		}
		t.Logf("%s: found after %v", tt.kind, time.Since(start).Round(time.Millisecond))
		out, err := first.TryCLI("", "verify")
		if err == nil || !strings.Contains(out, "node "+bad.ID+" has it") || !strings.Contains(out, tt.kind) {
			t.Errorf("verify for people: %v\n%s", err, out)
		}
	}

	// One that is down is not passed over in silence.
	bad.Stop()
	var v Verification
	await(t, patience, func() bool {
		v, _ = first.Verify()
		for _, n := range v.Nodes {
			if n.Node == bad.ID {
				return n.Error != ""
			}
		}
		return false
	}, func() string { return fmt.Sprintf("a node that is down is not named: %+v", v) })
}
