package consensus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a mesh without certificates: loopback connections whose first line
// says who dials and what for.
type wire struct {
	mu    sync.Mutex
	addrs map[string]string
	cut   map[string]bool
	conns map[string]map[net.Conn]struct{} // by either end
}

func newWire() *wire {
	return &wire{addrs: map[string]string{}, cut: map[string]bool{}, conns: map[string]map[net.Conn]struct{}{}}
}

func (w *wire) hold(c net.Conn, ends ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range ends {
		if w.cut[e] {
			return errors.Join(errors.New("cut"), c.Close())
		}
	}
	for _, e := range ends {
		if w.conns[e] == nil {
			w.conns[e] = map[net.Conn]struct{}{}
		}
		w.conns[e][c] = struct{}{}
	}
	return nil
}

// isolate cuts a node off, or lets it back.
func (w *wire) isolate(node string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[node] = cut
	if cut {
		w.closeConns(node)
	}
}

// hiccup closes every connection of a node.
func (w *wire) hiccup(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeConns(node)
}

func (w *wire) closeConns(node string) {
	for c := range w.conns[node] {
		_ = c.Close()
	}
	w.conns[node] = nil
}

type dialer struct {
	w    *wire
	self string
}

func (d dialer) Dial(ctx context.Context, peer, proto string) (net.Conn, error) {
	d.w.mu.Lock()
	addr, ok := d.w.addrs[peer]
	d.w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no node %s", peer)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := d.w.hold(c, d.self, peer); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "%s %s\n", d.self, proto); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// testNode is a Consensus with a fake state behind a listener.
type testNode struct {
	name, dir string
	listener  net.Listener
	w         *wire
	cfg       Config
	due       atomic.Int64
	fatal     atomic.Pointer[error]
	secrets   atomic.Pointer[string]
	deaf      atomic.Pointer[chan struct{}] // what peers send waits until it is closed

	*Consensus
	fsm *fakeFSM
	wg  sync.WaitGroup
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
	n *testNode
}

func (b bufferedConn) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if deaf := b.n.deaf.Load(); deaf != nil {
		<-*deaf
	}
	return n, err
}

func (n *testNode) serve() {
	for {
		c, err := n.listener.Accept()
		if err != nil {
			return
		}
		n.wg.Go(func() {
			rd := bufio.NewReader(c)
			line, err := rd.ReadString('\n')
			peer, proto, _ := strings.Cut(strings.TrimSpace(line), " ")
			if err != nil || n.w.hold(c, n.name, peer) != nil {
				_ = c.Close()
				return
			}
			conn := bufferedConn{c, rd, n}
			switch proto {
			case ProtoRaft:
				n.AcceptRaft(peer, conn)
			case ProtoPack:
				n.AcceptPacks(peer, conn)
			case ProtoLease:
				n.AcceptLease(peer, conn)
			}
		})
	}
}

func testConfig(dir, name string) Config {
	return Config{
		Dir: dir, Node: name, Store: "store-" + name, Address: name + ".test:7883",
		HeartbeatTimeout: 200 * time.Millisecond, LeaderLease: 200 * time.Millisecond,
		JournalBytes: 256 << 10, Lease: time.Second, GiveUp: 500 * time.Millisecond, Stall: 250 * time.Millisecond, Drain: time.Second,
	}
}

type cluster struct {
	t     testing.TB
	w     *wire
	nodes []*testNode
	give  func(node string, d *Deps)
}

// newCluster starts n voters.
func newCluster(t testing.TB, n int, adjust func(*Config)) *cluster {
	t.Helper()
	return newClusterWith(t, n, adjust, nil)
}

