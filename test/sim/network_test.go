package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// network carries streams between hosts: the nodes, and the machines that the
// clients run on. Each direction between two hosts is a wire of its own, which
// can be cut and delayed.
type network struct {
	sent atomic.Int64 // writes

	mu    sync.Mutex
	rng   *rand.Rand
	hosts map[string]*host
	wires map[[2]string]*wire
	ends  map[*end]struct{}
}

// host is a machine that may run a node.
type host struct {
	powered bool
	accept  func(from, proto string, conn net.Conn) // nil: nobody listens
}

func newNetwork(seed uint64) *network {
	return &network{
		rng:   rand.New(rand.NewPCG(seed, 1)),
		hosts: map[string]*host{}, wires: map[[2]string]*wire{}, ends: map[*end]struct{}{},
	}
}

// wire is one direction between two hosts. What is sent over it arrives in order
// after its delay; while it is cut, what was sent waits, as in a TCP connection
// whose cable is out.
type wire struct {
	net *network

	mu      sync.Mutex
	cut     bool
	delay   time.Duration
	jitter  time.Duration
	changed chan struct{} // closed when cut changes
}

// The delays of a healthy wire.
const (
	usualDelay  = 100 * time.Microsecond
	usualJitter = 400 * time.Microsecond
)

func (n *network) wire(from, to string) *wire {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := [2]string{from, to}
	w := n.wires[k]
	if w == nil {
		w = &wire{net: n, delay: usualDelay, jitter: usualJitter, changed: make(chan struct{})}
		n.wires[k] = w
	}
	return w
}

// state tells whether the wire is cut, and a channel that is closed when that
// changes.
func (w *wire) state() (cut bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut, w.changed
}

func (w *wire) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut == cut {
		return
	}
	w.cut = cut
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *wire) slow(delay, jitter time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.jitter = delay, jitter
}

// latency draws how long something takes over the wire.
func (w *wire) latency() time.Duration {
	w.mu.Lock()
	delay, jitter := w.delay, w.jitter
	w.mu.Unlock()
	if jitter <= 0 {
		return delay
	}
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	return delay + time.Duration(w.net.rng.Int64N(int64(jitter)))
}

// cut cuts or mends the wire from one host to another, in this direction only.
func (n *network) cut(from, to string, cut bool) { n.wire(from, to).setCut(cut) }

// whole tells whether no wire from or to a host is cut.
func (n *network) whole(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, w := range n.wires {
		if k[0] != name && k[1] != name {
			continue
		}
		if cut, _ := w.state(); cut {
			return false
		}
	}
	return true
}

// heal makes every wire whole and quick again.
func (n *network) heal() {
	n.mu.Lock()
	var all []*wire
	for _, w := range n.wires {
		all = append(all, w)
	}
	n.mu.Unlock()
	for _, w := range all {
		w.slow(usualDelay, usualJitter)
		w.setCut(false)
	}
}

// listen makes the host take connections; nil makes it refuse them.
func (n *network) listen(name string, accept func(from, proto string, conn net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = &host{powered: true, accept: accept}
}

// powerOff makes the host vanish: nobody is told that its connections are gone.
func (n *network) powerOff(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = &host{}
}

// powered tells whether anything answers at the host.
func (n *network) powered(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	return h != nil && h.powered
}

// between returns the ends, at host, of its connections; with a peer only those
// to it.
func (n *network) between(host, peer string) []*end {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*end
	for e := range n.ends {
		if e.local == host && (peer == "" || e.remote == peer) {
			all = append(all, e)
		}
	}
	return all
}

// reset breaks every connection between two hosts, as a firewall does that has
// forgotten them.
func (n *network) reset(a, b string) {
	for _, e := range n.between(a, b) {
		e.reset()
	}
}

// errUnreachable is what a dial to a host gives that is off or cut off.
var errUnreachable = errors.New("the host does not answer")

// dial connects two hosts. A cut wire or a host without power answers nothing, a
// host without a listener refuses.
func (n *network) dial(ctx context.Context, from, to, proto string) (net.Conn, error) {
	for _, w := range []*wire{n.wire(from, to), n.wire(to, from)} {
		if err := w.pass(ctx); err != nil {
			return nil, fmt.Errorf("dial %s: %w", to, err)
		}
	}
	n.mu.Lock()
	h := n.hosts[to]
	n.mu.Unlock()
	if h == nil || !h.powered {
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w: %w", to, errUnreachable, ctx.Err())
	}
	if h.accept == nil {
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	near, far := newPair(n, from, to)
	h.accept(from, proto, far)
	return near, nil
}

// pass waits until something has gone over the wire.
func (w *wire) pass(ctx context.Context) error {
	timer := time.NewTimer(w.latency())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		cut, changed := w.state()
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errUnreachable, ctx.Err())
		}
	}
}
