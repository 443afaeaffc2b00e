package consensus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// proposer turns submitted items into the node's numbered packs and keeps them
// until they are applied here.
//
// An item is queued (in a pack without number), sent (its pack has a number and
// was handed to a route) or done. Numbers are given at the first sending, so
// what was never sent provably never reached the log.
type proposer struct {
	c *Consensus

	// doneMu is held while done functions run, so that they run in order whoever
	// ends them. It is taken before mu.
	doneMu sync.Mutex

	mu          sync.Mutex
	space       sync.Cond // queue has room, or closed
	queue       []*pack   // all but the last are full
	items       int       // in queue
	bytes       int       // in queue
	spares      [][]byte  // what later packs are gathered in
	window      []*pack   // sent, by number without gaps
	windowBytes int
	next        int    // in window: the next to send on this route
	last        uint64 // number of the last pack
	incarnation uint64
	rerouted    bool // the route is to be made anew
	closed      bool
	idle        chan struct{} // closed when nothing is queued or sent; nil if unwanted

	progress   time.Time // of the oldest pack
	patience   time.Duration
	gapNumber  uint64
	gapAt      time.Time
	lostAt     time.Time // since when there is no leader or lease; zero: there is
	wake       chan struct{}
	sendFailed int // consecutive, for the pause between attempts
	refused    int // routes that ended since anything was applied or the leader changed
}

func newProposer(c *Consensus) *proposer {
	p := &proposer{c: c, wake: make(chan struct{}, 1), patience: c.cfg.Stall}
	p.space.L = &p.mu
	return p
}

// kick wakes the sender.
func (p *proposer) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// submit queues item, waiting for room. ctx ends the wait.
func (p *proposer) submit(ctx context.Context, item *logpb.Item, done func(fsm.Result)) {
	size := fsm.ItemSize(item) + 8
	if err := p.enqueue(ctx, item, size, done); err != nil {
		p.c.metrics.failed.WithLabelValues("not_proposed").Inc()
		done(fsm.Result{Err: err})
		return
	}
}

func (p *proposer) enqueue(ctx context.Context, item *logpb.Item, size int, done func(fsm.Result)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.room(size) {
		defer context.AfterFunc(ctx, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.space.Broadcast()
		})()
		for !p.room(size) && !p.closed && ctx.Err() == nil {
			p.space.Wait()
		}
	}
	if p.closed || ctx.Err() != nil || size > maxFrame-1024 {
		return fsm.ErrNotProposed
	}
	var tail *pack
	if n := len(p.queue); n > 0 && p.queue[n-1].fits(size) {
		tail = p.queue[n-1]
	} else {
		tail = p.newPack()
	}
	if err := tail.add(item, done); err != nil {
		return err
	}
	if len(tail.dones) == 1 {
		p.queue = append(p.queue, tail)
	}
	p.items++
	p.bytes += size
	tail.queuedBytes += size
	if p.ready() {
		p.kick()
	}
	return nil
}

// spare buffers are kept for packs, so that gathering one does not begin with a few
// bytes that are moved again and again. mu is held where they are taken and given back.
const (
	maxSpares     = 16
	maxSpareBytes = 2 * maxPackBytes
)

func (p *proposer) newPack() *pack {
	pk := &pack{born: time.Now()}
	if n := len(p.spares); n > 0 {
		pk.items, p.spares = p.spares[n-1], p.spares[:n-1]
	}
	return pk
}

func (p *proposer) spare(b []byte) {
	if len(p.spares) < maxSpares && cap(b) <= maxSpareBytes {
		p.spares = append(p.spares, b)
	}
}

func (p *proposer) room(size int) bool {
	return p.items == 0 || (p.items < p.c.cfg.QueueItems && p.bytes+size <= p.c.cfg.QueueBytes)
}

// ready tells whether the head of the queue is to be sent now. mu is held.
func (p *proposer) ready() bool {
	if len(p.queue) == 0 || p.incarnation == 0 {
		return false
	}
	head := p.queue[0]
	switch n := p.awaited(); {
	case n == 0:
		// Of packs whose results lie in a snapshot nothing will tell that they are
		// done, until one that follows them is.
		return true
	case len(p.window) >= p.c.cfg.Window || p.windowBytes+len(head.items) > p.c.cfg.WindowBytes:
		return false
	default:
		return n < p.c.cfg.Eager || len(p.queue) > 1 || head.full()
	}
}

// awaited is how many packs under way have items whose outcome is open. mu is
// held.
func (p *proposer) awaited() (n int) {
	for _, pk := range p.window {
		if pk.reported < len(pk.dones) {
			n++
		}
	}
	return n
}

// take returns the next pack to send: one to be sent again, or the head of the
// queue with its number. It returns nil if there is nothing to send now.
func (p *proposer) take() *pack {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next < len(p.window) {
		pk := p.window[p.next]
		p.next++
		if pk.sent {
			p.c.metrics.resent.Inc()
		}
		pk.sent = true
		return pk
	}
	if !p.ready() {
		return nil
	}
	pk := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	p.items -= len(pk.dones)
	p.bytes -= pk.queuedBytes
	p.space.Broadcast()
	if len(p.window) == 0 {
		p.progress = time.Now()
		p.patience = p.c.cfg.Stall
	}
	p.last++
	p.spare(pk.seal(p.c.cfg.Node, p.incarnation, p.last))
	pk.sent = true
	p.window = append(p.window, pk)
	p.windowBytes += len(pk.frame)
	p.next = len(p.window)
	p.c.metrics.packs.Inc()
	p.c.metrics.packItems.Observe(float64(len(pk.dones)))
	return pk
}

