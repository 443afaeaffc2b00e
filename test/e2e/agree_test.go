//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestRetainedAgrees writes retained messages to the same topics on all nodes at the
// same time, clears included: afterwards every node gives the same, and who was
// subscribed all the time saw the same last.
func TestRetainedAgrees(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	const topics = 20
	var live []*Client
	for i, n := range c.Nodes {
		s := n.Connect(clean(fmt.Sprintf("live-%d", i)))
		// Retain As Published tells a clear from the end of a value.
		s.Sub(rawmqtt.Subscription{Filter: "retained/#", Options: 1 | 8})
		live = append(live, s)
	}
	var wg sync.WaitGroup
	count := scaled(200)
	for i := range 2 * len(c.Nodes) {
		n := c.Nodes[i%len(c.Nodes)]
		w := n.Connect(clean(fmt.Sprintf("writer-%d", i)))
		wg.Go(func() {
			for k := range count {
				payload := fmt.Sprintf("%d/%d", i, k)
				if (i+k)%5 == 0 {
					payload = "" // a clear
				}
				p, err := w.PublishAcked(rawmqtt.Publish{Topic: fmt.Sprintf("retained/%d", (i*7+k)%topics), QoS: byte(1 + k%2), ID: w.next(),
					Retain: true, Payload: []byte(payload)})
				if err != nil || p.Reason >= 0x80 {
					t.Errorf("writer %d: %v %v", i, p, err)
					return
				}
			}
		})
	}
	wg.Wait()
	want := retained(t, c.Nodes[0], "retained/#")
	for _, n := range c.Nodes[1:] {
		if got := retained(t, n, "retained/#"); !maps.Equal(got, want) {
			t.Errorf("%s and %s have different retained messages:\n%v\n%v", c.Nodes[0].ID, n.ID, want, got)
		}
	}
	for i, s := range live {
		last := lastByTopic(s, 2*len(c.Nodes)*count)
		if !maps.Equal(last, want) {
			t.Errorf("the live subscriber of %s saw other last values than are retained:\n%v\n%v", c.Nodes[i].ID, last, want)
		}
	}
	t.Logf("%d writes by %d writers to %d topics, %d have a value in the end, the same on every node", 2*len(c.Nodes)*count, 2*len(c.Nodes), topics, len(want))
}

// retained subscribes on a node and returns what is retained, by topic.
func retained(t *testing.T, n *Node, filter string) map[string]string {
	t.Helper()
	s := n.Connect(clean("retained-" + n.ID))
	defer s.Disconnect(0)
	s.Sub(rawmqtt.Sub(filter, 1))
	out := map[string]string{}
	for {
		p, err := s.Read(quiet)
		if errors.Is(err, rawmqtt.ErrTimeout) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Type != rawmqtt.PUBLISH {
			continue
		}
		if _, twice := out[p.Topic]; twice || !p.Retain {
			t.Errorf("%s: got %v twice, or without the retain flag", n.ID, p)
		}
		out[p.Topic] = string(p.Payload)
	}
}

// lastByTopic reads what a live subscriber got and returns the last values that
// are no clears.
func lastByTopic(c *Client, want int) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, p := range c.Messages(want, patience) {
		if out[p.Topic] = string(p.Payload); len(p.Payload) == 0 {
			delete(out, p.Topic)
		}
	}
	return out
}

// TestSubackMeansSubscribed subscribes again and again on the nodes while messages
// flow on all of them: whatever is published after a SUBACK arrives.
func TestSubackMeansSubscribed(t *testing.T) {
	t.Parallel()
	for qos := range byte(3) {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			c := NewCluster(t, Options{})
			run := c.Record(t)
			var pubs []*history.Publisher
			for i, n := range c.Nodes {
				pubs = append(pubs, run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(n), Name: fmt.Sprintf("pub-%d", i), Expiry: 60, QoS: qos,
					Topics: []string{fmt.Sprintf("suback/%d/a", i), fmt.Sprintf("suback/%d/b", i)}, Rate: 300, Window: 50, Size: 64}))
			}
			var subs []*history.Subscriber
			for i := range scaled(12) {
				cfg := history.SubscriberConfig{Endpoint: c.Endpoint(c.Nodes[i%len(c.Nodes)]), Name: fmt.Sprintf("sub-%d", i),
					// Distinct filters, so that each is a new route.
					Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub(fmt.Sprintf("suback/%d/#", (i+1)%len(c.Nodes)), qos),
						rawmqtt.Sub(fmt.Sprintf("suback/%d/+", (i+2)%len(c.Nodes)), qos)}}
				if i%2 == 1 {
					cfg.Expiry = 60
				}
				subs = append(subs, run.Subscribe(cfg))
				awaitEvents(t, run, history.PublishSent, 50)
			}
			for _, p := range pubs {
				if err := p.Stop(t.Context()); err != nil {
					t.Error(err)
				}
			}
			run.Finish(subs...)
			run.Judge(history.Options{MinOwed: 1000, QoS0: qos == 0})
		})
	}
}

// awaitEvents waits for n more events of a kind.
func awaitEvents(t *testing.T, r *Run, kind history.Kind, n int) {
	t.Helper()
	count := func() (k int) {
		for _, e := range r.Events() {
			if e.Kind == kind {
				k++
			}
		}
		return k
	}
	start := count()
	await(t, patience, func() bool { return count() >= start+n }, func() string { return fmt.Sprintf("%d more events %q do not come", n, kind) })
}

// TestRetainedOnSubscribe subscribes while a retained topic is being written: the
// subscriber never ends with a value older than the newest acknowledged one, and
// sees no value twice.
func TestRetainedOnSubscribe(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	w := c.Nodes[0].Connect(clean("race-writer"))
	rounds := scaled(30)
	for i := range rounds {
		topic := fmt.Sprintf("race/%d", i)
		w.Pub(topic, 1, true, "0")
		done := make(chan []string)
		n := c.Nodes[i%len(c.Nodes)]
		s := n.Connect(clean(fmt.Sprintf("race-%d", i)))
		go func() {
			defer close(done)
			ack, err := s.Subscribe(s.next(), rawmqtt.Sub(topic, 1))
			if err != nil || ack.Reasons[0] >= 0x80 {
				t.Errorf("subscribe on %s: %v %v", n.ID, ack, err)
				return
			}
			var got []string
			for len(got) == 0 || got[len(got)-1] != "9" {
				p, err := s.Read(3 * time.Second)
				if err != nil {
					t.Errorf("round %d on %s: got %v and then %v", i, n.ID, got, err)
					return
				}
				if p.Type == rawmqtt.PUBLISH {
					got = append(got, string(p.Payload))
				}
			}
			done <- got
		}()
		for v := 1; v < 10; v++ {
			w.Pub(topic, 1, true, fmt.Sprint(v))
		}
		got := <-done
		if sorted := slices.Compact(slices.Sorted(slices.Values(got))); !slices.Equal(sorted, got) {
			t.Errorf("round %d on %s: the values came as %v", i, n.ID, got)
		}
		s.Disconnect(0)
	}
	t.Logf("%d subscriptions raced 10 writes each", rounds)
}
