// Package forward is the road of QoS 0 messages between nodes. Each node tells
// its peers which distinct filters it wants (its route log) and sends each of
// them, on one ordered and bounded stream, only the messages that it wants.
//
// Nothing here has a promise beyond order and boundedness: what a dead or slow
// peer does not take is dropped and counted, and nobody waits for it. Messages
// with a promise are in the log, not here.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/session"
	"github.com/prometheus/client_golang/prometheus"
)

// Proto is the protocol's name in the mesh.
const Proto = "mqc-forward/1"

// Network opens streams to peers. Its connections must bound each Write.
type Network interface {
	Dial(ctx context.Context, peer, proto string) (net.Conn, error)
}

// Config bounds the streams. Zero values take the defaults given.
type Config struct {
	// Node is this node's id.
	Node string
	// QueueMessages and QueueBytes bound what waits for one peer; 65,536 and
	// 16 MiB.
	QueueMessages, QueueBytes int
	// MaxFrame bounds a frame that is taken, in bytes; 20 MiB. A larger message
	// is dropped by the sender.
	MaxFrame int
	// MaxRoutes bounds the distinct filters of one peer; 4,000,000.
	MaxRoutes int
	// LogChanges is how many changes of the own filters are kept at least for
	// peers that come back; 65,536.
	LogChanges int
	// HoldMessages and HoldTime bound what waits for the log to be applied, per
	// peer; 10,000 and 5 s.
	HoldMessages int
	HoldTime     time.Duration
	// Keepalive is how often a stream says something, and how late a Remove may
	// reach the peers; 1 s.
	Keepalive time.Duration
	// PeerTimeout is the silence after which a stream is given up; 5 s.
	PeerTimeout time.Duration
	// DialTimeout bounds dial and greeting; 5 s.
	DialTimeout time.Duration
	// Linger is how long messages wait for a stream that is down; 5 s.
	Linger time.Duration
	// SyncTimeout is how long Synced waits for a peer at most; 300 ms.
	SyncTimeout time.Duration
	// Behind is how long a peer's routes may lag behind its gossip before a
	// snapshot is asked for; 5 s.
	Behind time.Duration
}

func (c *Config) setDefaults() {
	ints := map[*int]int{
		&c.QueueMessages: 65536, &c.QueueBytes: 16 << 20, &c.MaxFrame: 20 << 20,
		&c.MaxRoutes: 4_000_000, &c.LogChanges: 65536, &c.HoldMessages: 10_000,
	}
	for p, v := range ints {
		if *p <= 0 {
			*p = v
		}
	}
	times := map[*time.Duration]time.Duration{
		&c.HoldTime: 5 * time.Second, &c.Keepalive: time.Second, &c.PeerTimeout: 5 * time.Second,
		&c.DialTimeout: 5 * time.Second, &c.Linger: 5 * time.Second,
		&c.SyncTimeout: 300 * time.Millisecond, &c.Behind: 5 * time.Second,
	}
	for p, v := range times {
		if *p <= 0 {
			*p = v
		}
	}
}

// Deps are the parts that the forwarder is plugged into.
type Deps struct {
	Network Network
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Deliver takes messages that a peer forwarded, in order per publisher. It
	// runs for one batch of one peer at a time, must not block, and must not
	// keep the slice; the messages are its to keep.
	Deliver func(from string, batch []Delivery)
	// Applied returns the log index up to which this node has applied and
	// delivered; nil means that nothing is ever held.
	Applied func() uint64
	// Later tells that every peer reads frames of messages that say what their sender
	// had applied, which the first versions do not; nil means that they do.
	Later func() bool
}

// Forwarder is one node's end of the road. It is safe for concurrent use.
type Forwarder struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	routes  *routeLog
	table   *table
	batches sync.Pool // of *batch
	tracer  atomic.Pointer[Traced]

	slots    atomic.Pointer[[maxPeers]*peer]
	index    atomic.Uint64 // told by Advance
	held     atomic.Int64
	advanced chan struct{} // capacity 1

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	peers  map[string]*peer
	busy   uint64 // slots that are taken
}

