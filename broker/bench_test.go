package broker

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/session"
)

// counting reads and counts PUBLISH packets of a known size.
func counting(b *testing.B, n *node, id, filter string, size int, got *atomic.Int64, wg *sync.WaitGroup) {
	b.Helper()
	p := connect(b, n, 4, id)
	p.conn.Close()
	conn := dialSub(b, n, id+"x", filter)
	wg.Go(func() {
		buf := make([]byte, 256<<10)
		rest := 0
		for {
			k, err := conn.Read(buf)
			if err != nil {
				return
			}
			rest += k
			got.Add(int64(rest / size))
			rest %= size
		}
	})
	b.Cleanup(func() { conn.Close() })
}

// dialSub connects, subscribes and reads CONNACK and SUBACK.
func dialSub(b *testing.B, n *node, id, filter string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", n.ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	connect := append([]byte{0x10, byte(12 + len(id)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(id))}, id...)
	sub := append([]byte{0x82, byte(5 + len(filter)), 0, 1, 0, byte(len(filter))}, filter...)
	sub = append(sub, 0)
	if _, err := conn.Write(append(connect, sub...)); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4+5)); err != nil {
		b.Fatal(err)
	}
	return conn
}

// benchZero has publishers write batches of 64 QoS 0 messages, to so many topics in
// turn, to subscribers, and counts deliveries. Client and broker share the processor:
// the figure is a rough one, for comparison with itself.
func benchZero(b *testing.B, publishers, subscribers, payload, topics int) {
	c := newCluster(b, 1, Config{})
	n := c.nodes[0]
	var batch, frame []byte
	for i := range 64 {
		frame = codec.AppendPublish(nil, 4, &session.Message{
			Topic: fmt.Sprintf("bench/%02d", i%topics), Payload: []byte(strings.Repeat("x", payload)),
		}, codec.PublishOptions{})
		batch = append(batch, frame...)
	}
	var got atomic.Int64
	var wg sync.WaitGroup
	for i := range subscribers {
		counting(b, n, fmt.Sprint("s", i), "bench/#", len(frame), &got, &wg)
	}
	conns := make([]net.Conn, publishers)
	for i := range conns {
		conns[i] = dialSub(b, n, fmt.Sprint("p", i), "none")
		defer conns[i].Close()
	}
	b.ReportAllocs()
	b.ResetTimer()
	sent := int64(0)
	dropped := n.broker.Stats().Dropped
	for sent*int64(subscribers) < int64(b.N) {
		for _, p := range conns {
			if _, err := p.Write(batch); err != nil {
				b.Fatal(err)
			}
			sent += 64
		}
		for got.Load()+n.broker.m.drops.Load()-dropped < sent*int64(subscribers)-20_000 {
			runtime.Gosched() // for the subscribers, so that nothing is dropped
		}
	}
	for got.Load()+n.broker.m.drops.Load()-dropped < sent*int64(subscribers) {
		runtime.Gosched()
	}
	b.StopTimer()
	b.ReportMetric(float64(n.broker.m.drops.Load()-dropped), "dropped")
}

// A message of QoS 0 allocates nothing of its own: what a read of many takes is shared
// by them.
func TestSteadyPathDoesNotAllocate(t *testing.T) {
	if testing.Short() { // as under the race detector, where it takes half a minute and pools drop at random
		t.Skip("two benchmarks of a second and more: make test runs them")
	}
	for name, f := range map[string]func(*testing.B){"fan-out": BenchmarkFanOut, "topics": BenchmarkTopics} {
		r := testing.Benchmark(f)
		per := float64(r.MemAllocs) / float64(r.N)
		t.Logf("%s: %.3f allocations a message, of %d", name, per, r.N)
		if r.N < 100_000 || per > 0.2 { // one of each message's own would be 1
			t.Errorf("%s: messages allocate, or too few were measured", name)
		}
	}
}

func BenchmarkFanIn(b *testing.B)  { benchZero(b, 50, 1, 16, 1) }
func BenchmarkFanOut(b *testing.B) { benchZero(b, 1, 500, 64, 1) }
func BenchmarkTopics(b *testing.B) { benchZero(b, 50, 1, 16, 64) }
