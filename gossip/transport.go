package gossip

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// virtualPort is the port of every virtual address; it means nothing.
	virtualPort = 7883
	// maxPacket bounds a packet; memberlist makes none above 1,400 bytes, but
	// for the small change of a compound.
	maxPacket = 16 << 10
	// queuePackets is how many packets wait for a peer; the newest are dropped.
	queuePackets = 128
	// idleLimit is when a connection for packets that carries none is closed; the
	// receiver waits twice as long.
	idleLimit = time.Minute
)

// The first byte of a connection tells what it carries.
const (
	carriesPackets byte = 'p'
	carriesStream  byte = 's'
)

// addressOf returns the address that memberlist knows a node by: one of the
// private range fd00::/8, made of the id. So the id follows from the address,
// nobody can claim another's, and a node that moves stays who it is.
func addressOf(node string) net.IP {
	sum := sha256.Sum256([]byte("mqcluster gossip " + node))
	ip := net.IP(sum[:16])
	ip[0] = 0xfd
	return ip
}

func hostPort(node string) string {
	return net.JoinHostPort(addressOf(node).String(), strconv.Itoa(virtualPort))
}

func joinName(node string) string { return node + "/" + hostPort(node) }

// transport is memberlist's network: packets by one connection per peer and
// direction, streams by one each. Nothing is dialled with a lock held.
type transport struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	packets chan *memberlist.Packet
	streams chan net.Conn
	self    net.IP

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ids    map[string]string // virtual host:port → node, members only
	links  map[string]*link
	conns  map[net.Conn]struct{}
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(ctx context.Context, cfg Config, deps Deps, met *metrics) *transport {
	t := &transport{
		cfg: cfg, deps: deps, metrics: met,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		self:    addressOf(cfg.Node),
		ids:     map[string]string{},
		links:   map[string]*link{},
		conns:   map[net.Conn]struct{}{},
	}
	t.ctx, t.cancel = context.WithCancel(ctx)
	t.refresh()
	return t
}

// refresh takes over who is a member and ends the links to those that are not.
func (t *transport) refresh() map[string]string {
	members := t.deps.Members()
	ids := make(map[string]string, len(members))
	for id := range members {
		ids[hostPort(id)] = id
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ids = ids
	for id, l := range t.links {
		if _, ok := members[id]; !ok {
			l.cancel()
			delete(t.links, id)
		}
	}
	return members
}

// resolve returns the member that has a virtual address.
func (t *transport) resolve(addr string) (string, bool) {
	t.mu.Lock()
	id, ok := t.ids[addr]
	t.mu.Unlock()
	if ok {
		return id, true
	}
	// Perhaps it has joined since.
	for id := range t.refresh() {
		if hostPort(id) == addr {
			return id, true
		}
	}
	t.metrics.refused.Inc()
	return "", false
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.self, virtualPort, nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. It never blocks: a
// packet that meets a full queue, or is for no member, is dropped as packets may
// be. That is no error, because memberlist does not suspect a node for errors of
// its own: one that was expelled would stay alive for ever.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	id, ok := t.resolve(a.Addr)
	if !ok {
		return time.Now(), nil
	}
	if len(b) > maxPacket {
		return time.Time{}, fmt.Errorf("gossip packet of %d bytes, at most %d go", len(b), maxPacket)
	}
	l := t.link(id)
	if l == nil {
		return time.Time{}, net.ErrClosed
	}
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b)))
	select {
	case l.queue <- append(frame, b...):
		t.metrics.sent.Inc()
	default:
		t.metrics.dropped.Inc()
	}
	return time.Now(), nil
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	id, ok := t.resolve(a.Addr)
	if !ok {
		return nil, fmt.Errorf("gossip with %s: no member has this address", a.String())
	}
	ctx, cancel := context.WithTimeout(t.ctx, min(timeout, t.cfg.StreamTimeout))
	defer cancel()
	return t.dial(ctx, id, carriesStream)
}