// Open starts a forwarder without peers.
func Open(_ context.Context, cfg Config, deps Deps) (*Forwarder, error) {
	cfg.setDefaults()
	if deps.Network == nil || deps.Deliver == nil {
		return nil, errors.New("forward: Deps.Network and Deps.Deliver are required")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Applied == nil {
		deps.Applied = func() uint64 { return ^uint64(0) }
	}
	if deps.Later == nil {
		deps.Later = func() bool { return true }
	}
	met, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the forward metrics: %w", err)
	}
	f := &Forwarder{
		cfg: cfg, deps: deps, log: deps.Logger, metrics: met,
		table: newTable(met), peers: map[string]*peer{}, advanced: make(chan struct{}, 1),
	}
	f.routes = newRouteLog(rand.Uint64()|1, cfg.LogChanges, cfg.SyncTimeout, met)
	f.batches.New = func() any { return &batch{} }
	f.slots.Store(&[maxPeers]*peer{})
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.wg.Go(f.releaseHeld)
	return f, nil
}

// Add tells the peers that this node wants messages that match filter; they
// know when Synced says so. Adding twice is adding once. Shared filters are
// ignored. It does not block.
func (f *Forwarder) Add(filter string) { f.routes.add(filter) }

// Remove tells the peers, within a second or so, that this node wants no more
// messages that match filter. It does not block.
func (f *Forwarder) Remove(filter string) { f.routes.remove(filter) }

// Synced returns a channel that is closed when all connected peers know of
// every Add that returned before, or after Config.SyncTimeout.
func (f *Forwarder) Synced() <-chan struct{} { return f.routes.synced() }

// Wants returns the set of peers that want messages of topic, one bit each; Version,
// which never falls, changes whenever an answer may be out of date. Neither blocks.
func (f *Forwarder) Wants(topic string) (peers uint64) {
	var found [8]uint64
	for _, mask := range f.table.trie.Load().Match(found[:0], topic) {
		peers |= mask
	}
	return peers
}

// Version tells when Wants has other answers.
func (f *Forwarder) Version() uint64 { return f.table.trie.Load().Version() }

// Forward sends each of the messages, in order, to its set of peers; the peers
// deliver them when they have applied index, and learn that this node had applied
// asOf. It does not block, and keeps none of the messages.
func (f *Forwarder) Forward(msgs []*session.Message, peers []uint64, index, asOf uint64) {
	b := f.batches.Get().(*batch)
	for i, m := range msgs {
		if peers[i] != 0 {
			b.add(m, peers[i])
		}
	}
	f.dispatch(b, place{index, asOf, f.deps.Later()})
}

// ForwardTo sends m to one client on one node. It does not block.
func (f *Forwarder) ForwardTo(node, client string, m *session.Message, sub session.Subscription) {
	p := f.peer(node)
	if p == nil {
		f.metrics.queued(0, 0, 1)
		return
	}
	b := f.batches.Get().(*batch)
	b.buf = appendTargeted(b.buf, m, client, sub)
	b.records = append(b.records, record{0, len(b.buf), p.in.routes.bit})
	b.wanted = p.in.routes.bit
	f.dispatch(b, place{})
}

// dispatch puts b into the outboxes of those that want any of it.
func (f *Forwarder) dispatch(b *batch, at place) {
	slots := f.slots.Load()
	for wanted := b.wanted; wanted != 0; wanted &= wanted - 1 {
		bit := wanted & -wanted
		if p := slots[slotOf(bit)]; p != nil && p.out.put(b, bit, at) {
			p.wake()
		}
	}
	b.reset()
	f.batches.Put(b)
}

// Wanted returns the filters that this node and its peers want messages for, with the
// nodes of each, as this node knows them. It copies all of them.
func (f *Forwarder) Wanted() map[string][]string {
	all, _, _ := f.routes.snapshot()
	out := make(map[string][]string, len(all))
	for _, filter := range all {
		out[filter] = []string{f.cfg.Node}
	}
	f.mu.Lock()
	names := make(map[uint64]string, len(f.peers))
	for id, p := range f.peers {
		names[p.in.routes.bit] = id
	}
	f.mu.Unlock()
	for filter, mask := range f.table.trie.Load().All() {
		for ; mask != 0; mask &= mask - 1 {
			if id := names[mask&-mask]; id != "" {
				out[filter] = append(out[filter], id)
			}
		}
	}
	return out
}

// Digest returns the incarnation, version and hash of the own route log, for
// gossip.
func (f *Forwarder) Digest() (incarnation, version, hash uint64) { return f.routes.digest() }

