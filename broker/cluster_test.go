package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// cluster is some nodes in one process: the real state (package fsm) behind a
// log that has one order and no faults, but those that a test makes.
type cluster struct {
	t     testing.TB
	nodes []*node

	mu    sync.Mutex
	cond  sync.Cond
	queue []submitted
	stop  bool
	done  chan struct{}

	index uint64
	stamp int64
	skew  atomic.Int64 // added to log time, ms

	// slow is a node to which messages of the mesh are under way until let, called by
	// one test.
	slow atomic.Pointer[node]
	way  []func()
}

type submitted struct {
	n    *node
	item []byte
	done func(fsm.Result)
}

// node is one node of a cluster.
type node struct {
	c      *cluster
	id     string
	store  *fsm.Store
	broker *Broker
	ln     net.Listener
	wg     sync.WaitGroup

	inc, pack uint64
	pending   []func(fsm.Result) // of the pack that is being applied
	dead      atomic.Bool        // items are lost
	unleased  atomic.Bool
	held      *held // marks are not submitted
	scarce    atomic.Bool
	denied    atomic.Pointer[func(publish bool, topic string) bool]
	quota     atomic.Pointer[auth.Quota]
	version   atomic.Uint64
	views     atomic.Int64 // open
	info      ConnInfo
}

func newCluster(t testing.TB, size int, cfg Config) *cluster {
	t.Helper()
	c := &cluster{t: t, done: make(chan struct{})}
	c.cond.L = &c.mu
	for i := range size {
		n := &node{c: c, id: fmt.Sprintf("n%d", i+1), held: new(held)}
		var err error
		n.store, err = fsm.Open(t.Context(), fsm.Config{Dir: "state", Node: n.id, FS: vfs.NewMem()}, fsm.Deps{
			Observe: n.observe,
			Halt:    func(err error) { panic(err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		n.broker, err = Open(t.Context(), cfg, Deps{Log: n, Routes: (*testRoutes)(n), Auth: (*testAuth)(n), NodeID: n.id, Stamp: n.store.Stamp, Scarce: n.scarce.Load})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	for i, n := range c.nodes {
		if i > 0 {
			c.admin(c.nodes[0], &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: n.id, Store: "s"}}})
		}
		c.up(n)
	}
	c.admin(c.nodes[0], &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{
		Subject: auth.Everyone, Rules: []*logpb.Rule{{Allow: true, Action: 3, Filter: "#"}},
	}}})
	go c.run()
	for _, n := range c.nodes {
		n.listen()
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.ln.Close()
		n.broker.Close()
		n.wg.Wait()
	}
	c.mu.Lock()
	c.stop = true
	c.cond.Broadcast()
	c.mu.Unlock()
	<-c.done
	for _, n := range c.nodes {
		n.store.Close()
	}
}

func (c *cluster) up(n *node) {
	c.apply(&logpb.Entry{Command: &logpb.Entry_NodeUp{NodeUp: &logpb.NodeUp{
		Node: n.id, Store: c.storeOf(n), Nonce: fmt.Sprint(c.index), Level: fsm.Level,
	}}})
	for _, m := range c.nodes[0].store.Members() {
		if m.Node == n.id {
			n.inc, n.pack = m.Incarnation, 0
		}
	}
}

// storeOf is the store that the member was put with.
func (c *cluster) storeOf(n *node) string {
	for _, m := range c.nodes[0].store.Members() {
		if m.Node == n.id {
			return m.Store
		}
	}
	return "s"
}

// admin applies an item before the log runs.
func (c *cluster) admin(n *node, it *logpb.Item) { c.applyPack(n, []*logpb.Item{it}, nil) }

func (c *cluster) applyPack(n *node, items []*logpb.Item, done []func(fsm.Result)) {
	n.pack++
	n.pending = done
	c.apply(&logpb.Entry{Command: &logpb.Entry_Pack{Pack: &logpb.Pack{
		Node: n.id, Incarnation: n.inc, Number: n.pack, Items: items,
	}}})
	n.pending = nil
}

