// Package consensus orders what the cluster promises: one raft group, the packs
// that the nodes propose to it, and the leases under which a node may serve.
//
// It is not the state (package fsm), which it sees as a raft.FSM and a few
// figures, nor the mesh, which gives it connections whose peer a certificate
// proved. See DESIGN.md for the reasons.
package consensus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"github.com/prometheus/client_golang/prometheus"
)

// Facts that callers ask for.
var (
	// ErrNotLeader: the verb works on the leader only.
	ErrNotLeader = errors.New("this node is not the leader: ask the leader")
	// ErrClosed: the node is stopping.
	ErrClosed = errors.New("the node is stopping")
	// ErrBootstrapped: the directory holds a member of a cluster already.
	ErrBootstrapped = errors.New("the data directory belongs to a cluster already: start the node, or choose another directory")
)

// State is what consensus must know of the replicated state. All of it may be
// called from any goroutine, that of apply included.
type State interface {
	// AppliedIndex is the raft index of the last command applied.
	AppliedIndex() uint64
	// Stamp is the log time of the last entry, in milliseconds; 0 before the first.
	Stamp() int64
	// Members are the nodes of the cluster, as of AppliedIndex. They are not
	// changed after the call.
	Members() []*logpb.Member
}

// Network dials a peer by its node id and ends with its certificate verified.
type Network interface {
	Dial(ctx context.Context, peer, proto string) (net.Conn, error)
}

// Config of a Consensus. Zero values of the figures mean the defaults named.
type Config struct {
	// Dir holds raft.db and the snapshots; the Consensus owns it whole.
	Dir string
	// Node is the node's id, Store that of its disk: made with the data directory
	// and never used for another.
	Node, Store string
	// Address of this node's mesh port, host:port, as peers dial it.
	Address string
	// Generation names the group among those that came of the same Bootstrap: a
	// random one is chosen before each Recover, and who joins is told it. Nodes of
	// different generations do not listen to each other. It has no blanks.
	Generation string
	// Level and Version are told in NodeUp.
	Level   uint32
	Version string

	// HeartbeatTimeout (500 ms) and ElectionTimeout (the same) decide how soon a
	// silent leader is replaced, LeaderLease (500 ms) how soon one that a majority
	// does not answer steps down. See raftConfig.
	HeartbeatTimeout, ElectionTimeout, LeaderLease time.Duration
	// CommitTimeout (1 ms) is how late a follower learns of a commit when nothing
	// follows it. See raftConfig.
	CommitTimeout time.Duration
	// StoreDeadline (10 s): a log write that takes longer ends the process.
	StoreDeadline time.Duration
	// A snapshot is taken when SnapshotThreshold (16384) entries came since the
	// last, looked at every SnapshotInterval (30 s); TrailingLogs (8192) entries
	// stay behind it.
	SnapshotInterval                time.Duration
	SnapshotThreshold, TrailingLogs uint64
	// JournalBytes (8 MiB) is the size of each of the two files through which
	// entries go to raft.db, at least 64 KiB; it counts where they are made.
	JournalBytes int64

	// Eager (1) is how many packs may be under way before a pack that is not full
	// waits for one of them. With more, a busy node makes many small entries, and an
	// entry costs as much as some 30 items. What waits does so for at most one commit,
	// never for a timer.
	Eager int
	// Window (32) and WindowBytes (4 MiB) bound the packs in flight, QueueItems
	// (16384) and QueueBytes (16 MiB) what waits for them.
	Window, WindowBytes    int
	QueueItems, QueueBytes int
	// GiveUp (5 s) is how long the node may be without leader or lease before what
	// it has not sent ends with ErrNotProposed; three times as long before what
	// it has sent ends with ErrUnknown.
	GiveUp time.Duration
	// Stall (1 s): packs without progress for this long are sent again.
	Stall time.Duration
	// Drain (2 s) is how long Close waits for what is in flight.
	Drain time.Duration

	// Lease (5 s) is how long a grant lasts, Renew (1 s) how often it is asked for,
	// Margin (1 s) how much longer than the lease the leader waits before it
	// declares a node down.
	Lease, Renew, Margin time.Duration
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c *Config) complete() error {
	for _, f := range []struct{ name, value string }{
		{"data directory", c.Dir}, {"node id", c.Node}, {"store id", c.Store}, {"mesh address", c.Address},
	} {
		if f.value == "" {
			return fmt.Errorf("consensus: the %s is missing", f.name)
		}
	}
	orDefault(&c.HeartbeatTimeout, 500*time.Millisecond)
	orDefault(&c.ElectionTimeout, c.HeartbeatTimeout)
	orDefault(&c.LeaderLease, min(500*time.Millisecond, c.HeartbeatTimeout))
	orDefault(&c.CommitTimeout, 1*time.Millisecond)
	orDefault(&c.StoreDeadline, 10*time.Second)
	orDefault(&c.SnapshotInterval, 30*time.Second)
	orDefault(&c.SnapshotThreshold, 16384)
	orDefault(&c.TrailingLogs, 8192)
	orDefault(&c.JournalBytes, 8<<20)
	c.JournalBytes = max(c.JournalBytes, 64<<10) / journalPage * journalPage
	orDefault(&c.Eager, 1)
	orDefault(&c.Window, 32)
	orDefault(&c.WindowBytes, 4<<20)
	orDefault(&c.QueueItems, 16384)
	orDefault(&c.QueueBytes, 16<<20)
	orDefault(&c.GiveUp, 5*time.Second)
	orDefault(&c.Stall, time.Second)
	orDefault(&c.Drain, 2*time.Second)
	orDefault(&c.Lease, 5*time.Second)
	orDefault(&c.Renew, c.Lease/5)
	orDefault(&c.Margin, c.Lease/5)
	return nil
}

