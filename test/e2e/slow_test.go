//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestSlowReader has one subscriber that stops reading while publishers and
// other subscribers of the same topics work, on its node and on another, and
// compares, round by round, what these do with and without it.
func TestSlowReader(t *testing.T) {
	c := NewCluster(t, Options{})
	here, there := c.Nodes[0], c.Nodes[1]
	rounds := 3
	if long() {
		rounds = 15
	}
	for _, qos := range []byte{0, 1} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("QoS %d, persistent %t", qos, keep), func(t *testing.T) {
				var rate, late, alone, beside []float64
				for i := range rounds {
					// Alternately the one and the other first, so that what changes on
					// the machine meanwhile favours neither.
					arms := []bool{i%2 == 0, i%2 != 0}
					var got [2]figures
					for _, slow := range arms {
						if slow {
							s := stall(t, here, qos, keep)
							got[1] = load(t, here, there, qos)
							s.end()
						} else {
							fill(t, here, qos) // the disk has the same to do
							got[0] = load(t, here, there, qos)
						}
					}
					rate = append(rate, got[1].rate/got[0].rate)
					late = append(late, got[1].p99/got[0].p99)
					alone, beside = append(alone, got[0].p99), append(beside, got[1].p99)
				}
				r, l := median(rate), median(late)
				a, b := median(alone), median(beside)
				t.Logf("with the slow reader: %.3f of the throughput, p99 %.2f ms instead of %.2f (ratio %.2f; medians of %d rounds; p99 alone %.1f, beside %.1f)",
					r, b, a, l, rounds, alone, beside)
				if r < 0.95 {
					t.Errorf("the others have %.3f of their throughput beside a slow reader", r)
				}
				// Rounds of a second on busy cores scatter; what a stall costs where it
				// costs anything is its buffer's or its timeout's worth, far more.
				if l > 1.5 && b-a > 25 {
					t.Errorf("p99 of the others is %.1f ms beside a slow reader and %.1f ms alone", b, a)
				}
			})
		}
	}
}

// TestSlowReaderIsBounded pours 128 MB at a subscriber that does not read: the
// node's memory grows by no more than its buffer and what a flood costs anyhow.
func TestSlowReaderIsBounded(t *testing.T) {
	const size, total = 16 << 10, 128 << 20
	// Up to 192 MiB of garbage would hide what this is about.
	t.Setenv("GOGC", "25")
	c := NewCluster(t, Options{Nodes: 1, Flags: []string{"--limits.client-buffer", "2MiB"}})
	n := c.Nodes[0]
	pub := n.Connect(clean("flood"))
	// What a flood itself costs the process (the store's tables, the collector's
	// slack) is not the slow reader's.
	sub := n.Connect(clean("quick"))
	sub.Sub(rawmqtt.Sub("elsewhere", 1))
	var quick sync.WaitGroup
	quick.Go(func() {
		for {
			if _, err := sub.Read(patience); err != nil {
				return
			}
		}
	})
	flood(t, pub, "elsewhere", 0, total/2, size)
	flood(t, pub, "elsewhere", 1, total/4, size)
	sub.Close()
	quick.Wait()
	before := n.Metric("process_resident_memory_bytes")
	for _, tt := range []struct {
		qos  byte
		keep bool
	}{{0, false}, {1, false}, {0, true}, {1, true}} {
		t.Run(fmt.Sprintf("QoS %d, persistent %t", tt.qos, tt.keep), func(t *testing.T) {
			s := stall(t, n, tt.qos, tt.keep)
			flood(t, pub, "slow/x", tt.qos, total, size)
			queued, now := n.Metric("mqcluster_broker_queued_bytes"), n.Metric("process_resident_memory_bytes")
			t.Logf("%.1f MB queued in memory, %.1f MB more resident than before", queued/1e6, (now-before)/1e6)
			if queued > 2.5*(1<<20) {
				t.Errorf("%.0f bytes are queued in memory, the limit is 2 MiB", queued)
			}
			// The buffer, the store's tables and the log's cache, and what such figures
			// scatter by. What was poured is far more, in the end 512 MB.
			if now-before > 96<<20 {
				t.Errorf("the node has grown by %.0f MB", (now-before)/1e6)
			}
			s.end()
		})
	}
}