func (c *cluster) apply(e *logpb.Entry) {
	c.index++
	c.stamp = max(c.stamp, time.Now().UnixMilli()+c.skew.Load())
	e.Stamp = c.stamp
	data, err := proto.Marshal(e)
	if err != nil {
		panic(err)
	}
	for _, n := range c.nodes {
		n.store.Apply(&raft.Log{Index: c.index, Type: raft.LogCommand, Data: data})
		n.broker.Applied(c.index)
	}
}

// run applies what is submitted, in packs.
func (c *cluster) run() {
	defer close(c.done)
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.stop {
			c.cond.Wait()
		}
		if len(c.queue) == 0 {
			c.mu.Unlock()
			return
		}
		q := c.queue
		c.queue = nil
		c.mu.Unlock()
		for len(q) > 0 {
			k := 0
			for k < len(q) && k < 64 && q[k].n == q[0].n {
				k++
			}
			c.applySubmitted(q[:k])
			q = q[k:]
		}
	}
}

func (c *cluster) applySubmitted(q []submitted) {
	if q[0].n == nil { // a function that wants to run between entries
		for _, s := range q {
			s.done(fsm.Result{})
		}
		return
	}
	var items []*logpb.Item
	var done []func(fsm.Result)
	for _, s := range q {
		it := new(logpb.Item)
		if err := proto.Unmarshal(s.item, it); err != nil {
			panic(err)
		}
		items = append(items, it)
		done = append(done, s.done)
	}
	c.applyPack(q[0].n, items, done)
}

// do runs f where entries are applied.
func (c *cluster) do(f func()) {
	ready := make(chan struct{})
	c.submit(submitted{done: func(fsm.Result) { f(); close(ready) }})
	<-ready
}

func (c *cluster) submit(s submitted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, s)
	c.cond.Signal()
}

// settle waits until all that was submitted before is applied.
func (c *cluster) settle() { c.do(func() {}) }

// crash lets a node lose its place: what it submits is lost, its clients are
// told nothing.
func (c *cluster) crash(n *node) {
	n.dead.Store(true)
	n.ln.Close()
	for _, cl := range n.broker.holders() {
		cl.abort()
	}
	c.do(func() {
		c.apply(&logpb.Entry{Command: &logpb.Entry_NodeDown{NodeDown: &logpb.NodeDown{Node: n.id, Incarnation: n.inc}}})
	})
}

func (n *node) observe(evs []fsm.Event) {
	for _, ev := range evs {
		if ev.Kind == fsm.EventResult && ev.Item < len(n.pending) {
			n.pending[ev.Item](ev.Result)
			continue
		}
		if n.broker != nil {
			n.broker.Apply(ev)
		}
	}
}

// The node is its broker's Log.

func (n *node) Submit(item *logpb.Item, done func(fsm.Result)) {
	switch {
	case n.dead.Load():
		done(fsm.Result{Err: fsm.ErrUnknown})
	case n.unleased.Load():
		done(fsm.Result{Err: fsm.ErrNotProposed})
	default:
		data, err := proto.Marshal(item)
		if err != nil {
			panic(err)
		}
		s := submitted{n, data, done}
		if item.GetOutbound() == nil || !n.held.keep(s) {
			n.c.submit(s)
		}
	}
}

// held are marks that take their time on the way to the log.
type held struct {
	mu   sync.Mutex
	on   bool
	kept []submitted
}

// holdMarks keeps the marks of a node back until letMarks.
func (n *node) holdMarks() {
	n.held.mu.Lock()
	defer n.held.mu.Unlock()
	n.held.on = true
}

func (n *node) letMarks() {
	n.held.mu.Lock()
	defer n.held.mu.Unlock()
	for _, s := range n.held.kept {
		n.c.submit(s)
	}
	n.held.on, n.held.kept = false, nil
}

func (h *held) keep(s submitted) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on {
		h.kept = append(h.kept, s)
	}
	return h.on
}

func (n *node) Locked(f func(session.Pos, func() fsm.View)) { n.store.Locked(f) }
func (n *node) View() fsm.View                              { n.views.Add(1); return countedView{n.store.View(), n} }
func (n *node) Leased() bool                                { return !n.unleased.Load() }
func (n *node) Shared(topic string) []fsm.Pick              { return n.store.Shared(topic) }
func (n *node) Queues(topic string) bool                    { return n.store.Queues(topic) }

