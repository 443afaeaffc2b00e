package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mqcluster/mqcluster/session"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wires is a network of pipes between forwarders that can be cut.
type wires struct {
	mu    sync.Mutex
	ends  map[string]*end
	cut   map[string]bool // "a>b": a cannot dial b
	conns map[string][]net.Conn
	wg    sync.WaitGroup
}

// end is a node of a test and what it was given.
type end struct {
	*Forwarder
	mu  sync.Mutex
	got []Delivery
	gap chan struct{} // if not nil, Deliver waits for it
}

type dialer struct {
	w    *wires
	from string
}

func (d dialer) Dial(_ context.Context, peer, proto string) (net.Conn, error) {
	w := d.w
	w.mu.Lock()
	defer w.mu.Unlock()
	key := d.from + ">" + peer
	if proto != Proto || w.cut[key] || w.ends[peer] == nil {
		return nil, errors.New("no route to " + peer)
	}
	a, b := net.Pipe()
	w.conns[key] = append(w.conns[key], a, b)
	e := w.ends[peer]
	w.wg.Go(func() { e.HandleConn(d.from, b) })
	return a, nil
}

// sever cuts the streams from a to b until heal.
func (w *wires) sever(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := a + ">" + b
	w.cut[key] = true
	for _, c := range w.conns[key] {
		c.Close()
	}
	w.conns[key] = nil
}

func (w *wires) heal(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cut, a+">"+b)
}

func newWires() *wires {
	return &wires{ends: map[string]*end{}, cut: map[string]bool{}, conns: map[string][]net.Conn{}}
}

// node opens a forwarder; it must be closed by shut.
func (w *wires) node(t testing.TB, cfg Config, applied func() uint64) *end {
	t.Helper()
	e := &end{}
	f, err := Open(t.Context(), cfg, Deps{
		Network: dialer{w, cfg.Node},
		Applied: applied,
		Deliver: func(_ string, batch []Delivery) {
			if e.gap != nil {
				<-e.gap
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.got = append(e.got, batch...)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Forwarder = f
	w.mu.Lock()
	w.ends[cfg.Node] = e
	w.mu.Unlock()
	return e
}

// trio is three nodes that know each other, in a bubble of their own.
func trio(t *testing.T, cfg Config, f func(t *testing.T, w *wires, a, b, c *end)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		var nodes []*end
		for _, id := range []string{"a", "b", "c"} {
			cfg.Node = id
			nodes = append(nodes, w.node(t, cfg, nil))
		}
		for _, n := range nodes {
			n.SetPeers([]string{"a", "b", "c"})
		}
		defer w.shut(t)
		synctest.Wait()
		f(t, w, nodes[0], nodes[1], nodes[2])
	})
}

func (w *wires) shut(t testing.TB) {
	for _, e := range w.ends {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	w.wg.Wait()
}

// send forwards msgs to those that want them.
func (e *end) send(msgs []*session.Message, index, asOf uint64) {
	peers := make([]uint64, len(msgs))
	for i, m := range msgs {
		peers[i] = e.Wants(m.Topic)
	}
	e.Forward(msgs, peers, index, asOf)
}

func (e *end) deliveries() []Delivery {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := e.got
	e.got = nil
	return got
}

// payloads is what a node was given, in short.
func (e *end) payloads() string {
	var s []string
	for _, d := range e.deliveries() {
		s = append(s, string(d.Message.Payload))
	}
	return strings.Join(s, " ")
}

func messages(topic, publisher string, from, to int) []*session.Message {
	var out []*session.Message
	for i := from; i < to; i++ {
		out = append(out, &session.Message{
			Topic: topic, Publisher: publisher, Payload: fmt.Append(nil, i), Stamp: int64(i),
		})
	}
	return out
}

func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
