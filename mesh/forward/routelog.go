package forward

import (
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/routing"
)

// routeLog is what this node wants of the others: the set of its distinct
// filters, and the last changes of that set, numbered, so that a peer that was
// away for a moment needs only those.
type routeLog struct {
	incarnation uint64 // of this log, random: a restart begins a new one
	keep        int    // changes kept at least
	patience    time.Duration
	metrics     *metrics
	done        chan struct{} // closed from the start

	mu      sync.Mutex
	filters filterSet
	hash    uint64
	changes []change // versions base+1 … base+len; elements never change
	base    uint64
	lastAdd uint64 // version of the newest add
	peers   map[*peer]uint64
	waiters []waiter // by version and by deadline
	timer   *time.Timer
	closed  bool
}

type waiter struct {
	version  uint64
	deadline time.Time
	ch       chan struct{}
}

func newRouteLog(incarnation uint64, keep int, patience time.Duration, met *metrics) *routeLog {
	l := &routeLog{
		incarnation: incarnation, keep: keep, patience: patience, metrics: met,
		done: make(chan struct{}), filters: newFilterSet(), peers: map[*peer]uint64{},
	}
	close(l.done)
	return l
}

func (l *routeLog) version() uint64 { return l.base + uint64(len(l.changes)) }

// add wakes the streams: a client waits for its SUBACK.
func (l *routeLog) add(filter string) {
	if _, _, shared := routing.SplitShared(filter); shared {
		return // the log chooses the members of a shared subscription
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.filters.add(filter) {
		return
	}
	l.record(change{filter, true})
	l.lastAdd = l.version()
	for p := range l.peers {
		p.wake()
	}
}

// remove waits for the next add or keepalive: until then the peers send a
// little more than they need.
func (l *routeLog) remove(filter string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.filters.remove(filter) {
		return
	}
	l.record(change{filter, false})
}

func (l *routeLog) record(ch change) {
	l.hash ^= hash64(ch.filter)
	l.changes = append(l.changes, ch)
	if len(l.changes) > 2*l.keep {
		// Into new memory, because a stream may be reading the old.
		cut := len(l.changes) - l.keep
		l.base += uint64(cut)
		l.changes = slices.Clone(l.changes[cut:])
	}
	l.metrics.local.Set(float64(l.filters.len()))
}

// digest returns a consistent triple.
func (l *routeLog) digest() (incarnation, version, hash uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.incarnation, l.version(), l.hash
}

// newestAdd returns the version of the newest add.
func (l *routeLog) newestAdd() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastAdd
}

// after returns the changes after a version, at most limit, without copying
// them; ok is false if the log does not reach that far back.
func (l *routeLog) after(version uint64, limit int) (changes []change, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if version < l.base || version > l.version() {
		return nil, false
	}
	changes = l.changes[version-l.base:]
	return changes[:min(len(changes), limit):min(len(changes), limit)], true
}

// snapshot returns all filters as of version.
func (l *routeLog) snapshot() (all []string, version, hash uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.filters.list(), l.version(), l.hash
}

// connected counts p among the peers that Synced waits for. It returns the
// version from which p can go on, or false if p needs a snapshot.
func (l *routeLog) connected(p *peer, incarnation, version uint64) (from uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok = incarnation == l.incarnation && version >= l.base && version <= l.version()
	if !ok {
		version = 0
	}
	l.peers[p] = version
	l.metrics.peers.Set(float64(len(l.peers)))
	return version, ok
}

func (l *routeLog) disconnected(p *peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.peers, p)
	l.metrics.peers.Set(float64(len(l.peers)))
	l.sweep()
}

// acked takes a peer's word for what it has applied; false if that cannot be.
func (l *routeLog) acked(p *peer, version uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, ok := l.peers[p]
	if !ok {
		return true
	}
	if version > l.version() {
		return false
	}
	if version > before {
		l.peers[p] = version
		l.sweep()
	}
	return true
}

// synced returns a channel that is closed when every connected peer has acked
// the newest add, or after the log's patience.
func (l *routeLog) synced() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.settled() >= l.lastAdd {
		return l.done
	}
	w := waiter{l.lastAdd, time.Now().Add(l.patience), make(chan struct{})}
	l.waiters = append(l.waiters, w)
	if len(l.waiters) == 1 {
		l.arm(l.patience)
	}
	return w.ch
}

// settled returns the version that all connected peers have.
func (l *routeLog) settled() uint64 {
	v := l.version()
	for _, acked := range l.peers {
		v = min(v, acked)
	}
	return v
}

func (l *routeLog) arm(d time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.expire)
		return
	}
	l.timer.Reset(d)
}

// sweep lets go who waits for no more than what is settled.
func (l *routeLog) sweep() {
	if len(l.waiters) == 0 {
		return
	}
	v, n := l.settled(), 0
	for n < len(l.waiters) && l.waiters[n].version <= v {
		close(l.waiters[n].ch)
		n++
	}
	l.waiters = slices.Delete(l.waiters, 0, n)
	if n > 0 && len(l.waiters) == 0 {
		l.timer.Stop()
	}
}

// expire lets go who has waited long enough.
func (l *routeLog) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, n := time.Now(), 0
	for n < len(l.waiters) && !l.waiters[n].deadline.After(now) {
		close(l.waiters[n].ch)
		n++
	}
	l.metrics.syncTimeouts.Add(float64(n))
	l.waiters = slices.Delete(l.waiters, 0, n)
	if len(l.waiters) > 0 {
		l.arm(l.waiters[0].deadline.Sub(now))
	}
}

// close lets everybody go.
func (l *routeLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, w := range l.waiters {
		close(w.ch)
	}
	l.waiters = nil
	if l.timer != nil {
		l.timer.Stop()
	}
}
