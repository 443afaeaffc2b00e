package broker

import (
	"runtime"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/broker/codec"
)

// A client that was busy and falls silent gives its large buffer back, and loses
// nothing: not the half of a packet that it has sent, nor its connection.
func TestSilentClientHoldsNoLargeBuffer(t *testing.T) {
	for _, part := range []int{0, 5} {
		c := newCluster(t, 1, Config{})
		n := c.nodes[0]
		p := connect(t, n, 5, "p")
		p.subscribe(sub("a", 0))
		frame := p.frame("a", "0123456789", codec.PublishOptions{})
		var all []byte
		for range 4 * ownBuf / len(frame) {
			all = append(all, frame...)
		}
		cl := n.broker.find("p")
		for sent := 0; !cl.large.Load(); sent++ {
			if sent == 1000 {
				t.Fatal("the client never got a large buffer")
			}
			p.write(all)
			for range len(all) / len(frame) {
				p.wantMessages("a", "0123456789")
			}
		}
		p.write(frame[:part])
		for deadline := time.Now().Add(10 * time.Second); cl.large.Load(); runtime.Gosched() {
			n.broker.sweepAt(n.broker.tick.Load() + 2*int64(bufIdle))
			if time.Now().After(deadline) {
				t.Fatal("the buffer is not given back")
			}
		}
		p.write(frame[part:])
		p.wantMessages("a", "0123456789")
	}
}