// Deps of a Consensus. FSM, State, Network and Fatal are required.
type Deps struct {
	FSM     raft.FSM
	State   State
	Network Network
	// Fatal ends the process: the log store failed and what it wrote is unknown.
	Fatal      func(error)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Due tells the log time, in ms, at which something in the state is due by
	// itself. Asked a few times a second while this node leads.
	Due func() (stamp int64, ok bool)
	// Learn is told where a member can be dialled, as raft knows it.
	Learn func(node, address string)
	// Follow tells whether a new leader steps log time to wall time where that is
	// far ahead: what nobody counted during an outage then counts. Nil: it does not.
	Follow func() bool
	// OnSecrets gets what the leader hands down (see SetSecrets) whenever it
	// changes. It must not block.
	OnSecrets func([]byte)
	// Storage replaces the files in Config.Dir, and Now the monotonic clock that
	// leases count by. They are for simulations; nil means the real ones.
	Storage *Storage
	Now     func() time.Duration
	// Room tells what the disk has left; nil: always enough. It is asked before
	// every write of entries, and must be cheap.
	Room func() Room
}

// Consensus is this node's part of the raft group.
type Consensus struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	now  func() time.Duration // counts suspend

	raft    *raft.Raft
	trans   *gatedTransport
	layer   *streamLayer
	store   *guardedStore
	newest  atomic.Pointer[point] // the last entry of the newest snapshot
	snaps   raft.SnapshotStore
	metrics *metrics

	proposer *proposer
	lessee   *lessee
	granter  *granter

	proposeMu sync.Mutex // stamps go into the log in order
	lead      atomic.Pointer[leading]
	leaderMu  sync.Mutex
	leader    leaderInfo
	leaderCh  chan struct{} // closed when leader changes
	notify    chan bool

	nodeMu      sync.Mutex
	nonce       string
	incarnation atomic.Uint64 // changed under nodeMu

	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	streams  streamSet
	refusals seldom
	closing  sync.Once
	closeE   error
}

// Open starts the node's part of raft. It returns when the state is at least at
// the newest snapshot, before entries behind that are applied and before there
// is a leader. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config, deps Deps) (*Consensus, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if deps.FSM == nil || deps.State == nil || deps.Network == nil || deps.Fatal == nil {
		return nil, errors.New("consensus: FSM, State, Network and Fatal are required")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = boottime
	}
	if deps.Room == nil {
		deps.Room = func() Room { return RoomEnough }
	}
	c := &Consensus{
		cfg: cfg, deps: deps, log: deps.Logger, now: deps.Now,
		nonce: rand.Text(), leaderCh: make(chan struct{}), notify: make(chan bool, 16),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.metrics = newMetrics(c)
	c.proposer = newProposer(c)
	c.lessee = newLessee(c)
	c.granter = newGranter(c)
	if err := c.openRaft(ctx); err != nil {
		c.cancel()
		return nil, err
	}
	if err := c.metrics.register(deps.Registerer); err != nil {
		return nil, errors.Join(fmt.Errorf("register the metrics of consensus: %w", err), c.closeRaft())
	}
	c.wg.Go(c.watchLeadership)
	c.wg.Go(c.watchLeader)
	c.wg.Go(c.proposer.run)
	c.wg.Go(c.proposer.watch)
	c.wg.Go(c.lessee.run)
	c.wg.Go(c.granter.run)
	c.wg.Go(c.watchRoom)
	return c, nil
}

