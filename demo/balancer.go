package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	checkEvery   = 200 * time.Millisecond
	checkTimeout = 500 * time.Millisecond
	dialTimeout  = time.Second
)

// target is one node behind the balancer.
type target struct {
	name    string
	address string // of its listener, which wants a PROXY header
	health  string // of its probes

	ready atomic.Bool
	open  atomic.Int64 // connections through the balancer
}

// balancer is one TCP endpoint before several nodes. It hands each connection to
// the next node that calls itself ready, tells the node the client's address by
// a PROXY header, and from then on only copies: TLS goes through it, and it ends
// no connection by itself.
type balancer struct {
	listener net.Listener
	targets  []*target
	client   *http.Client

	mu    sync.Mutex
	next  int
	via   map[string]string // client's address to the name of its node
	conns map[net.Conn]struct{}

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// listen opens the endpoint. Errors say what to do about them.
func listen(endpoint string) (net.Listener, error) {
	l, err := net.Listen("tcp", endpoint)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("endpoint %s is in use: stop what listens there (ss -ltnp shows it), or choose another with --endpoint", endpoint)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("endpoint %s may not be opened by this user: choose a port above 1023 with --endpoint", endpoint)
	case err != nil:
		return nil, fmt.Errorf("endpoint %s cannot be opened: choose another with --endpoint: %w", endpoint, err)
	}
	return l, nil
}

// openBalancer serves l, which it owns, until Close.
func openBalancer(l net.Listener, targets []*target) *balancer {
	b := &balancer{
		listener: l, targets: targets,
		client: &http.Client{Timeout: checkTimeout},
		via:    map[string]string{}, conns: map[net.Conn]struct{}{},
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for _, t := range targets {
		b.work.Go(func() { b.watch(t) })
	}
	b.work.Go(b.accept)
	return b
}

// Close ends the endpoint and every connection through it. It is idempotent.
func (b *balancer) Close() error {
	b.cancel()
	_ = b.listener.Close() // closed twice is closed
	b.mu.Lock()
	for c := range b.conns {
		_ = c.Close() // nothing to be done about it
	}
	b.mu.Unlock()
	b.work.Wait()
	b.client.CloseIdleConnections()
	return nil
}

// watch asks a node a few times a second whether it wants clients.
func (b *balancer) watch(t *target) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		t.ready.Store(b.check(t))
		select {
		case <-b.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *balancer) check(t *target) bool {
	request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, "http://"+t.health+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := b.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4096)) // so that the connection is used again
	return response.StatusCode == http.StatusOK
}

func (b *balancer) accept() {
	for {
		c, err := b.listener.Accept()
		if b.ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		if err != nil {
			// Out of descriptors, most likely: some come back.
			select {
			case <-b.ctx.Done():
			case <-time.After(checkEvery):
			}
			continue
		}
		b.work.Go(func() { b.serve(c) })
	}
}

// serve connects a client to a node and copies until both have said all. With no
// node ready the client is sent away, to try again.
func (b *balancer) serve(c net.Conn) {
	defer b.drop(c)
	if !b.hold(c) {
		return
	}
	t, up, err := b.dial(c)
	if err != nil {
		return
	}
	defer b.drop(up)
	if !b.hold(up) {
		return
	}
	peer := c.RemoteAddr().String()
	b.mu.Lock()
	b.via[peer] = t.name
	b.mu.Unlock()
	t.open.Add(1)
	defer func() {
		t.open.Add(-1)
		b.mu.Lock()
		delete(b.via, peer)
		b.mu.Unlock()
	}()
	splice(c, up)
}

// dial finds the next ready node that answers, and introduces the client.
func (b *balancer) dial(c net.Conn) (*target, net.Conn, error) {
	err := errors.New("no node is ready")
	for _, t := range b.order() {
		var up net.Conn
		if up, err = b.dialTarget(t, c.RemoteAddr(), c.LocalAddr()); err == nil {
			return t, up, nil
		}
		t.ready.Store(false) // until the next check
	}
	return nil, nil, err
}

// order returns the ready nodes, beginning with the one whose turn it is.
func (b *balancer) order() (out []*target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	turn := b.next
	for i := range b.targets {
		at := (turn + i) % len(b.targets)
		if !b.targets[at].ready.Load() {
			continue
		}
		if out = append(out, b.targets[at]); len(out) == 1 {
			b.next = at + 1
		}
	}
	return out
}

// dialTarget connects to a node on behalf of a client.
func (b *balancer) dialTarget(t *target, client, local net.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(b.ctx, dialTimeout)
	defer cancel()
	up, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", t.name, err)
	}
	if err := writeProxy(up, client, local); err != nil {
		_ = up.Close()
		return nil, fmt.Errorf("node %s: %w", t.name, err)
	}
	return up, nil
}

// writeProxy sends a PROXY v2 header: the addresses of the client and of the
// endpoint it has dialled.
func writeProxy(to net.Conn, client, endpoint net.Addr) error {
	_ = to.SetWriteDeadline(time.Now().Add(dialTimeout)) // fails only on closed connections
	defer to.SetWriteDeadline(time.Time{})
	if _, err := proxyproto.HeaderProxyFromAddrs(2, client, endpoint).WriteTo(to); err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	return nil
}

// node names the node that serves the client with this address, or "".
func (b *balancer) node(client string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.via[client]
}

// hold makes Close end c too; it tells whether there is still something to serve.
func (b *balancer) hold(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[c] = struct{}{}
	return b.ctx.Err() == nil
}

func (b *balancer) drop(c net.Conn) {
	_ = c.Close()
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
}

// splice copies both ways. An end of one direction is passed on as such and
// leaves the other open; a broken connection ends both.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(to, from net.Conn) {
		if _, err := io.Copy(to, from); err != nil {
			_ = to.Close()
			_ = from.Close()
			return
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // fails if the other side is gone already
			return
		}
		_ = to.Close()
	}
	both.Go(func() { oneWay(a, b) })
	both.Go(func() { oneWay(b, a) })
	both.Wait()
}
