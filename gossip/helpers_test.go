package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// park is a network of pipes between nodes that can be cut, and what the nodes
// were told.
type park struct {
	t     *testing.T
	bytes atomic.Int64 // sent by anybody

	mu      sync.Mutex
	nodes   map[string]*Gossip
	members map[string]string
	side    map[string]int // nodes on different sides do not reach each other
	hang    map[string]bool
	conns   map[net.Conn][2]string
	told    map[string][]string // node → events
	wg      sync.WaitGroup
}

func newPark(t *testing.T, members ...string) *park {
	p := &park{
		t: t, nodes: map[string]*Gossip{}, members: map[string]string{}, side: map[string]int{},
		hang: map[string]bool{}, conns: map[net.Conn][2]string{}, told: map[string][]string{},
	}
	for _, id := range members {
		p.members[id] = "10.0.0.1:7883"
	}
	return p
}

func (p *park) open(id string) *Gossip {
	p.t.Helper()
	g, err := Open(p.t.Context(), Config{Node: id}, Deps{
		Network: from{p, id},
		Members: func() map[string]string {
			p.mu.Lock()
			defer p.mu.Unlock()
			out := map[string]string{}
			maps.Copy(out, p.members)
			return out
		},
		OnChange: func(e Event) { p.tell(id, fmt.Sprint(e.Node, " alive ", e.Alive)) },
		OnDigest: func(node string, d Digest) { p.tell(id, fmt.Sprint(node, " version ", d.Version)) },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.nodes[id] = g
	p.mu.Unlock()
	return g
}

func (p *park) tell(id, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told[id] = append(p.told[id], what)
}

// heard returns what a node was told since the last time.
func (p *park) heard(id string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.told[id]
	p.told[id] = nil
	return out
}

// isolate moves nodes to another side, and ends the connections across.
func (p *park) isolate(side int, ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.side[id] = side
	}
	for c, ends := range p.conns {
		if p.side[ends[0]] != p.side[ends[1]] {
			c.Close()
			delete(p.conns, c)
		}
	}
}

func (p *park) close() {
	p.mu.Lock()
	nodes := p.nodes
	p.nodes = map[string]*Gossip{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, g := range nodes {
		wg.Go(func() {
			if err := g.Close(); err != nil {
				p.t.Error(err)
			}
		})
	}
	wg.Wait()
	p.wg.Wait()
	time.Sleep(time.Minute) // of the bubble: memberlist ends a probe in its own time
}

// from is the network as one node has it.
type from struct {
	p  *park
	id string
}

func (f from) Dial(ctx context.Context, peer, proto string) (net.Conn, error) {
	p := f.p
	p.mu.Lock()
	hang := p.hang[peer]
	g := p.nodes[peer]
	ok := g != nil && proto == Proto && p.side[f.id] == p.side[peer]
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !ok {
		return nil, errors.New("no route to " + peer)
	}
	a, b := net.Pipe()
	p.mu.Lock()
	p.conns[a] = [2]string{f.id, peer}
	p.mu.Unlock()
	p.wg.Go(func() { g.HandleConn(f.id, counted{b, p}) })
	return counted{a, p}, nil
}

type counted struct {
	net.Conn
	p *park
}

func (c counted) Write(b []byte) (int, error) {
	c.p.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// bubble runs f with a park of three in time of its own.
func bubble(t *testing.T, f func(t *testing.T, p *park)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPark(t, "a", "b", "c")
		defer p.close()
		f(t, p)
	})
}

func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}
