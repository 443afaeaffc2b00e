//go:build linux

package e2e

import (
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestLateQoS0 has a node hang while a client publishes to it, and the client go on
// at another one: what the first node still has of it, and forwards when it goes
// on, must not arrive after what was published since.
func TestLateQoS0(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	hung := c.Followers()[0]
	var others []*Node
	for _, n := range c.Nodes {
		if n != hung {
			others = append(others, n)
		}
	}
	sub := others[0].Connect(clean("late-sub"))
	sub.Sub(rawmqtt.Sub("late", 0))
	before := hung.Connect(clean("late-pub"))
	before.Pub("late", 0, false, "first")
	if got := payloads(sub.Messages(1, patience)); got != "first" {
		t.Fatalf("got %q", got)
	}

	hung.Pause()
	before.Pub("late", 0, false, "late")
	after := others[1].Connect(clean("late-pub"))
	after.Pub("late", 0, false, "second")
	if got := payloads(sub.Messages(1, patience)); got != "second" {
		t.Fatalf("got %q", got)
	}
	hung.Resume()
	hung.WaitReady(patience)
	if _, err := before.AwaitClose(patience); err != nil {
		t.Error(err)
	}
	sub.Quiet(2 * time.Second)
	after.Pub("late", 0, false, "third")
	if got := payloads(sub.Messages(1, patience)); got != "third" {
		t.Errorf("got %q", got)
	}
}
