package consensus

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// holder is a node's incarnation as the leader knows it.
type holder struct {
	incarnation uint64
	nonce       string
	// renewed is when the last grant was made, or when the leader began to count.
	renewed time.Duration
	granted bool // by this leader
	applied uint64
	// ended: the leader has decided that the incarnation is over. From then on
	// it grants it nothing.
	ended time.Duration
	// offset of the node's wall clock from ours.
	offset time.Duration
}

// granter is the leader's side of leases: who holds one, who has lost it.
//
// It is safe because of when each side counts from. A node counts its lease from
// when it sent the request. The leader makes sure that it still leads after it
// got the request, so a later leader was elected after that, and counts the
// whole lease and a margin from its own beginning before it ends anything.
type granter struct {
	c *Consensus

	mu      sync.Mutex
	holders map[string]*holder
	asking  map[string]chan struct{} // NodeUp proposed
	changed chan struct{}            // closed when applied figures change
	want    uint64
	pokes   map[chan struct{}]struct{} // one per stream
	rooms   map[string]roomWord        // by node
	since   time.Duration              // when this node became leader

	verifyMu  sync.Mutex
	verifying bool          // a round is under way or about to begin
	nextRound *verification // that has not begun

	skew     atomic.Int64 // see offset
	compared bool         // a majority of the voters' clocks is in it
}

func newGranter(c *Consensus) *granter {
	return &granter{
		c: c, holders: map[string]*holder{}, asking: map[string]chan struct{}{},
		changed: make(chan struct{}), pokes: map[chan struct{}]struct{}{}, rooms: map[string]roomWord{},
	}
}

// assume starts counting: this node has become leader.
func (g *granter) assume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holders = map[string]*holder{}
	g.rooms, g.since = map[string]roomWord{}, g.c.now()
	g.want = 0
	g.compared = false
	g.skew.Store(0)
	g.sync()
}

// sync follows the members of the state. An incarnation that is new here counts
// from now. mu is held.
func (g *granter) sync() {
	now := g.c.now()
	seen := map[string]bool{}
	for _, m := range g.c.deps.State.Members() {
		if m.Incarnation == 0 {
			continue
		}
		seen[m.Node] = true
		if h := g.holders[m.Node]; h == nil || h.incarnation != m.Incarnation {
			g.holders[m.Node] = &holder{incarnation: m.Incarnation, nonce: m.Nonce, renewed: now}
		}
	}
	for node := range g.holders {
		if !seen[node] {
			delete(g.holders, node)
		}
	}
}

// offset of wall time, by the median of the voters' clocks, from this node's.
func (g *granter) offset() time.Duration { return time.Duration(g.skew.Load()) }

// compare takes the median anew. mu is held.
func (g *granter) compare() {
	var all []time.Duration
	voters := 0
	for _, s := range g.c.Servers() {
		if !s.Voter {
			continue
		}
		voters++
		if h := g.holders[s.Node]; h != nil && h.granted {
			all = append(all, h.offset)
		}
	}
	g.compared = len(all) > voters/2
	if g.compared {
		g.skew.Store(int64(median(all)))
	}
}

// run is the leader's watch: it ends incarnations without a lease and proposes a
// Tick when something is due.
func (g *granter) run() {
	tick := time.NewTicker(min(100*time.Millisecond, g.c.cfg.Margin/4))
	defer tick.Stop()
	last := g.c.now()
	for {
		select {
		case <-g.c.ctx.Done():
			return
		case <-tick.C:
		}
		now := g.c.now()
		gap := now - last
		last = now
		lead := g.c.lead.Load()
		if lead == nil {
			continue
		}
		g.expire(lead, now, gap)
		g.look(lead)
		g.tick(lead)
	}
}

// expire ends the incarnations whose lease ran out longer than the margin ago.
func (g *granter) expire(lead *leading, now, gap time.Duration) {
	var down []*logpb.NodeDown
	g.mu.Lock()
	g.sync()
	g.compare()
	for node, h := range g.holders {
		if gap > g.c.cfg.Margin/2 {
			// This process slept, and requests may wait unread: nobody is judged by
			// that time.
			h.renewed += gap
		}
		if now-h.renewed <= g.c.cfg.Lease+g.c.cfg.Margin {
			continue
		}
		if h.ended == 0 || now-h.ended > g.c.cfg.Lease {
			h.ended = now
			down = append(down, &logpb.NodeDown{Node: node, Incarnation: h.incarnation})
		}
	}
	g.mu.Unlock()
	for _, d := range down {
		g.c.log.Warn("node down: its lease was not renewed", "member", d.Node, "incarnation", d.Incarnation)
		g.c.metrics.nodesDown.Inc()
		if err := g.c.proposeEntry(lead, &logpb.Entry{Command: &logpb.Entry_NodeDown{NodeDown: d}}); err != nil {
			g.c.log.Debug("node down not proposed", "member", d.Node, "err", err)
			return
		}
	}
	if len(down) > 0 {
		g.notify()
	}
}