// result ends one item: it was applied here. It runs on the goroutine of apply.
func (p *proposer) result(number uint64, item int, r fsm.Result) {
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.mu.Lock()
	// Earlier packs were applied in what a snapshot skipped.
	lost := p.retire(number)
	var done func(fsm.Result)
	if len(p.window) > 0 && p.window[0].number == number {
		pk := p.window[0]
		if item < len(pk.dones) {
			if item >= pk.reported {
				lost = append(lost, pk.dones[pk.reported:item]...)
				done = pk.dones[item]
				pk.reported = item + 1
			}
			if item == len(pk.dones)-1 {
				p.c.metrics.latency.Observe(time.Since(pk.born).Seconds())
				p.finish()
			}
		}
		p.progress = time.Now()
		p.patience = p.c.cfg.Stall
		p.refused = 0
	}
	p.mu.Unlock()
	p.fail(lost, fsm.ErrUnknown)
	if done != nil {
		done(r)
	}
}

// finish drops the oldest pack of the window. mu is held.
func (p *proposer) finish() {
	p.windowBytes -= len(p.window[0].frame)
	p.window[0] = nil
	p.window = p.window[1:]
	p.next = max(0, p.next-1)
	if len(p.queue) > 0 {
		p.kick()
	}
	p.settle()
}

// settle tells a drain that everything is done. mu is held.
func (p *proposer) settle() {
	if p.idle != nil && len(p.window) == 0 && len(p.queue) == 0 {
		close(p.idle)
		p.idle = nil
	}
}

// retire drops every pack before number and returns the done functions that
// have not run. mu is held.
func (p *proposer) retire(number uint64) []func(fsm.Result) {
	var lost []func(fsm.Result)
	for len(p.window) > 0 && p.window[0].number < number {
		pk := p.window[0]
		lost = append(lost, pk.dones[pk.reported:]...)
		p.finish()
	}
	return lost
}

// gap sends again from number, which apply waits for. Every refused pack makes
// one, so those that follow soon for the same number say nothing new.
func (p *proposer) gap(number uint64) {
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.mu.Lock()
	lost := p.retire(number)
	again := number == p.gapNumber && time.Since(p.gapAt) < p.c.cfg.Stall/4
	if len(p.window) > 0 && p.window[0].number == number && !again {
		p.gapNumber, p.gapAt = number, time.Now()
		p.next = 0
		p.kick()
	}
	p.mu.Unlock()
	p.fail(lost, fsm.ErrUnknown)
}

// begin opens an incarnation: packs are numbered from 1.
func (p *proposer) begin(incarnation session.Pos) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.incarnation = uint64(incarnation)
	p.last, p.next, p.gapNumber = 0, 0, 0
	p.rerouted = true
	p.kick()
}

// end closes an incarnation: apply refuses whatever of it is still under way.
func (p *proposer) end() {
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.mu.Lock()
	lost := p.forget()
	p.window, p.windowBytes, p.next = nil, 0, 0
	p.incarnation = 0
	p.settle()
	p.mu.Unlock()
	p.fail(lost, fsm.ErrUnknown)
}

// restored gives up the results of everything under way, because they may lie in
// what the snapshot skipped. The packs stay and are sent again: those that were
// not applied must be before later ones can.
func (p *proposer) restored() {
	p.doneMu.Lock()
	defer p.doneMu.Unlock()
	p.mu.Lock()
	lost := p.forget()
	p.next = 0
	p.kick()
	p.mu.Unlock()
	p.fail(lost, fsm.ErrUnknown)
}

// forget returns the done functions of the window that have not run and marks
// them as run. mu is held.
func (p *proposer) forget() []func(fsm.Result) {
	var lost []func(fsm.Result)
	for _, pk := range p.window {
		lost = append(lost, pk.dones[pk.reported:]...)
		pk.reported = len(pk.dones)
	}
	return lost
}

// flush returns the done functions of the queue and empties it. mu is held.
func (p *proposer) flush() []func(fsm.Result) {
	var dropped []func(fsm.Result)
	for _, pk := range p.queue {
		dropped = append(dropped, pk.dones...)
	}
	p.queue, p.items, p.bytes = nil, 0, 0
	p.space.Broadcast()
	return dropped
}

// fail runs done functions; doneMu is held, mu is not.
func (p *proposer) fail(dones []func(fsm.Result), err error) {
	if len(dones) == 0 {
		return
	}
	reason := "unknown"
	if errors.Is(err, fsm.ErrNotProposed) {
		reason = "not_proposed"
	}
	p.c.metrics.failed.WithLabelValues(reason).Add(float64(len(dones)))
	for _, done := range dones {
		done(fsm.Result{Err: err})
	}
}

// live tells whether somebody awaits the outcome of a pack under way. mu is held.
func (p *proposer) live() bool { return p.awaited() > 0 }

// reroute makes the sender look for the leader again and send everything under
// way once more.
func (p *proposer) reroute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rerouted = true
	p.sendFailed, p.refused = 0, 0
	p.kick()
}

// routeEnded is reroute where the route itself gave up.
func (p *proposer) routeEnded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rerouted = true
	p.refused++
	p.kick()
}
