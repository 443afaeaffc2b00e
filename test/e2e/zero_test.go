package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestQoS0Waits: with queue.qos0 on, messages of QoS 0 wait for a session whose
// client is away, also when the node that took them has been killed, and are sent
// once: not again after the node that sent them was killed, too.
func TestQoS0Waits(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	c.Nodes[0].CLI("setting", "set", "queue.qos0", "on")
	nodes := c.Followers()
	home, other := nodes[0], nodes[1]
	there := c.Leader().Connect(persistent("there", 3600))
	there.Sub(rawmqtt.Sub("q/#", 1))
	for _, qos := range []byte{0, 1} {
		id := fmt.Sprint("away", qos)
		sub := home.Connect(persistent(id, 3600))
		sub.Sub(rawmqtt.Sub("q/#", qos))
		sub.Disconnect(0)
		// What counts is what the publisher's node knows.
		await(t, patience, func() bool { return sessionOf(t, other, id).Node == "" }, func() string { return id + " still counts as connected" })
	}
	pub := other.Connect(clean("pub"))
	const n = 200
	var want []string
	for i := range n {
		pub.Pub("q/x", byte(i%2), false, fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	seen := map[string]int{}
	for _, m := range there.Messages(n, patience) {
		seen[string(m.Payload)]++
	}
	for _, w := range want {
		if seen[w] != 1 {
			t.Errorf("who was there got message %s %d times", w, seen[w])
		}
	}
	other.Kill()
	for _, qos := range []byte{0, 1} {
		id := fmt.Sprint("away", qos)
		sub := home.Connect(persistent(id, 3600))
		if !sub.Present {
			t.Fatal("the session is gone")
		}
		for i, m := range sub.Messages(n, patience) {
			if string(m.Payload) != want[i] || m.QoS != min(qos, byte(i%2)) || m.Dup {
				t.Fatalf("message %d of %s is %s, QoS %d, DUP %v", i, id, m.Payload, m.QoS, m.Dup)
			}
		}
		sub.Quiet(200 * time.Millisecond)
	}
	other.Start()
	c.WaitWhole()
	home.Kill()
	for _, qos := range []byte{0, 1} {
		// What was acknowledged shortly before may come again, what was QoS 0 may not.
		sub := other.Connect(persistent(fmt.Sprint("away", qos), 3600))
		for {
			m, err := sub.Read(300 * time.Millisecond)
			if err != nil {
				break
			}
			if m.QoS == 0 || !m.Dup {
				t.Errorf("%s came again, QoS %d, DUP %v", m.Payload, m.QoS, m.Dup)
			}
			if err := sub.Ack(m); err != nil {
				t.Fatal(err)
			}
		}
		sub.Disconnect(0)
	}
	home.Start()
	c.WaitWhole()
}

// TestLateQoS0AfterAMove: a QoS 0 message that a link between two nodes held up does
// not reach a client that had it on one and has moved to the other.
func TestLateQoS0AfterAMove(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Proxy: true})
	nodes := c.Followers()
	home, other := nodes[0], nodes[1]
	stays := other.Connect(clean("stays"))
	stays.Sub(rawmqtt.Sub("late/#", 0))
	mover := home.Connect(persistent("mover", 3600))
	mover.Sub(rawmqtt.Sub("late/#", 1))
	pub := home.Connect(clean("pub"))
	said := func(what, want string, who ...*Client) {
		t.Helper()
		for _, s := range who {
			if got := payloads(s.Messages(1, patience)); got != want {
				t.Fatalf("%s: got %q, want %q", what, got, want)
			}
		}
	}
	pub.Pub("late/x", 0, false, "before")
	said("before", "before", stays, mover)

	for _, n := range c.Running() {
		if n != home {
			c.Net.Mute(home, n)
		}
	}
	pub.Pub("late/x", 0, false, "late")
	said("while nobody hears its node", "late", mover)
	mover.Close()
	if mover = other.Connect(persistent("mover", 3600)); !mover.Present {
		t.Fatal("the session is gone")
	}
	c.Net.Heal()
	said("when the link is whole", "late", stays)
	await(t, patience, func() bool { return sessionOf(t, home, "mover").Node == other.ID }, func() string { return home.ID + " does not know of the move" })
	pub.Pub("late/x", 0, false, "after")
	said("afterwards", "after", stays, mover)
}
