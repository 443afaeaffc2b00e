package forward

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// loopback is a network of TCP without TLS.
type loopback struct{ addr string }

func (l loopback) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", l.addr)
}

// overTCP returns a sender and a receiver that wants everything sent to
// "bench/…", and the count of what it received.
func overTCP(b *testing.B) (from, to *Forwarder, received *atomic.Int64) {
	b.Helper()
	received = new(atomic.Int64)
	open := func(id, peer string) (*Forwarder, *loopback) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		net := &loopback{}
		f, err := Open(b.Context(), Config{Node: id, QueueMessages: 1 << 20, QueueBytes: 1 << 30}, Deps{
			Network: net,
			Deliver: func(_ string, batch []Delivery) { received.Add(int64(len(batch))) },
		})
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go f.HandleConn(peer, c)
			}
		}()
		b.Cleanup(func() { ln.Close(); f.Close() })
		return f, &loopback{ln.Addr().String()}
	}
	a, toA := open("a", "b")
	z, toZ := open("b", "a")
	*a.deps.Network.(*loopback) = *toZ
	*z.deps.Network.(*loopback) = *toA
	a.SetPeers([]string{"b"})
	z.SetPeers([]string{"a"})
	z.Add("bench/#")
	await(b, func() bool { return a.table.trie.Load().Len() == 1 })
	return a, z, received
}

func await(b *testing.B, ok func() bool) {
	b.Helper()
	for start := time.Now(); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > 20*time.Second {
			b.Fatal("does not come about")
		}
	}
}

// BenchmarkForward is the cost of a message from one node to another, both
// ends, in batches of 64.
func BenchmarkForward(b *testing.B) {
	for _, size := range []int{16, 256} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			a, _, received := overTCP(b)
			msgs := messages("bench/topic/1", "publisher", 0, 64)
			for _, m := range msgs {
				m.Payload = make([]byte, size)
			}
			peers := slices.Repeat([]uint64{a.Wants("bench/topic/1")}, 64)
			b.ReportAllocs()
			sent := int64(0)
			for b.Loop() {
				a.Forward(msgs, peers, 0, 0)
				if sent += 64; sent%(1<<12) == 0 {
					await(b, func() bool { return sent-received.Load() < 1<<13 })
				}
			}
			await(b, func() bool { return received.Load() == sent })
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/msg")
		})
	}
}

// BenchmarkRoutes is how long 100,000 new filters take to be known to a peer:
// as changes, and as a snapshot.
func BenchmarkRoutes(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		a, z, _ := overTCP(b)
		start := time.Now()
		for i := range n {
			z.Add(fmt.Sprintf("park/%d/device/%d/+/state", i%100, i))
		}
		await(b, func() bool { return a.table.trie.Load().Len() == n+1 })
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/changes")
		start = time.Now()
		a.Drop("b")
		await(b, func() bool { return a.table.trie.Load().Len() == 0 })
		await(b, func() bool { return a.table.trie.Load().Len() == n+1 })
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/snapshot")
	}
}
