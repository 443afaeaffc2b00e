package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

// leaderInfo is who leads, as this node sees it. A change of anything in it ends
// the streams to the leader.
type leaderInfo struct {
	node string
	term uint64
	// ready tells of this node that everything before its term is applied here, so
	// that it may stamp and grant.
	ready bool
}

// leading is one term of this node as leader, from the moment it is ready.
type leading struct {
	term  uint64
	ctx   context.Context
	clock *Clock // under proposeMu
	// looked: log time was compared with the voters' clocks, once, and belongs to
	// the granter's goroutine.
	looked bool
}

// watchLeadership follows this node's own elections. Raft waits for it.
func (c *Consensus) watchLeadership() {
	cancel := func() {}
	yield := func() {
		// With the lock, so that an assume under way either sees its context
		// cancelled or is undone here.
		c.proposeMu.Lock()
		defer c.proposeMu.Unlock()
		cancel()
		c.lead.Store(nil)
	}
	defer yield()
	for {
		select {
		case <-c.ctx.Done():
			return
		case won := <-c.notify:
			yield()
			if won {
				ctx, stop := context.WithCancel(c.ctx)
				cancel = stop
				c.wg.Go(func() { c.assume(ctx) })
			}
			c.refreshLeader()
		}
	}
}

// barrierPause is between two tries of a fresh leader that raft refuses.
const barrierPause = 20 * time.Millisecond

// assume makes a fresh leader ready: its stamps must continue those of entries
// that it holds and has not applied yet.
func (c *Consensus) assume(ctx context.Context) {
	term := c.raft.CurrentTerm()
	err := c.raft.Barrier(0).Error()
	// A leader that was elected again while an earlier handing over of its waits for a
	// peer that does not answer, up to rpcTimeout: raft refuses everything until then.
	for ; errors.Is(err, raft.ErrLeadershipTransferInProgress); err = c.raft.Barrier(0).Error() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(barrierPause):
		}
	}
	if err != nil {
		c.log.Debug("lost leadership before it began", "err", err)
		return
	}
	c.granter.assume()
	c.proposeMu.Lock()
	if ctx.Err() == nil {
		c.lead.Store(&leading{
			term: term, ctx: ctx,
			clock: NewClock(c.deps.State.Stamp(), c.now(), time.Now()),
		})
	}
	c.proposeMu.Unlock()
	c.log.Info("this node leads", "node", c.cfg.Node, "term", term)
	c.refreshLeader()
}

// watchLeader follows the leader as this node sees it.
func (c *Consensus) watchLeader() {
	ch := make(chan raft.Observation, 16)
	o := raft.NewObserver(ch, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	c.raft.RegisterObserver(o)
	defer c.raft.DeregisterObserver(o)
	// Observations are dropped when they come too fast, and a leader that is
	// elected twice in a row makes none.
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ch:
		case <-tick.C:
		}
		c.refreshLeader()
	}
}

func (c *Consensus) refreshLeader() {
	address, id := c.raft.LeaderWithID()
	var now leaderInfo
	now.node, _ = splitID(id)
	if now.node != "" {
		now.term = c.raft.CurrentTerm()
	}
	if lead := c.lead.Load(); lead != nil && now.node == c.cfg.Node {
		now.ready = true
		now.term = lead.term
	}
	c.leaderMu.Lock()
	defer c.leaderMu.Unlock()
	if now == c.leader {
		return
	}
	if now.node != "" && now.node != c.leader.node {
		_, _, at := splitAddress(address)
		if c.deps.Learn != nil && now.node != c.cfg.Node {
			c.deps.Learn(now.node, at)
		}
		c.metrics.leaderChanges.Inc()
	}
	c.leader = now
	close(c.leaderCh)
	c.leaderCh = make(chan struct{})
	c.proposer.reroute()
}

// leaderNow returns the leader and a channel that is closed when it changes.
func (c *Consensus) leaderNow() (leaderInfo, <-chan struct{}) {
	c.leaderMu.Lock()
	defer c.leaderMu.Unlock()
	return c.leader, c.leaderCh
}

// Leader returns the node that leads, as this node knows it.
func (c *Consensus) Leader() (node string, ok bool) {
	l, _ := c.leaderNow()
	return l.node, l.node != ""
}

// IsLeader tells whether this node leads and may propose.
func (c *Consensus) IsLeader() bool { return c.lead.Load() != nil }

// awaitLead waits a moment for this node to be ready to lead: a peer may hear of
// its election before it does.
func (c *Consensus) awaitLead(ctx context.Context, d time.Duration) *leading {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		_, changed := c.leaderNow()
		if lead := c.lead.Load(); lead != nil {
			return lead
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// propose stamps an entry and gives it to raft. encode gets the stamp in ms. It
// blocks while raft's queue is full, which is while the disk is slow. The future
// is done when the entry is applied here.
func (c *Consensus) propose(lead *leading, encode func(stamp int64) ([]byte, error)) (raft.ApplyFuture, error) {
	c.proposeMu.Lock()
	defer c.proposeMu.Unlock()
	if lead == nil || c.lead.Load() != lead {
		return nil, ErrNotLeader
	}
	data, err := encode(lead.clock.Stamp(c.now(), time.Now().Add(c.granter.offset())))
	if err != nil {
		return nil, err
	}
	return c.raft.ApplyLog(raft.Log{Data: data}, 0), nil
}

// proposeEntry proposes an entry that the leader makes itself and waits until it
// is applied here.
func (c *Consensus) proposeEntry(lead *leading, e *logpb.Entry) error {
	f, err := c.propose(lead, func(stamp int64) ([]byte, error) {
		e.Stamp = stamp
		return proto.Marshal(e)
	})
	if err != nil {
		return err
	}
	return leaderError(f.Error())
}
