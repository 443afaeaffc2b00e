package listener

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Reading limits of one connection that has not authenticated, in bytes as they
// are on the wire. crypto/tls alone would take 256 KiB of certificates before it
// knows who sent them; after the handshake the largest CONNECT that makes sense
// has to fit.
const (
	handshakeLimit = 64 << 10
	connectLimit   = 256 << 10
)

// evictAfter is how old a silent connection must be before it has to make room,
// and begunAfter one whose TLS handshake has begun: in a storm, clients are slow
// themselves, and to throw away what was computed for them makes it last.
//
// A source that has more than crowd silent connections, and is not the only one, has
// evictAfter for all of them, and the others have begunAfter: whoever holds half-open
// connections by the thousand is not to keep everybody else waiting.
const (
	evictAfter = time.Second
	begunAfter = 5 * time.Second
	crowd      = 16
)

var (
	errEvicted  = errors.New("connection was closed to make room for others that are not authenticated yet")
	errTooMuch  = errors.New("connection sent too much before it authenticated")
	errReleased = errors.New("connection is closed")
)

// Budget bounds all connections that have not authenticated, of all listeners
// of a node together: how many they are, and how many bytes they have sent,
// which bounds what they make the node hold.
//
// When all places are taken, the oldest connection that has not sent its
// CONNECT loses its place, as soon as it is a second old; until then the new one
// waits, not accepted, in the kernel's queue. To refuse the new one instead
// would let a thousand silent connections lock out everybody for ten seconds at
// a time; to close the oldest at once would, in a reconnect storm, throw away
// handshakes that are nearly done. When the bytes are used up, the connection
// that has sent most of them is closed, which is never one that behaves. One
// whose handshake has begun has five seconds, and one that waits for a core, not
// for its client, makes room for nobody.
type Budget struct {
	maxConns int
	maxBytes int64

	mu      sync.Mutex
	conns   int
	bytes   int64
	silent  *list.List         // of *slot, oldest first; those that have not sent CONNECT
	sources map[netip.Addr]int // of silent, by source
	crowds  int                // sources with more than crowd
	waiting chan struct{}
}

// NewBudget returns a Budget of maxConns connections and maxBytes bytes. Both
// must be above 0.
func NewBudget(maxConns int, maxBytes int64) *Budget {
	return &Budget{maxConns: max(maxConns, 1), maxBytes: max(maxBytes, 1), silent: list.New(), sources: map[netip.Addr]int{}}
}

// Used returns how many connections have not authenticated, and the bytes that
// they have sent.
func (b *Budget) Used() (conns int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns, b.bytes
}

// slot is one connection's share of a Budget.
type slot struct {
	budget *Budget
	since  time.Time
	evict  func(error) // closes the connection; called without the lock, once
	source netip.Addr  // invalid: not known

	// under budget.mu
	place *list.Element // nil once CONNECT came
	ours  bool          // it waits for this node and not for its client
	begun bool          // its TLS handshake has
	bytes int64
	limit int64
	gone  error // why the share is no longer there
}

// acquire takes a place for a connection of source, and waits for one while there is
// none. evict closes the connection; it may be called at any time until release and
// must not block.
func (b *Budget) acquire(ctx context.Context, source netip.Addr, evict func(error)) (*slot, error) {
	for {
		b.mu.Lock()
		if b.conns < b.maxConns {
			s := &slot{budget: b, since: time.Now(), evict: evict, source: source, limit: handshakeLimit}
			s.place = b.silent.PushBack(s)
			b.count(source, 1)
			b.conns++
			b.mu.Unlock()
			return s, nil
		}
		victim, wait := b.next()
		if wait > 0 {
			victim = nil
		}
		if victim != nil {
			victim.drop(errEvicted)
		}
		if victim == nil && b.waiting == nil {
			b.waiting = make(chan struct{})
		}
		freed := b.waiting
		b.mu.Unlock()
		if victim != nil {
			victim.evict(errEvicted)
			continue
		}
		if err := waitFor(ctx, freed, wait); err != nil {
			return nil, err
		}
	}
}

