//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestQueueLimits: what waits for sessions is bounded (P12): the oldest messages
// go first, are counted, and what is left comes in order on any node.
func TestQueueLimits(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name         string
		key, value   string
		filter       string
		least, most  int // that are left of 2,500
		reason       string
		qos          byte
		killTheNodes bool
	}{
		{"messages of a session", "queue.max_messages", "1000", "one/#", 950, 1000, "messages", 1, true},
		{"bytes of a session", "queue.max_bytes", "200KiB", "two/#", 450, 600, "bytes", 2, false},
		{"messages of all", "queue.total_messages", "1500", "three/#", 1400, 1500, "total_messages", 1, false},
		{"age", "queue.max_age", "2s", "four/#", 0, 0, "age", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.In(t)
			topic := strings.TrimSuffix(tt.filter, "#") + "x"
			id := strings.ReplaceAll(tt.name, " ", "-")
			nodes := c.Followers()
			sub := nodes[0].Connect(persistent(id, 3600))
			sub.Sub(rawmqtt.Sub(tt.filter, tt.qos))
			sub.Disconnect(0)
			c.Leader().CLI("setting", "set", tt.key, tt.value)
			defer func() { nodes[1].CLI("setting", "unset", tt.key) }()
			const n = 2500
			pub := nodes[1].Connect(clean("pub-" + id))
			for i := 0; i < n; i += 100 {
				for j := i; j < i+100; j++ {
					payload := fmt.Sprintf("%0300d", j)
					if err := pub.Publish(rawmqtt.Publish{Topic: topic, QoS: 1, ID: uint16(j + 1), Payload: []byte(payload)}); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := pub.Await(rawmqtt.PUBACK, uint16(i+100)); err != nil {
					t.Fatal(err)
				}
			}
			dropped := func() (sum int) {
				for _, node := range c.Nodes {
					sum += int(node.Metric("mqcluster_queue_dropped_total{reason=\"" + tt.reason + "\"}"))
				}
				return sum
			}
			await(t, patience, func() bool { return dropped() >= n-tt.most }, func() string {
				return fmt.Sprintf("%d messages were dropped by %s, not %d", dropped(), tt.reason, n-tt.most)
			})
			gone := dropped()
			if gone > n-tt.least {
				t.Errorf("%d messages were dropped, more than there was need for", gone)
			}
			left := n - gone
			for _, node := range c.Nodes {
				await(t, patience, func() bool { return int(node.Metric("mqcluster_queue_stored_messages")) == left }, func() string {
					return fmt.Sprintf("%s stores %v messages, not %d", node.ID, node.Metric("mqcluster_queue_stored_messages"), left)
				})
			}
			t.Logf("%d of %d messages given up, %d left", gone, n, left)
			if tt.killTheNodes {
				for _, node := range c.Nodes {
					node.Kill()
				}
				for _, node := range c.Nodes {
					node.Start()
				}
				c.WaitWhole()
			}
			sub = c.Leader().Connect(persistent(id, 0))
			if !sub.Present {
				t.Fatal("the session is gone")
			}
			for i, m := range sub.Messages(left, patience) {
				if want := fmt.Sprintf("%0300d", gone+i); string(m.Payload) != want {
					t.Fatalf("message %d of the queue is %s, not the newest in order", i, strings.TrimLeft(string(m.Payload), "0"))
				}
			}
			sub.Quiet(200 * time.Millisecond)
			sub.Disconnect(0)
		})
	}
}

// TestRetainedExpires: a retained message that has expired is deleted on every
// node, and no subscriber gets it before that either.
func TestRetainedExpires(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	pub := c.Nodes[0].Connect(clean("pub"))
	for i := range 600 {
		topic, expiry := fmt.Sprintf("gone/%d", i), uint32(2)
		if i%3 == 0 {
			topic, expiry = fmt.Sprintf("stays/%d", i), 3600
		}
		_, err := pub.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: 1, ID: pub.next(), Retain: true, Payload: []byte("v"),
			Properties: []rawmqtt.Property{rawmqtt.Int(rawmqtt.MessageExpiry, expiry)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.Nodes {
		left := 0
		await(t, patience, func() bool {
			s := n.Connect(clean("probe-" + n.ID))
			defer s.Disconnect(0)
			s.Sub(rawmqtt.Sub("gone/#", 0))
			for left = 0; ; left++ {
				if p, err := s.Read(100 * time.Millisecond); err != nil || p.Type != rawmqtt.PUBLISH {
					return left == 0
				}
			}
		}, func() string { return fmt.Sprintf("%d messages have expired and come from %s", left, n.ID) })
	}
	for _, n := range c.Nodes {
		s := n.Connect(clean("sub-" + n.ID))
		s.Sub(rawmqtt.Sub("#", 1))
		for _, m := range s.Messages(200, patience) {
			if !strings.HasPrefix(m.Topic, "stays/") {
				t.Fatalf("%s has expired and came from %s", m.Topic, n.ID)
			}
		}
		s.Quiet(200 * time.Millisecond)
	}
}