// dial opens a connection and says what it is for.
func (t *transport) dial(ctx context.Context, id string, what byte) (net.Conn, error) {
	c, err := t.deps.Network.Dial(ctx, id, Proto)
	if err != nil {
		return nil, err
	}
	c, ok := t.track(c)
	if !ok {
		return nil, net.ErrClosed
	}
	err = c.SetWriteDeadline(time.Now().Add(t.cfg.StreamTimeout))
	if err == nil {
		_, err = c.Write([]byte{what})
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("greet node %s: %w", id, err)
	}
	return c, nil
}

// handle serves an incoming connection of peer.
func (t *transport) handle(peer string, raw net.Conn) {
	c, ok := t.track(raw)
	if !ok {
		return
	}
	if !t.enter() {
		_ = c.Close()
		return
	}
	defer t.wg.Done()
	if _, ok := t.resolve(hostPort(peer)); !ok {
		_ = c.Close() // no member, or not known to be one yet
		return
	}
	var what [1]byte
	err := c.SetReadDeadline(time.Now().Add(t.cfg.StreamTimeout))
	if err == nil {
		_, err = io.ReadFull(c, what[:])
	}
	if err == nil && what[0] == carriesStream {
		select {
		case t.streams <- c: // memberlist's from here
			return
		case <-t.ctx.Done():
		}
	}
	if err == nil && what[0] == carriesPackets {
		t.readPackets(peer, c)
	}
	_ = c.Close()
}

// readPackets hands on the packets of a peer, with the address that its
// certificate gives it.
func (t *transport) readPackets(peer string, c net.Conn) {
	from := &net.TCPAddr{IP: addressOf(peer), Port: virtualPort}
	addr := from.String()
	var size [2]byte
	for {
		if err := c.SetReadDeadline(time.Now().Add(2 * idleLimit)); err != nil {
			return
		}
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n == 0 || n > maxPacket {
			t.metrics.refused.Inc()
			return
		}
		buf := make([]byte, n)
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		if _, ok := t.resolve(addr); !ok {
			return // it was a member when it connected
		}
		t.metrics.received.Inc()
		select {
		case t.packets <- &memberlist.Packet{Buf: buf, From: from, Timestamp: time.Now()}:
		case <-t.ctx.Done():
			return
		}
	}
}

// enter counts one more that Shutdown waits for; false after it.
func (t *transport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

// track makes c one of the connections that Shutdown ends.
func (t *transport) track(c net.Conn) (net.Conn, bool) {
	tc := &tracked{Conn: c, t: t}
	t.mu.Lock()
	ok := !t.closed
	if ok {
		t.conns[tc] = struct{}{}
	}
	t.mu.Unlock()
	if !ok {
		_ = c.Close()
	}
	return tc, ok
}

type tracked struct {
	net.Conn
	t *transport
}

func (c *tracked) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.t.metrics.sentBytes.Add(float64(n))
	return n, err
}

func (c *tracked) Close() error {
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

// Shutdown implements memberlist.Transport: it ends all connections and waits.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	t.closed = true
	var conns []net.Conn
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	t.cancel()
	for _, c := range conns {
		_ = c.Close()
	}
	t.wg.Wait()
	return nil
}

// guard keeps out what does not fit a member's id.
type guard struct{ t *transport }

var _ memberlist.AliveDelegate = guard{}

// NotifyAlive implements memberlist.AliveDelegate.
func (g guard) NotifyAlive(n *memberlist.Node) error {
	if !n.Addr.Equal(addressOf(n.Name)) || n.Port != virtualPort {
		g.t.metrics.refused.Inc()
		return errors.New("its address is not the one of its name")
	}
	if n.Name == g.t.cfg.Node {
		return nil
	}
	if _, ok := g.t.resolve(hostPort(n.Name)); !ok {
		return errors.New("it is no member of the cluster")
	}
	return nil
}