// next is the silent connection that is to make room first, and when it must; nil
// and below 0 if there is none. The caller holds the lock.
func (b *Budget) next() (first *slot, in time.Duration) {
	in = -1
	for e := b.silent.Front(); e != nil; e = e.Next() {
		s := e.Value.(*slot)
		if s.ours {
			continue
		}
		after := evictAfter
		if crowded := b.crowds > 0 && len(b.sources) > 1; crowded && b.sources[s.source] <= crowd || !crowded && s.begun {
			after = begunAfter
		}
		if left := max(after-time.Since(s.since), 0); first == nil || left < in {
			first, in = s, left
		}
		if in == 0 {
			break
		}
	}
	return first, in
}

// count adds to how many silent connections a source has. The caller holds the lock.
func (b *Budget) count(source netip.Addr, by int) {
	if !source.IsValid() {
		return
	}
	before := b.sources[source]
	after := before + by
	if b.sources[source] = after; after == 0 {
		delete(b.sources, source)
	}
	switch {
	case before <= crowd && after > crowd:
		b.crowds++
	case before > crowd && after <= crowd:
		b.crowds--
	}
}

// speak takes a connection out of those that must make room. The caller holds the
// lock.
func (s *slot) speak() {
	if s.place != nil {
		s.budget.silent.Remove(s.place)
		s.budget.count(s.source, -1)
		s.place = nil
	}
}

// waitFor waits until a place is free, d has passed (below 0 means never), or
// ctx has ended.
func waitFor(ctx context.Context, freed <-chan struct{}, d time.Duration) error {
	var due <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-freed:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// drop gives the share back. The caller holds the lock.
func (s *slot) drop(why error) {
	if s.gone != nil {
		return
	}
	b := s.budget
	s.gone = why
	s.speak()
	b.conns--
	b.bytes -= s.bytes
	if b.waiting != nil {
		close(b.waiting)
		b.waiting = nil
	}
}

// release gives the share back; it may be called more than once.
func (s *slot) release() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.drop(errReleased)
}

// greeted makes the connection one that need not make room.
func (s *slot) greeted() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.speak()
}

// busy tells whether the connection waits for this node.
func (s *slot) busy(ours bool) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.ours, s.begun = ours, true
	if b := s.budget; !ours && b.waiting != nil && b.conns >= b.maxConns {
		// Whoever waits for a place looks again for one to make room.
		close(b.waiting)
		b.waiting = nil
	}
}

// shaken ends the handshake's share of the limit: from here on CONNECT may come.
func (s *slot) shaken() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.limit = connectLimit
}

// add counts n bytes read. An error means that the connection is to be closed.
func (s *slot) add(n int) error {
	b := s.budget
	b.mu.Lock()
	if s.gone != nil {
		defer b.mu.Unlock()
		if errors.Is(s.gone, errReleased) {
			return nil
		}
		return s.gone
	}
	s.bytes += int64(n)
	b.bytes += int64(n)
	if s.bytes > s.limit {
		s.drop(errTooMuch)
		b.mu.Unlock()
		s.evict(errTooMuch)
		return errTooMuch
	}
	var victims []*slot
	for b.bytes > b.maxBytes {
		v := b.greediest(s)
		if v == nil {
			break
		}
		v.drop(errEvicted)
		victims = append(victims, v)
	}
	err := s.gone
	b.mu.Unlock()
	for _, v := range victims {
		v.evict(errEvicted)
	}
	return err
}

// greediest returns which of s, which has just read something, and the silent
// connections has sent most; nil if none has sent anything.
func (b *Budget) greediest(s *slot) *slot {
	var most *slot
	if s.gone == nil {
		most = s
	}
	for e := b.silent.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*slot); v.bytes > 0 && (most == nil || v.bytes > most.bytes) {
			most = v
		}
	}
	return most
}
