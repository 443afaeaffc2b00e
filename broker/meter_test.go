package broker

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A meter tells rates by level, over the windows that ran, and is bounded.
func TestMeter(t *testing.T) {
	now := time.Unix(1000, 0)
	m := newMeter(func() time.Time { return now })
	count := func(n int, topic string) {
		for range n {
			m.count(topic, 100)
		}
	}
	near := func(got, want float64) bool { return math.Abs(got-want) < 0.01 }
	count(50, "a/b")
	count(20, "a/c/d")
	count(10, "a")
	count(5, "/x")
	now = now.Add(2 * time.Second)
	sums, other := m.sum("", 2*time.Second)
	if a := sums["a"]; a == nil || !near(a.Messages, 40) || !near(a.Bytes, 4000) || !a.Below || other != 0 {
		t.Errorf("a: %+v, other %v", a, other)
	}
	if e := sums[""]; e == nil || !near(e.Messages, 2.5) || !e.Below {
		t.Errorf("the empty level: %+v", e)
	}
	sums, _ = m.sum("a/", 2*time.Second)
	if len(sums) != 2 || !near(sums["b"].Messages, 25) || sums["b"].Below || !near(sums["c"].Messages, 10) || !sums["c"].Below {
		t.Errorf("below a: %+v", sums)
	}
	// The window before counts on; the one before that does not.
	now = now.Add(4 * time.Second)
	sums, _ = m.sum("", 6*time.Second)
	if a := sums["a"]; a == nil || !near(a.Messages, 80.0/6) {
		t.Errorf("a, a window later: %+v", a)
	}
	now = now.Add(5 * time.Second)
	if sums, _ = m.sum("", 11*time.Second); len(sums) != 0 {
		t.Errorf("two windows later: %+v", sums)
	}
	for i := range 2 * meterTopics {
		m.count(fmt.Sprint("many/", i), 1)
	}
	kept := 0
	for i := range m.shards {
		kept += len(m.shards[i].now)
	}
	if _, other = m.sum("", 11*time.Second); kept > meterTopics || other == 0 {
		t.Errorf("%d topics are kept, %v a second are not", kept, other)
	}
}

// Nothing is measured until somebody asks, and a while after nobody does any more.
func TestTopicRates(t *testing.T) {
	c := newCluster(t, 1, Config{})
	b := c.nodes[0].broker
	p := connect(t, c.nodes[0], 5, "p")
	p.publish("a/b", "x", 1, false)
	if b.meter.Load() != nil {
		t.Fatal("topics are measured although nobody asked")
	}
	b.TopicRates("", 10)
	p.publish("a/b", "x", 1, false)
	sums, _ := b.meter.Load().sum("a/", time.Second)
	if r := sums["b"]; len(sums) != 1 || r == nil || r.Messages != 1 || r.Bytes != 1 {
		t.Errorf("%+v", sums)
	}
}

// A tap sees what is published on any node, once, by either road, and what clients
// get is the same with it.
func TestTap(t *testing.T) {
	c := newCluster(t, 2, Config{})
	b := c.nodes[0].broker
	out, missed, stop := b.Tap("a/+")
	s := connect(t, c.nodes[0], 5, "s")
	s.subscribe(sub("a/+", 1))
	for i, n := range c.nodes {
		p := connect(t, n, 5, fmt.Sprint("p", i))
		p.publish("a/x", fmt.Sprint("one ", i), 1, false)
		p.publish("b", "elsewhere", 1, false)
		if got := <-out; string(got.Payload) != fmt.Sprint("one ", i) || got.Topic != "a/x" {
			t.Errorf("%+v", got)
		}
		s.message()
	}
	p := connect(t, c.nodes[0], 5, "q")
	p.publish("a/x", "zero", 0, false)
	if got := <-out; string(got.Payload) != "zero" || got.QoS != 0 || got.Stamp == 0 {
		t.Errorf("%+v", got)
	}
	s.message()
	stop()
	stop()
	p.publish("a/x", "after", 1, false)
	s.message()
	if len(out) > 0 || missed() != 0 {
		t.Error("something came after the end")
	}
	if b.taps.Load() != nil {
		t.Error("a tap is left")
	}
}

// A full tap holds nothing up, and counts what it leaves out.
func TestFullTap(t *testing.T) {
	c := newCluster(t, 1, Config{})
	b := c.nodes[0].broker
	_, missed, stop := b.Tap("#")
	defer stop()
	p := connect(t, c.nodes[0], 5, "p")
	for range tapRoom + 10 {
		p.publish("a", "x", 1, false)
	}
	if n := missed(); n != 10 {
		t.Errorf("%d were left out, want 10", n)
	}
}

// Clients that come and go are told in order; who asks late learns how many it missed.
func TestClientEvents(t *testing.T) {
	c := newCluster(t, 1, Config{})
	b := c.nodes[0].broker
	_, from, _ := b.ClientEvents(t.Context(), 1<<63, 10)
	p := connect(t, c.nodes[0], 5, "p")
	p.disconnect()
	var got []ClientEvent
	last := from
	for len(got) < 2 {
		var some []ClientEvent
		some, last, _ = b.ClientEvents(t.Context(), last, 10)
		got = append(got, some...)
	}
	if !got[0].Connected || got[1].Connected || got[0].Client != "p" || got[1].Reason != "the client disconnected" {
		t.Errorf("%+v", got)
	}
	for range comingsKept + 100 {
		b.comings.note(ClientEvent{Client: "x"})
	}
	events, _, missed := b.ClientEvents(t.Context(), last, 1)
	if missed != 101 || len(events) != 1 {
		t.Errorf("missed %d, %d events", missed, len(events))
	}
}

// What is told of a connection is what the broker has of it.
func TestClientStates(t *testing.T) {
	c := newCluster(t, 1, Config{})
	b := c.nodes[0].broker
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 1))
	p := connect(t, c.nodes[0], 5, "p")
	for range 3 {
		p.publish("a", "x", 1, false)
	}
	for range 3 {
		s.skipTo(packets.Publish) // and no word about it
	}
	b.find("p").lastIn.Store(b.tick.Load() - int64(3*time.Second))
	got := b.ClientStates([]string{"s", "nobody", "p"})
	if len(got) != 2 || got[0].Client != "s" || got[1].Client != "p" {
		t.Fatalf("%+v", got)
	}
	if got[0].InFlight != 3 || got[1].InFlight != 0 || got[0].Queued != 0 {
		t.Errorf("%+v", got)
	}
	if got[1].Quiet < 3000 {
		t.Errorf("p is quiet for %d ms", got[1].Quiet)
	}
}
