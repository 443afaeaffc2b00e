package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/consensus"
)

// handOverTime bounds how long a drain waits for another leader.
const handOverTime = 5 * time.Second

// retreats is whether the node sends its clients away, and how far it is. The zero
// value is that of a node that does not.
type retreats struct {
	mu  sync.Mutex
	now *retreat // nil: none
}

// retreat is one, from the first drain that begins it until it is taken back. More than
// one drain may be under way in it: that of a stop comes on top of an operator's.
type retreat struct {
	ctx    context.Context //nolint:containedctx // it lives as long
	cancel context.CancelFunc
	drains sync.WaitGroup
	phase  string    // of admin; under retreats.mu
	notice time.Time // when the node turned red; under retreats.mu
}

// begin counts a drain in, which calls done on drains.
func (r *retreats) begin() *retreat {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beginLocked()
}

// first is begin, and nil if there is a retreat already.
func (r *retreats) first() *retreat {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != nil {
		return nil
	}
	return r.beginLocked()
}

func (r *retreats) beginLocked() *retreat {
	if r.now == nil {
		r.now = &retreat{phase: admin.DrainLead}
		r.now.ctx, r.now.cancel = context.WithCancel(context.Background())
	}
	r.now.drains.Add(1)
	return r.now
}

// enter goes on to a phase, and returns for how long the node has been red.
func (r *retreats) enter(a *retreat, phase string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.notice.IsZero() {
		a.notice = time.Now()
	}
	if phase != admin.DrainNotice || a.phase == admin.DrainLead {
		a.phase = phase // a later drain does not go back
	}
	return time.Since(a.notice)
}

// end takes the retreat back. It returns when the drains under way have ended.
func (r *retreats) end() {
	r.mu.Lock()
	a := r.now
	r.now = nil
	r.mu.Unlock()
	if a != nil {
		a.cancel()
		a.drains.Wait()
	}
}

// phase is how far it is, "" for no retreat. It does not block.
func (r *retreats) phase() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return ""
	}
	return r.now.phase
}

// red tells whether the node is to be seen as not ready. It does not block.
func (r *retreats) red() bool {
	phase := r.phase()
	return phase != "" && phase != admin.DrainLead
}

// departure is how clients are sent away. The zero value is that of the
// configuration.
type departure struct {
	timeout time.Duration // for sending them away, after what comes before
	rate    int           // clients a second; 0: spread over the time
	forGood bool          // the node does not come back
}

// Drain implements admin.Cluster.
func (b backend) Drain(ctx context.Context, r admin.DrainRequest) (admin.DrainResult, error) {
	n := b.n
	before := int(n.broker.Stats().Connected)
	if r.Off {
		n.undrain()
		leader, _ := n.consensus.Leader()
		return admin.DrainResult{Left: before, Leader: leader}, nil
	}
	if r.Rate < 0 {
		return admin.DrainResult{}, invalid(fmt.Errorf("the rate is %d: write how many clients are sent away a second", r.Rate))
	}
	sent := n.drain(ctx, departure{timeout: r.Timeout, rate: r.Rate})
	left := int(n.broker.Stats().Connected)
	out := admin.DrainResult{Sent: sent, Left: left}
	out.Leader, _ = n.consensus.Leader()
	if r.Stop && left == 0 && n.away.phase() == admin.DrainDrained {
		out.Stopped = true
		n.stop.Do(func() { close(n.asked) })
	}
	return out, nil
}

// drain has another node lead, makes this one not ready, waits until balancers have
// noticed, and sends the clients away; it returns how many. While it waits the node
// serves on, also who comes: a client that was sent away before its balancer has
// noticed would be put back here. undrain, and the end of ctx, end it where it is.
func (n *Node) drain(ctx context.Context, d departure) (sent int) {
	return n.retreat(ctx, n.away.begin(), d)
}

// retreat is drain, which away has counted in.
func (n *Node) retreat(ctx context.Context, away *retreat, d departure) (sent int) {
	defer away.drains.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(away.ctx, cancel)()
	n.passLead(ctx)
	if ctx.Err() != nil {
		return 0
	}
	n.broker.Announce(d.forGood)
	delay := n.cfg.Drain.Delay
	if len(n.store.Members()) < 2 {
		delay = 0 // no balancer has another node to choose
	}
	if !pause(ctx, delay-n.away.enter(away, admin.DrainNotice)) {
		return 0
	}
	before := int(n.broker.Stats().Connected)
	if d.timeout <= 0 {
		d.timeout = n.cfg.Drain.Timeout
	}
	if d.rate > 0 {
		d.timeout += time.Duration(before) * time.Second / time.Duration(d.rate)
	}
	n.away.enter(away, admin.DrainSend)
	ctx, stop := context.WithTimeout(ctx, d.timeout)
	defer stop()
	if err := n.broker.Drain(ctx, d.rate); err != nil {
		n.log.Warn("not every client was sent away", "err", err)
	}
	n.away.enter(away, admin.DrainDrained)
	return max(0, before-int(n.broker.Stats().Connected))
}

// pause waits and tells whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// undrain has the node serve again, when the drains under way have ended.
func (n *Node) undrain() {
	n.away.end()
	n.broker.Undrain()
	n.checkLease(n.ctx) // ready means at once
}

// passLead has another voter lead, where there is one that can: what the others do
// does not have to wait for an election when this node stops.
func (n *Node) passLead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	n.votersMu.Lock()
	defer n.votersMu.Unlock()
	if !n.consensus.IsLeader() || count(n.seats(inContact), votes) < 2 {
		return
	}
	if err := n.awaitOther(ctx); err != nil {
		n.log.Warn("the node drains and leads on", "err", err)
	}
}

// handOver makes another node the leader, because a leader cannot expel itself.
func (n *Node) handOver(ctx context.Context) error {
	n.votersMu.Lock()
	defer n.votersMu.Unlock()
	if err := n.makeHeir(); err != nil {
		return err
	}
	err := n.awaitOther(ctx)
	if err != nil && ctx.Err() != nil {
		return errNoLeader
	}
	if err != nil {
		return faultf(http.StatusConflict, "node %s leads and no other voter can take over: add nodes first, or stop the cluster (%s)", n.cfg.Node.ID, err)
	}
	return nil
}

// awaitOther hands the lead over until another node has it.
func (n *Node) awaitOther(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		leader, ok := n.consensus.Leader()
		switch {
		case ok && leader != n.cfg.Node.ID:
			return nil
		case n.consensus.IsLeader():
			// Also when it leads again: whom it chose may lose the election to it.
			if err := n.consensus.TransferLeadership(); err != nil && !errors.Is(err, consensus.ErrNotLeader) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