// countedView tells how many views are open.
type countedView struct {
	fsm.View
	n *node
}

func (v countedView) Close() error {
	v.n.views.Add(-1)
	return v.View.Close()
}

type testRoutes node

func (r *testRoutes) Add(string)    {}
func (r *testRoutes) Remove(string) {}
func (r *testRoutes) Synced() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// Version is of the edits on all other nodes.
func (r *testRoutes) Version() (v uint64) {
	for _, n := range r.c.nodes {
		if n.id != r.id {
			v += n.broker.subVersion.Load()
		}
	}
	return v
}

func (r *testRoutes) Wants(topic string) (peers uint64) {
	for i, n := range r.c.nodes {
		if n.id != r.id && len(n.broker.trie.Load().Match(nil, topic)) > 0 {
			peers |= 1 << i
		}
	}
	return peers
}

func (r *testRoutes) Forward(msgs []*session.Message, peers []uint64, _, asOf uint64) {
	for i, n := range r.c.nodes {
		var own []*session.Message
		for j, m := range msgs {
			if peers[j]&(1<<i) != 0 {
				c := *m
				c.Payload, c.Properties = bytes.Clone(m.Payload), bytes.Clone(m.Properties)
				own = append(own, &c)
			}
		}
		deliver := func() {
			for _, m := range own {
				n.broker.DeliverRemote(m, asOf, new(any))
			}
		}
		switch {
		case len(own) == 0:
		case r.c.slow.Load() != n:
			deliver()
		default:
			r.c.mu.Lock()
			r.c.way = append(r.c.way, deliver)
			r.c.mu.Unlock()
		}
	}
}

// let ends slow: what is under way arrives. It reports how much that was.
func (c *cluster) let() int {
	c.slow.Store(nil)
	c.mu.Lock()
	way := c.way
	c.way = nil
	c.mu.Unlock()
	for _, deliver := range way {
		deliver()
	}
	return len(way)
}

func (r *testRoutes) ForwardTo(to, client string, m *session.Message, sub session.Subscription) {
	for _, n := range r.c.nodes {
		if n.id == to {
			n.broker.DeliverRemoteTo(client, m, sub)
		}
	}
}

type testAuth node

func (a *testAuth) Authenticate(_ context.Context, c Credentials) (string, error) {
	if c.HasUsername && string(c.Password) == "wrong" {
		return "", auth.ErrWrongPassword
	}
	if c.HasUsername && string(c.Password) == "late" {
		return "", auth.ErrBusy
	}
	return c.Username, nil
}

func (a *testAuth) Version() uint64 { return a.version.Load() }

func (a *testAuth) Quota(string) auth.Quota {
	if q := (*node)(a).quota.Load(); q != nil {
		return *q
	}
	return auth.Quota{}
}

func (a *testAuth) Rights(Credentials, string) Rights {
	if f := a.denied.Load(); f != nil {
		return testRights{*f}
	}
	return testRights{func(bool, string) bool { return false }}
}

type testRights struct{ denied func(bool, string) bool }

func (r testRights) MayPublish(t string) bool   { return !r.denied(true, t) }
func (r testRights) MaySubscribe(f string) bool { return !r.denied(false, f) }
func (r testRights) MayReceive(t string) bool   { return !r.denied(false, t) }

// deny changes the policy of a node.
func (n *node) deny(f func(publish bool, topic string) bool) {
	n.denied.Store(&f)
	n.version.Add(1)
	n.broker.Apply(fsm.Event{Kind: fsm.EventPolicy})
}

func (n *node) listen() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.c.t.Fatal(err)
	}
	n.ln = ln
	n.info = ConnInfo{Listener: "test", Remote: netip.MustParseAddrPort("127.0.0.1:1"), AllowAnonymous: true}
	n.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					panic(err)
				}
				return
			}
			n.wg.Go(func() {
				if rest := n.broker.Serve(context.Background(), conn, n.info); rest != nil {
					rest()
				}
			})
		}
	})
}

func ignore(fsm.Result) {}

func counterValue(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return all[0].GetMetric()[0].GetCounter().GetValue()
}
