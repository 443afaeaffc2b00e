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