// Close stops the node's part: what is in flight gets Config.Drain to finish,
// leadership is handed over, and every item's done has run when it returns. It
// is idempotent.
func (c *Consensus) Close() error {
	c.closing.Do(func() {
		c.proposer.drain(c.cfg.Drain)
		if c.IsLeader() {
			if err := c.TransferLeadership(); err != nil {
				c.log.Debug("leadership was not handed over", "err", err)
			}
		}
		c.closeE = c.stop()
	})
	return c.closeE
}

// stop ends everything at once, as a crash would.
func (c *Consensus) stop() error {
	c.proposer.shut()
	c.cancel()
	c.streams.close()
	// Before raft: it leaves futures open that are in its queues when it stops.
	c.wg.Wait()
	err := c.closeRaft()
	c.proposer.failAll()
	c.metrics.unregister(c.deps.Registerer)
	return err
}

// Applied takes the events of this package's business; others are ignored. It
// is called on the goroutine that applies, in log order, and runs the done
// functions of Submit.
func (c *Consensus) Applied(e fsm.Event) {
	switch e.Kind {
	case fsm.EventResult:
		c.proposer.result(e.Number, e.Item, e.Result)
	case fsm.EventPackGap:
		c.proposer.gap(e.Number)
	case fsm.EventNode:
		c.incarnate(e.Pos)
	case fsm.EventRestored:
		c.restored()
	}
}

// Submit proposes item; see broker.Log. Items are applied in the order of their
// Submits and done runs in that order. It blocks while the queue is full and
// must therefore not be called from a done.
func (c *Consensus) Submit(item *logpb.Item, done func(fsm.Result)) {
	c.proposer.submit(c.ctx, item, done)
}

// Propose submits item and waits for its result. An error of ctx means that the
// outcome is unknown; an error of the item is in the result's Err as well.
func (c *Consensus) Propose(ctx context.Context, item *logpb.Item) (fsm.Result, error) {
	ch := make(chan fsm.Result, 1)
	c.proposer.submit(ctx, item, func(r fsm.Result) { ch <- r })
	select {
	case r := <-ch:
		return r, r.Err
	case <-ctx.Done():
		return fsm.Result{}, fmt.Errorf("propose: %w", ctx.Err())
	}
}

// member is this node's record in the state, nil if it has none.
func (c *Consensus) member(node string) *logpb.Member {
	for _, m := range c.deps.State.Members() {
		if m.Node == node {
			return m
		}
	}
	return nil
}

// Incarnation of this node, 0 while it has none.
func (c *Consensus) Incarnation() session.Pos { return session.Pos(c.incarnation.Load()) }

// incarnate acts on this node's own NodeUp (pos is the incarnation) or NodeDown
// (0). The state may be ahead of the event; an event that it has overtaken is
// followed by another one.
func (c *Consensus) incarnate(pos session.Pos) {
	c.nodeMu.Lock()
	defer c.nodeMu.Unlock()
	if pos != 0 && pos == c.Incarnation() {
		return
	}
	m := c.member(c.cfg.Node)
	mine := pos != 0 && m != nil && m.Incarnation == uint64(pos) && m.Nonce == c.nonce
	switch {
	case mine:
		c.setIncarnation(pos)
	case c.Incarnation() != 0:
		// A lease that ran out, or another process with our name.
		c.nonce = rand.Text()
		c.setIncarnation(0)
	}
}

// setIncarnation is called with nodeMu held.
func (c *Consensus) setIncarnation(pos session.Pos) {
	if c.Incarnation() != 0 {
		c.proposer.end()
	}
	c.incarnation.Store(uint64(pos))
	if pos != 0 {
		c.proposer.begin(pos)
	}
	c.lessee.incarnated(uint64(pos))
	c.log.Info("node incarnation", "node", c.cfg.Node, "incarnation", uint64(pos))
}

// restored acts on a snapshot that replaced the state: results may lie within
// what it skipped.
func (c *Consensus) restored() {
	c.nodeMu.Lock()
	defer c.nodeMu.Unlock()
	m := c.member(c.cfg.Node)
	switch {
	case m != nil && m.Nonce == c.nonce && m.Incarnation != 0 && m.Incarnation != c.incarnation.Load():
		c.setIncarnation(session.Pos(m.Incarnation))
	case c.Incarnation() == 0:
	case m == nil || m.Incarnation != c.incarnation.Load():
		c.nonce = rand.Text()
		c.setIncarnation(0)
	default:
		c.proposer.restored()
	}
}

// reconcile starts an incarnation whose event came before anybody listened.
func (c *Consensus) reconcile() {
	c.nodeMu.Lock()
	defer c.nodeMu.Unlock()
	m := c.member(c.cfg.Node)
	if c.Incarnation() == 0 && m != nil && m.Incarnation != 0 && m.Nonce == c.nonce {
		c.setIncarnation(session.Pos(m.Incarnation))
	}
}
