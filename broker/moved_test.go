package broker

import "testing"

// A QoS 0 message that was long on its way between two nodes does not go to a client
// that came from where it had it already; to all others it does.
func TestLateMessageAfterAMove(t *testing.T) {
	for _, left := range []bool{true, false} {
		c := newCluster(t, 3, Config{})
		from, to := c.nodes[1], c.nodes[2]
		mover := connect(t, from, 5, "mover", persistent)
		mover.subscribe(sub("t", 1))
		other := connect(t, to, 5, "other")
		other.subscribe(sub("t", 0))
		p := connect(t, c.nodes[0], 5, "p")

		c.slow.Store(to)
		p.publish("t", "late", 0, false)
		p.quiet() // it is on its way to both
		mover.wantMessages("t", "late")
		if left {
			mover.disconnect()
		} // else its connection is taken over
		mover = connect(t, to, 5, "mover", persistent)
		fresh := connect(t, to, 5, "fresh", persistent)
		fresh.subscribe(sub("t", 0))
		c.settle()
		if n := c.let(); n != 1 {
			t.Fatalf("%d batches were under way", n)
		}
		p.publish("t", "next", 0, false)
		other.wantMessages("t", "late", "next")
		fresh.wantMessages("t", "late", "next")
		mover.wantMessages("t", "next")
		if n := counterValue(t, to.broker.m.dropsBy[dropMoved]); n != 1 {
			t.Errorf("%v messages are counted as for a client that had moved", n)
		}
	}
}
