package admin

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of the API on the network.
const (
	maxConns     = 256 // connections
	maxRequests  = 64  // at once, without streams
	maxStreams   = 64  // watchers at once
	perSecond    = 50  // requests of one principal
	burst        = 200
	failures     = 10 // refused credentials of one address in a row, then one in failureEvery
	failureEvery = 6 * time.Second
	maxLimited   = 4096 // principals and addresses that are remembered
)

// limits are rate limiters by key, the last used of them.
type limits[K comparable] struct {
	every rate.Limit
	burst int

	mu  sync.Mutex
	all map[K]*rate.Limiter
	old map[K]*rate.Limiter // what was used while all filled up before
}

func newLimits[K comparable](every rate.Limit, burst int) *limits[K] {
	return &limits[K]{every: every, burst: burst, all: map[K]*rate.Limiter{}}
}

// allow takes one of what k may have.
func (l *limits[K]) allow(k K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.all[k]
	if one == nil {
		if one = l.old[k]; one == nil {
			one = rate.NewLimiter(l.every, l.burst)
		}
		if len(l.all) >= maxLimited/2 {
			l.all, l.old = map[K]*rate.Limiter{}, l.all
		}
		l.all[k] = one
	}
	return one.Allow()
}

// sourceOf is what of an address counts as one source: of IPv6 a network of 64 bits.
func sourceOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	a, bits := at.Addr().Unmap().WithZone(""), 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// boundedListener accepts no more than a number of connections at a time; others
// wait in the backlog.
type boundedListener struct {
	net.Listener
	room chan struct{}
	done chan struct{}
	once sync.Once
}

func newBoundedListener(l net.Listener, most int) *boundedListener {
	return &boundedListener{Listener: l, room: make(chan struct{}, most), done: make(chan struct{})}
}

// Accept waits for room.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

// Close ends a waiting Accept, too.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	leave func()
}

// Close makes room.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