func (g *granter) tick(lead *leading) {
	if g.c.deps.Due == nil {
		return
	}
	due, ok := g.c.deps.Due()
	if !ok {
		return
	}
	g.c.proposeMu.Lock()
	stamp := lead.clock.Stamp(g.c.now(), time.Now().Add(g.offset()))
	g.c.proposeMu.Unlock()
	if due > stamp {
		return
	}
	if err := g.c.proposeEntry(lead, &logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}}); err != nil {
		g.c.log.Debug("tick not proposed", "err", err)
	}
}

// answer serves one request of the node that the certificate names.
func (g *granter) answer(ctx context.Context, lead *leading, node string, r leaseRequest) leaseAnswer {
	refuse := func(why string) leaseAnswer { return leaseAnswer{Seq: r.Seq, Refused: why} }
	if r.Node != node {
		return refuse("the request is of another node than the certificate")
	}
	if !slices.ContainsFunc(g.c.Servers(), func(s Server) bool { return s.Node == node && s.Store == r.Store }) {
		return refuse("the node is not a member of this cluster: it was removed or its disk was replaced; join it again")
	}
	g.heard(node, r.Room)
	if r.Room == RoomNone {
		return refuse(errNoRoom.Error())
	}
	m := g.c.member(node)
	if m == nil || m.Incarnation == 0 || m.Nonce != r.Nonce {
		if err := g.up(ctx, lead, node, r); err != nil {
			return refuse(err.Error())
		}
		if m = g.c.member(node); m == nil || m.Incarnation == 0 || m.Nonce != r.Nonce {
			return refuse("the state does not list the node as a member yet")
		}
	}
	if err := g.verify(ctx); err != nil {
		return refuse(err.Error())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sync()
	h := g.holders[node]
	if h == nil || h.incarnation != m.Incarnation || h.ended != 0 || g.c.lead.Load() != lead {
		return refuse("the lease ran out")
	}
	h.renewed, h.granted, h.applied = g.c.now(), true, max(h.applied, r.Applied)
	h.offset = time.Until(time.UnixMilli(r.Wall))
	g.signal()
	scarce, known := g.scarce()
	a := leaseAnswer{
		Seq: r.Seq, Granted: g.c.cfg.Lease.Milliseconds(), Incarnation: h.incarnation,
		Term: lead.term, Commit: g.c.raft.CommitIndex(), Scarce: scarce, Unheard: !known,
	}
	if h.applied < g.want {
		a.Want = g.want
	}
	l := g.c.lessee
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version != r.Secrets && l.secrets != nil {
		a.Secrets, a.SecretsVersion = l.secrets, l.version
	}
	return a
}

// up proposes the node's new incarnation, once for a start however often it
// asks, and waits until it is applied here.
func (g *granter) up(ctx context.Context, lead *leading, node string, r leaseRequest) error {
	key := node + "/" + r.Nonce
	g.mu.Lock()
	if wait := g.asking[key]; wait != nil {
		g.mu.Unlock()
		select {
		case <-wait:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	g.asking[key] = done
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.asking, key)
		g.mu.Unlock()
		close(done)
	}()
	return g.c.proposeEntry(lead, &logpb.Entry{Command: &logpb.Entry_NodeUp{NodeUp: &logpb.NodeUp{
		Node: node, Store: r.Store, Nonce: r.Nonce, Level: r.Level, Version: r.Version,
	}}})
}

// verification is one round of confirm that several requests share.
type verification struct {
	done chan struct{}
	err  error
}

// verify returns nil if a majority confirmed, after the call began, that this
// node leads. Requests that come while a round is under way share the next one:
// a round costs a heartbeat to every follower.
func (g *granter) verify(ctx context.Context) error {
	g.verifyMu.Lock()
	v := g.nextRound
	if v == nil {
		v = &verification{done: make(chan struct{})}
		g.nextRound = v
	}
	if !g.verifying {
		g.verifying = true
		g.c.wg.Go(g.verifyRounds)
	}
	g.verifyMu.Unlock()
	select {
	case <-v.done:
		return v.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *granter) verifyRounds() {
	for {
		g.verifyMu.Lock()
		v := g.nextRound
		g.nextRound = nil
		g.verifying = v != nil
		g.verifyMu.Unlock()
		if v == nil {
			return
		}
		v.err = ErrNotLeader
		if lead := g.c.lead.Load(); lead != nil {
			v.err = g.c.confirm(g.c.ctx, lead)
		}
		close(v.done)
	}
}

// signal wakes those who wait for applied figures. mu is held.
func (g *granter) signal() {
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *granter) notify() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signal()
}

// pokeAll makes every stream tell its node what is wanted.
func (g *granter) pokeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ch := range g.pokes {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
