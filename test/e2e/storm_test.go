//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestReconnectStorm has everybody else of a node come back at once, as after a
// balancer's restart, while 50 sessions work on it.
func TestReconnectStorm(t *testing.T) {
	c := NewCluster(t, Options{})
	n := c.Nodes[0]
	storm := newStorm(c, n, scaled(1000))
	storm.connect(t, 32)
	w := n.work(t, 25)
	await(t, patience, func() bool { return w.received.Load() > 500 }, func() string { return "nothing goes on" })
	storm.lose()
	alone := w.cut()
	took := storm.connect(t, storm.size)
	during := w.cut()
	w.end(t)
	t.Logf("%d clients came back in %v (%d attempts, %d closed to make room); p99 of %d messages meanwhile %v (max %v), before %v",
		storm.size, took.Round(time.Millisecond), storm.attempts.Load(), int(n.Metric("mqcluster_listener_refused_total")),
		len(during), quantile(during, .99), quantile(during, 1), quantile(alone, .99))
	if limit := 30*time.Second + time.Duration(storm.size)*10*time.Millisecond; took > limit {
		t.Errorf("the storm took %v, more than %v", took, limit)
	}
	if p := quantile(during, .99); p > 3*time.Second {
		t.Errorf("p99 of the sessions that were there is %v while others come back", p)
	}
	storm.lose()
}

// TestMemoryIsBounded opens connections until the node has no memory for more: it
// says so, counts whom it refuses, and the sessions that are there go on. Once
// the others have left it lets clients in again.
func TestMemoryIsBounded(t *testing.T) {
	const limit = 96 << 20
	c := NewCluster(t, Options{Nodes: 1, Flags: []string{"--limits.memory", "96MiB"}})
	n := c.Nodes[0]
	_, port, err := net.SplitHostPort(n.TLS)
	if err != nil {
		t.Fatal(err)
	}
	refused := fmt.Sprintf(`mqcluster_listener_refused_total{listener="tls-%s",reason="memory"}`, port)
	w := n.work(t, 10)
	var crowd []*rawmqtt.Client
	defer func() {
		for _, one := range crowd {
			one.Close()
		}
	}()
	for most := 8000; n.Metric(refused) == 0; {
		for range 50 {
			raw, _, err := n.try(fmt.Sprint("crowd", len(crowd)), nil)
			if err != nil {
				break
			}
			crowd = append(crowd, raw)
		}
		if len(crowd) >= most {
			t.Fatalf("%d clients and nobody refused; %.0f bytes in use of %d", most, n.Metric("mqcluster_node_memory_used_bytes"), limit)
		}
	}
	there, peak := len(crowd), n.Metric("process_resident_memory_bytes")
	before := w.received.Load()
	for range 200 {
		if raw, _, err := n.try("late", nil); err == nil {
			raw.Close()
		}
	}
	await(t, patience, func() bool { return w.received.Load() > before+100 }, func() string { return "those that were there do not go on" })
	for _, one := range crowd {
		one.Close()
	}
	crowd = nil
	again := await(t, 2*patience, func() bool {
		raw, _, err := n.try("again", nil)
		if err == nil {
			raw.Close()
		}
		return err == nil
	}, func() string { return "nobody is let in though there is memory again" })
	w.end(t)
	t.Logf("%d clients were in when memory was short (%.0f MiB resident), %.0f refused; let in again %v after they had left",
		there, peak/(1<<20), n.Metric(refused), again.Round(time.Millisecond))
	if peak > 1.5*limit {
		t.Errorf("%.0f MiB resident with a limit of %d", peak/(1<<20), limit>>20)
	}
}

// try connects with a persistent session and says whether it was there.
func (n *Node) try(id string, config *tls.Config) (*rawmqtt.Client, bool, error) {
	if config == nil {
		config = n.cluster.ClientTLS
	}
	raw, err := rawmqtt.Dial(context.Background(), n.TLS, config, 5)
	if err != nil {
		return nil, false, err
	}
	o := persistent(id, 3600)
	name, secret := user, password
	o.Username, o.Password = &name, &secret
	ack, err := raw.Connect(o)
	if err == nil && ack.Reason != 0 {
		err = fmt.Errorf("refused with 0x%02x", ack.Reason)
	}
	if err != nil {
		raw.Close()
		return nil, false, err
	}
	return raw, ack.SessionPresent, nil
}

// storm is clients that come and go together.
type storm struct {
	n        *Node
	size     int
	tls      *tls.Config
	conns    []*rawmqtt.Client
	attempts atomic.Int64
}

func newStorm(c *Cluster, n *Node, size int) *storm {
	config := c.ClientTLS.Clone()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	return &storm{n: n, size: size, tls: config, conns: make([]*rawmqtt.Client, size)}
}