// Check compares a peer's digest with what this node has of its routes, and
// asks for a snapshot if they differ or the peer has been ahead for longer than
// Config.Behind. It does not block.
func (f *Forwarder) Check(id string, incarnation, version, hash uint64) {
	p := f.peer(id)
	if p == nil {
		return
	}
	inc, have, sum := f.table.state(&p.in.routes)
	in := &p.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if inc == incarnation && have >= version {
		in.behind = time.Time{}
		if have == version && hash != sum {
			in.resync.Store(true)
		}
		return
	}
	if now := time.Now(); in.behind.IsZero() {
		in.behind = now
	} else if now.Sub(in.behind) > f.cfg.Behind {
		in.behind = now
		in.resync.Store(true)
	}
}

// SetPeers makes ids, without this node's own, the peers: streams to new ones
// are started, those to others stopped and, a little later, what they wanted is
// forgotten. It does not block.
func (f *Forwarder) SetPeers(ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	slots := *f.slots.Load()
	for id, p := range f.peers {
		if !slices.Contains(ids, id) {
			delete(f.peers, id)
			slots[slotOf(p.in.routes.bit)] = nil
			p.cancel()
		}
	}
	for _, id := range ids {
		if id == f.cfg.Node || f.peers[id] != nil {
			continue
		}
		slot := bits.TrailingZeros64(^f.busy)
		if slot == maxPeers {
			f.log.Error("forward: more peers than messages of QoS 0 can be forwarded to; this one gets none",
				"member", id, "limit", maxPeers)
			continue
		}
		slots[slot] = f.start(id, slot)
	}
	f.slots.Store(&slots)
}

func (f *Forwarder) start(id string, slot int) *peer {
	ctx, cancel := context.WithCancel(f.ctx)
	p := &peer{
		id: id, f: f, log: f.log, cancel: cancel,
		work: make(chan struct{}, 1), kick: make(chan struct{}, 1),
	}
	p.in.routes.bit = 1 << slot
	p.in.turn = make(chan struct{}, 1)
	p.out = outbox{
		maxBytes: f.cfg.QueueBytes, maxMessages: f.cfg.QueueMessages,
		maxRecord: f.cfg.MaxFrame - frameRoom, metrics: f.metrics, open: true,
		peer: id, tracer: &f.tracer,
	}
	f.peers[id] = p
	f.busy |= p.in.routes.bit
	f.wg.Go(func() {
		p.run(ctx)
		f.forget(p)
	})
	return p
}

// forget frees the slot of a peer that is none any more.
func (f *Forwarder) forget(p *peer) {
	if f.ctx.Err() != nil {
		return // all of it goes
	}
	f.table.drop(&p.in.routes, true)
	p.in.hold.forget(f, true)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy &^= p.in.routes.bit
}

// Drop forgets what a peer wanted and what it sent that is held; while it is a
// peer it is asked for its routes again.
func (f *Forwarder) Drop(id string) {
	if p := f.peer(id); p != nil {
		f.table.drop(&p.in.routes, false)
		p.in.hold.forget(f, false)
		p.in.hangUp(false)
	}
}

func (f *Forwarder) peer(id string) *peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peers[id]
}

// enter counts one more that Close waits for; false after Close.
func (f *Forwarder) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.wg.Add(1)
	return true
}

// Advance tells that this node has applied the log up to index; messages that
// waited for it are delivered, on another goroutine. It does not block and costs
// next to nothing when none waits.
func (f *Forwarder) Advance(index uint64) {
	f.index.Store(index)
	if f.held.Load() > 0 {
		nudge(f.advanced)
	}
}

func (f *Forwarder) applied() uint64 { return max(f.index.Load(), f.deps.Applied()) }

// hold counts messages that wait for the log.
func (f *Forwarder) hold(n int) { f.metrics.held.Set(float64(f.held.Add(int64(n)))) }

// releaseHeld delivers what was held when the log has come so far or the time
// is up.
func (f *Forwarder) releaseHeld() {
	overdue := time.NewTimer(time.Hour)
	defer overdue.Stop()
	for {
		select {
		case <-f.advanced:
		case <-overdue.C:
		case <-f.ctx.Done():
			return
		}
		var next time.Time
		for _, p := range f.slots.Load() {
			if p == nil {
				continue
			}
			if t := p.in.hold.due(p); !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
		overdue.Stop()
		if !next.IsZero() {
			overdue.Reset(time.Until(next))
		}
	}
}

// Close ends all streams and waits. Who waits for Synced is let go. It is
// idempotent.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	first := !f.closed
	f.closed = true
	f.mu.Unlock()
	f.cancel() // ends the peers, and they what comes in from them
	f.routes.close()
	f.wg.Wait()
	if first {
		f.metrics.unregister()
	}
	return nil
}
