//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestSameFilterEverywhere subscribes to one filter on every node and publishes on
// every node: each subscriber gets each message once.
func TestSameFilterEverywhere(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for qos := range byte(3) {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			c.In(t)
			var subs []*Client
			for i, n := range c.Nodes {
				s := n.Connect(clean(fmt.Sprintf("same-%d-%d", qos, i)))
				s.Sub(rawmqtt.Sub(fmt.Sprintf("same/%d/#", qos), qos))
				subs = append(subs, s)
			}
			count := scaled(200)
			sent := publishEverywhere(t, c, fmt.Sprintf("same/%d", qos), qos, count)
			for i, s := range subs {
				exactlyOnce(t, fmt.Sprintf("the subscriber of %s", c.Nodes[i].ID), sent, collect(s, len(sent)))
				s.Close()
			}
			t.Logf("%d messages came once to each of %d subscribers", len(sent), len(subs))
		})
	}
}

// TestSharedGroup spreads a shared group over the nodes, with plain subscribers of
// the same topic beside it: the group gets each message once, every plain
// subscriber too.
func TestSharedGroup(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	for _, tt := range []struct {
		name       string
		members    []int // node of each
		publishers []int
		persistent bool
	}{
		{"over three nodes", []int{0, 1, 2}, []int{0, 1, 2}, false},
		{"over three nodes, persistent", []int{0, 1, 2}, []int{0, 1, 2}, true},
		{"on the others", []int{1, 2, 1}, []int{0}, false},
		{"on the others, persistent", []int{1, 2, 1}, []int{0}, true},
		{"on one other", []int{2, 2}, []int{0, 1}, false},
		{"on the publisher's", []int{0, 0}, []int{0}, false},
	} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s, QoS %d", tt.name, qos), func(t *testing.T) {
				c.In(t)
				topic := fmt.Sprintf("shared/%d", time.Now().UnixNano())
				connect := func(n *Node, id string) *Client {
					o := clean(id)
					if tt.persistent {
						o = persistent(id, 3600)
					}
					return n.Connect(o)
				}
				var members, plain []*Client
				for i, n := range tt.members {
					m := connect(c.Nodes[n], fmt.Sprintf("%s-member-%d", topic, i))
					m.Sub(rawmqtt.Sub("$share/group/"+topic+"/#", qos))
					members = append(members, m)
				}
				for i, n := range c.Nodes {
					p := connect(n, fmt.Sprintf("%s-plain-%d", topic, i))
					p.Sub(rawmqtt.Sub(topic+"/+", qos))
					plain = append(plain, p)
				}
				var nodes []*Node
				for _, i := range tt.publishers {
					nodes = append(nodes, c.Nodes[i])
				}
				sent := publishOn(t, nodes, topic, qos, scaled(60))
				for i, p := range plain {
					exactlyOnce(t, fmt.Sprintf("plain subscriber %d", i), sent, collect(p, len(sent)))
				}
				got, shares := collectAll(members, len(sent))
				exactlyOnce(t, "the group", sent, got)
				t.Logf("%d messages, shares %v", len(sent), shares)
				for _, s := range append(members, plain...) {
					s.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
				}
			})
		}
	}
}

// publishEverywhere publishes count messages on each node at the same time.
func publishEverywhere(t *testing.T, c *Cluster, topic string, qos byte, count int) []string {
	t.Helper()
	return publishOn(t, c.Nodes, topic, qos, count)
}

// publishOn publishes count messages on each of the nodes at the same time and
// returns all payloads.
func publishOn(t *testing.T, nodes []*Node, topic string, qos byte, count int) (sent []string) {
	t.Helper()
	var wg sync.WaitGroup
	for _, n := range nodes {
		for i := range count {
			sent = append(sent, fmt.Sprintf("%s-%d", n.ID, i))
		}
		p := n.Connect(clean(fmt.Sprintf("%s-pub-%s-%d", topic, n.ID, qos)))
		wg.Go(func() {
			for i := range count {
				ack, err := p.PublishAcked(rawmqtt.Publish{Topic: topic + "/" + n.ID, QoS: qos, ID: p.next(),
					Payload: fmt.Appendf(nil, "%s-%d", n.ID, i)})
				if err != nil || ack != nil && ack.Reason >= 0x80 {
					t.Errorf("publish on %s: %v %v", n.ID, ack, err)
					return
				}
			}
			if err := p.Disconnect(0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return sent
}

// quiet is how long a client that was owed nothing more must hear nothing until a
// test believes it.
const quiet = 200 * time.Millisecond

// collect reads until want messages have come and then until it is quiet, and
// returns how often each payload came.
func collect(c *Client, want int) map[string]int {
	c.t.Helper()
	got, _ := collectAll([]*Client{c}, want)
	return got
}

// collectAll does that for several clients that get want messages together, and
// returns also how many came to each.
func collectAll(clients []*Client, want int) (got map[string]int, shares []int) {
	var mu sync.Mutex
	total, last := 0, time.Now()
	got, shares = map[string]int{}, make([]int, len(clients))
	over := func() bool {
		mu.Lock()
		defer mu.Unlock()
		// What is missing gets more time than what would be too much.
		return total >= want && time.Since(last) > quiet || time.Since(last) > 3*time.Second
	}
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for !over() {
				p, err := c.Read(quiet / 4)
				if errors.Is(err, rawmqtt.ErrTimeout) {
					continue
				}
				if err != nil {
					c.t.Errorf("after %d messages: %v", shares[i], err)
					return
				}
				if p.Type != rawmqtt.PUBLISH {
					continue
				}
				mu.Lock()
				got[string(p.Payload)]++
				shares[i]++
				total++
				last = time.Now()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return got, shares
}

// exactlyOnce fails unless each payload came once and no other did.
func exactlyOnce(t *testing.T, who string, sent []string, got map[string]int) {
	t.Helper()
	var missing, more []string
	for _, s := range sent {
		switch n := got[s]; {
		case n == 0:
			missing = append(missing, s)
		case n > 1:
			more = append(more, fmt.Sprintf("%s×%d", s, n))
		}
		delete(got, s)
	}
	if len(missing)+len(more)+len(got) > 0 {
		t.Errorf("%s: of %d messages %d are missing (%.10v), %d came more than once (%.10v), and %d were never sent",
			who, len(sent), len(missing), missing[:min(10, len(missing))], len(more), more[:min(10, len(more))], len(got))
	}
}
