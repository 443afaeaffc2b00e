package consensus

import (
	"time"

	"github.com/mqcluster/mqcluster/fsm"
)

// watch sends again what makes no progress and gives up what has waited too
// long for a leader.
func (p *proposer) watch() {
	tick := time.NewTicker(max(p.c.cfg.Stall/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-p.c.ctx.Done():
			return
		case now := <-tick.C:
			p.check(now)
		}
	}
}

func (p *proposer) check(now time.Time) {
	leader, _ := p.c.leaderNow()
	available := leader.node != "" && p.c.Leased()
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.mu.Lock()
	var unknown, dropped []func(fsm.Result)
	switch {
	case available:
		p.lostAt = time.Time{}
	case p.lostAt.IsZero():
		p.lostAt = now
	case now.Sub(p.lostAt) >= 3*p.c.cfg.GiveUp:
		unknown, dropped = p.forget(), p.flush()
	case now.Sub(p.lostAt) >= p.c.cfg.GiveUp && !p.live():
		// Behind packs whose outcome is open they wait, for the sake of order.
		dropped = p.flush()
	}
	if leader.node != "" && p.live() && now.Sub(p.progress) > p.patience {
		// Patience grows, so that a slow disk does not fill the log with copies.
		p.progress = now
		p.patience = min(2*p.patience, 8*p.c.cfg.Stall)
		p.rerouted = true
		p.kick()
	}
	p.mu.Unlock()
	p.fail(unknown, fsm.ErrUnknown)
	p.fail(dropped, fsm.ErrNotProposed)
}

// drain refuses new items and waits until the others are done, or for d.
func (p *proposer) drain(d time.Duration) {
	p.mu.Lock()
	p.closed = true
	p.space.Broadcast()
	idle := make(chan struct{})
	p.idle = idle
	p.settle()
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// shut refuses new items.
func (p *proposer) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.space.Broadcast()
}

// failAll ends everything, at the end of the node.
func (p *proposer) failAll() {
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.mu.Lock()
	unknown, dropped := p.forget(), p.flush()
	p.window, p.windowBytes, p.next = nil, 0, 0
	p.settle()
	p.mu.Unlock()
	p.fail(unknown, fsm.ErrUnknown)
	p.fail(dropped, fsm.ErrNotProposed)
}

// backlog is what a proposer holds.
type backlog struct{ InFlight, Items, Bytes int }

func (p *proposer) load() backlog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return backlog{InFlight: len(p.window), Items: p.items, Bytes: p.bytes}
}
