package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/consensus"
)

// handOverTime bounds how long a drain waits for another leader.
const handOverTime = 5 * time.Second

// Drain implements admin.Cluster: readiness goes first, so that the balancer sends
// nobody here any more, then the lead, then the clients.
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
	n.draining.Store(true)
	n.passLead(ctx)
	n.drain(ctx, r.Timeout, r.Rate)
	left := int(n.broker.Stats().Connected)
	out := admin.DrainResult{Sent: max(0, before-left), Left: left}
	out.Leader, _ = n.consensus.Leader()
	if r.Stop && left == 0 {
		out.Stopped = true
		n.stop.Do(func() { close(n.asked) })
	}
	return out, nil
}

// drain makes the node not ready and sends its clients away, rate of them a second;
// 0: spread over the time.
func (n *Node) drain(ctx context.Context, timeout time.Duration, rate int) {
	if timeout <= 0 {
		timeout = n.cfg.Drain.Timeout
	}
	if rate > 0 {
		timeout += time.Duration(n.broker.Stats().Connected) * time.Second / time.Duration(rate)
	}
	n.draining.Store(true)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := n.broker.Drain(ctx, rate); err != nil {
		n.log.Warn("not every client was sent away in time", "err", err)
	}
}

// undrain has the node serve again.
func (n *Node) undrain() {
	n.broker.Undrain()
	n.draining.Store(false)
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