// newClusterWith also lets a test change what each node is given.
func newClusterWith(t testing.TB, n int, adjust func(*Config), give func(node string, d *Deps)) *cluster {
	t.Helper()
	c := &cluster{t: t, w: newWire(), give: give}
	var servers []Server
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		node := &testNode{name: name, dir: t.TempDir(), w: c.w}
		node.cfg = testConfig(node.dir, name)
		if adjust != nil {
			adjust(&node.cfg)
		}
		servers = append(servers, Server{Node: name, Store: node.cfg.Store, Address: node.cfg.Address, Voter: true})
		c.nodes = append(c.nodes, node)
	}
	if err := Bootstrap(c.nodes[0].cfg, servers); err != nil {
		t.Fatal(err)
	}
	for _, node := range c.nodes {
		c.start(node)
	}
	t.Cleanup(func() {
		for _, node := range c.nodes {
			node.halt(true)
		}
	})
	return c
}

func (c *cluster) start(n *testNode) {
	c.t.Helper()
	var err error
	if n.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		c.t.Fatal(err)
	}
	if n.fsm == nil {
		n.fsm = newFakeFSM(n.name)
	}
	var opened atomic.Pointer[Consensus]
	n.fsm.observe = func(e fsm.Event) {
		if c := opened.Load(); c != nil {
			c.Applied(e)
		}
	}
	deps := Deps{
		FSM: n.fsm, State: n.fsm, Network: dialer{c.w, n.name}, Logger: testLogger(n.name), Registerer: prometheus.NewRegistry(),
		Fatal:     func(err error) { n.fatal.CompareAndSwap(nil, &err) },
		Due:       func() (int64, bool) { d := n.due.Load(); return d, d != 0 },
		OnSecrets: func(b []byte) { s := string(b); n.secrets.Store(&s) },
	}
	if c.give != nil {
		c.give(n.name, &deps)
	}
	n.Consensus, err = Open(context.Background(), n.cfg, deps)
	if err != nil {
		c.t.Fatal(err)
	}
	opened.Store(n.Consensus)
	c.w.mu.Lock()
	c.w.addrs[n.name] = n.listener.Addr().String()
	c.w.mu.Unlock()
	n.wg.Go(n.serve)
}

// halt stops a node, orderly or as a crash: cut off first, handing over nothing.
func (n *testNode) halt(orderly bool) {
	if n.Consensus == nil {
		return
	}
	if orderly {
		_ = n.Close()
	} else {
		n.w.isolate(n.name, true)
		n.closing.Do(func() { _ = n.stop() })
	}
	_ = n.listener.Close()
	n.w.hiccup(n.name)
	n.wg.Wait()
	n.Consensus = nil
	n.w.isolate(n.name, false)
}

// restart brings a halted node back, with its state or, as after a crash that
// lost what was not flushed, without.
func (c *cluster) restart(n *testNode, keep bool) {
	if !keep {
		n.fsm = nil
	}
	c.start(n)
}

func testLogger(name string) *slog.Logger {
	level := slog.LevelError
	if os.Getenv("CONSENSUS_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", name)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func (c *cluster) leader() *testNode {
	c.t.Helper()
	var l *testNode
	eventually(c.t, "a leader", func() bool {
		for _, n := range c.nodes {
			if n.Consensus != nil && n.IsLeader() {
				l = n
				return true
			}
		}
		return false
	})
	return l
}

func (c *cluster) followers() []*testNode {
	l := c.leader()
	var out []*testNode
	for _, n := range c.nodes {
		if n != l && n.Consensus != nil {
			out = append(out, n)
		}
	}
	return out
}

func (c *cluster) leased() {
	c.t.Helper()
	eventually(c.t, "every node holds a lease", func() bool {
		for _, n := range c.nodes {
			if n.Consensus != nil && !n.Leased() {
				return false
			}
		}
		return true
	})
}

func publish(client string, n int) *logpb.Item {
	return &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
		Client: client, Topic: "t", Qos: 1, Payload: fmt.Appendf(nil, "%06d", n),
	}}}
}

// counts tells how often each item is among what a node applied.
func counts(items []string) map[string]int {
	m := map[string]int{}
	for _, it := range items {
		m[it]++
	}
	return m
}