// connect brings everybody in, so many at a time; who is refused tries again, as
// devices do.
func (s *storm) connect(t *testing.T, at int) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(s.size)*10*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	var next, failed atomic.Int64
	var why atomic.Value
	for range at {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < s.size; i = int(next.Add(1)) - 1 {
				for s.conns[i] == nil {
					s.attempts.Add(1)
					raw, _, err := s.n.try(fmt.Sprint("storm", i), s.tls)
					if err == nil {
						s.conns[i] = raw
						continue
					}
					select {
					case <-ctx.Done():
						failed.Add(1)
						why.Store(err.Error())
						return
					case <-time.After(time.Second/2 + rand.N(time.Second)): // as devices do
					}
				}
			}
		})
	}
	all.Wait()
	if f := failed.Load(); f > 0 {
		t.Fatalf("%d of %d clients did not come in within %v, the last because: %v", f, s.size, time.Since(start), why.Load())
	}
	return time.Since(start)
}

// lose cuts all connections at once.
func (s *storm) lose() {
	for i, c := range s.conns {
		if c != nil {
			c.Close()
		}
		s.conns[i] = nil
	}
}

// worked is pairs of clients that exchange QoS 1 messages at a steady pace, 20 a
// second each.
type worked struct {
	subs, pubs []*Client
	stop       chan struct{}
	publishers sync.WaitGroup
	readers    sync.WaitGroup
	sent       []uint64
	received   atomic.Int64
	start      time.Time
	fails      chan string

	mu    sync.Mutex
	times []time.Duration
	seen  []uint64 // by pair, the next number
}

func (n *Node) work(t *testing.T, pairs int) *worked {
	t.Helper()
	w := &worked{stop: make(chan struct{}), sent: make([]uint64, pairs), seen: make([]uint64, pairs), start: time.Now(), fails: make(chan string, 4*pairs)}
	for i := range pairs {
		s := n.Connect(persistent(fmt.Sprint("worker-s", i), 3600))
		s.Sub(rawmqtt.Sub(fmt.Sprint("work/", i), 1))
		w.subs, w.pubs = append(w.subs, s), append(w.pubs, n.Connect(persistent(fmt.Sprint("worker-p", i), 3600)))
	}
	for i := range pairs {
		w.readers.Go(func() { w.read(i) })
		w.publishers.Go(func() { w.publish(i) })
	}
	return w
}

func (w *worked) publish(i int) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		b := binary.BigEndian.AppendUint64(nil, w.sent[i])
		b = binary.BigEndian.AppendUint64(b, uint64(time.Since(w.start)))
		p := w.pubs[i]
		ack, err := p.PublishAcked(rawmqtt.Publish{Topic: fmt.Sprint("work/", i), QoS: 1, ID: uint16(w.sent[i]%60000) + 1, Payload: b})
		if err != nil || ack.Reason >= 0x80 {
			w.fails <- fmt.Sprintf("publisher %d: %v %v", i, ack, err)
			return
		}
		w.sent[i]++
	}
}

// read counts until everything that was sent has come, after the publishers have
// ended, or the connection ends.
func (w *worked) read(i int) {
	for {
		p, err := w.subs[i].Read(patience)
		if err != nil {
			w.fails <- fmt.Sprintf("subscriber %d: %v", i, err)
			return
		}
		if p.Type != rawmqtt.PUBLISH {
			w.fails <- fmt.Sprintf("subscriber %d: %v", i, p)
			return
		}
		if string(p.Payload) == "end" {
			return
		}
		number, at := binary.BigEndian.Uint64(p.Payload), time.Duration(binary.BigEndian.Uint64(p.Payload[8:]))
		w.mu.Lock()
		if number != w.seen[i] {
			w.fails <- fmt.Sprintf("subscriber %d: message %d came where %d is due", i, number, w.seen[i])
			w.mu.Unlock()
			return
		}
		w.seen[i]++
		w.times = append(w.times, time.Since(w.start)-at)
		w.mu.Unlock()
		w.received.Add(1)
	}
}

// cut returns the latencies since the last cut, in ascending order.
func (w *worked) cut() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	times := w.times
	w.times = nil
	slices.Sort(times)
	return times
}

// end stops the work and fails the test if anything was lost, doubled or out of
// order, or anybody disconnected.
func (w *worked) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.publishers.Wait()
	for i, p := range w.pubs {
		if _, err := p.PublishAcked(rawmqtt.Publish{Topic: fmt.Sprint("work/", i), QoS: 1, ID: 65000, Payload: []byte("end")}); err != nil {
			t.Errorf("publisher %d: %v", i, err)
		}
	}
	w.readers.Wait()
	close(w.fails)
	for f := range w.fails {
		t.Error(f)
	}
	for i := range w.sent {
		if w.seen[i] != w.sent[i] {
			t.Errorf("%d of %d messages of pair %d came", w.seen[i], w.sent[i], i)
		}
	}
}

// quantile of times in ascending order; 0 if there are none.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(q*float64(len(times))), len(times)-1)].Round(10 * time.Microsecond)
}