// flood publishes so many bytes in messages of a size.
func flood(t *testing.T, pub *Client, topic string, qos byte, total, size int) {
	t.Helper()
	payload := make([]byte, size)
	for i := range total / size {
		if err := pub.Publish(rawmqtt.Publish{Topic: topic, QoS: qos, ID: uint16(i%60000 + 1), Payload: payload}); err != nil {
			t.Fatal(err)
		}
		if qos > 0 && i%100 == 99 {
			for range 100 {
				if _, err := pub.Await(rawmqtt.PUBACK, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := pub.Ping(); err != nil { // everything has been read
		t.Fatal(err)
	}
}

// stalled is a subscriber that does not read.
type stalled struct {
	t    *testing.T
	node *Node
	conn *rawmqtt.Client
	keep bool
}

// stall subscribes to the topics of load, stops reading and has its socket
// filled.
func stall(t *testing.T, n *Node, qos byte, keep bool) *stalled {
	t.Helper()
	// A small receive buffer, so that it is full soon.
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }); cerr != nil {
			return cerr
		}
		return err
	}}
	conn, err := d.Dial("tcp", n.Plain)
	if err != nil {
		t.Fatal(err)
	}
	raw := rawmqtt.New(conn, 5)
	t.Cleanup(func() { raw.Close() })
	o := clean("stalled")
	if keep {
		o = persistent("stalled", 3600)
	}
	o.Username, o.Password = new(user), new(password)
	o.KeepAlive = 0
	if ack, err := raw.Connect(o); err != nil || ack.Reason != 0 {
		t.Fatal(ack, err)
	}
	if _, err := raw.Subscribe(1, rawmqtt.Sub("load/#", qos), rawmqtt.Sub("fill", qos), rawmqtt.Sub("slow/#", qos)); err != nil {
		t.Fatal(err)
	}
	fill(t, n, qos)
	return &stalled{t, n, raw, keep}
}

// fill publishes more than a socket and the buffer behind it take.
func fill(t *testing.T, n *Node, qos byte) {
	t.Helper()
	filler := n.Connect(clean("filler"))
	flood(t, filler, "fill", qos, 12<<20, 64<<10)
	filler.Disconnect(0)
}

// end closes the connection and the session.
func (s *stalled) end() {
	s.t.Helper()
	s.conn.Close()
	if s.keep {
		o := clean("stalled")
		s.node.Connect(o).Disconnect(0)
	}
}

// figures are those of one round.
type figures struct {
	rate float64 // messages delivered a second
	p99  float64 // milliseconds
}

// load publishes at a steady rate for a second, on the slow reader's node and on
// another, and measures what two other subscribers, one on each, get.
func load(t *testing.T, here, there *Node, qos byte) figures {
	t.Helper()
	const perSecond, seconds = 500, 1
	var mu sync.Mutex
	var all []float64
	var began, last time.Duration // of the first publish and the last delivery
	var subs, pubs sync.WaitGroup
	start := time.Now()
	for i, n := range []*Node{here, there} {
		sub := n.Connect(clean(fmt.Sprintf("load-sub-%d", i)))
		sub.Sub(rawmqtt.Sub("load/#", qos))
		subs.Go(func() {
			defer sub.Disconnect(0)
			for range 2 * perSecond * seconds {
				p, err := sub.Read(5 * time.Second)
				if err != nil || p.Type != rawmqtt.PUBLISH {
					t.Errorf("a subscriber beside the slow one: %v %v", p, err)
					return
				}
				d := time.Since(start) - time.Duration(binary.BigEndian.Uint64(p.Payload))
				mu.Lock()
				all = append(all, d.Seconds()*1e3)
				last = time.Since(start)
				mu.Unlock()
			}
		})
	}
	var writers []*Client
	for i, n := range []*Node{here, there} {
		writers = append(writers, n.Connect(clean(fmt.Sprintf("load-pub-%d", i))))
	}
	began = time.Since(start)
	for _, pub := range writers {
		pubs.Go(func() {
			defer pub.Disconnect(0)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			begin := time.Now()
			for k := 0; k < perSecond*seconds; {
				<-tick.C
				for ; k < int(time.Since(begin).Seconds()*perSecond) && k < perSecond*seconds; k++ {
					payload := binary.BigEndian.AppendUint64(make([]byte, 0, 256), uint64(time.Since(start)))
					if err := pub.Publish(rawmqtt.Publish{Topic: "load/x", QoS: qos, ID: uint16(k + 1), Payload: payload[:256]}); err != nil {
						t.Errorf("a publisher beside the slow reader: %v", err)
						return
					}
				}
			}
			for k := 0; qos > 0 && k < perSecond*seconds; k++ {
				if _, err := pub.Await(rawmqtt.PUBACK, 0); err != nil {
					t.Errorf("a publisher beside the slow reader: %v", err)
					return
				}
			}
		})
	}
	pubs.Wait()
	subs.Wait()
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("nothing was delivered")
	}
	return figures{float64(len(all)) / (last - began).Seconds(), all[len(all)*99/100]}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
