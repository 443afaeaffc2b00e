package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// NullConfig says where a Null listens.
type NullConfig struct {
	Address string      // host:port; port 0 for any
	TLS     *tls.Config // nil for plain TCP
}

// Null is a broker that does as little as it can: it acknowledges everything at
// once and copies messages to the subscribers of their topic. It keeps no
// sessions, checks nothing and is for measuring the generator's own ceiling.
type Null struct {
	listener net.Listener
	workers  sync.WaitGroup

	mu    sync.Mutex
	conns map[*nullConn]struct{}
	// table is replaced whole when a subscription changes.
	table atomic.Pointer[nullTable]
	// copies, in tests, says how often a message is delivered.
	copies func(payload []byte) int
}

// nullTable knows who wants what; topics fills as topics are seen.
type nullTable struct {
	filters []nullFilter
	topics  sync.Map // string → []nullTarget
}

type nullFilter struct {
	conn   *nullConn
	filter string
	group  string
	qos    byte
}

// nullTarget is a subscriber of a topic, or the members of a shared group.
type nullTarget struct {
	members []nullFilter
	turn    *atomic.Uint32
}

// OpenNull listens and serves until Close.
func OpenNull(ctx context.Context, c NullConfig) (*Null, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Address)
	if err != nil {
		return nil, fmt.Errorf("the null broker cannot listen: %w", err)
	}
	if c.TLS != nil {
		ln = tls.NewListener(ln, c.TLS)
	}
	n := &Null{listener: ln, conns: map[*nullConn]struct{}{}}
	n.table.Store(&nullTable{})
	n.workers.Go(n.accept)
	return n, nil
}

// Addr is where the broker listens.
func (n *Null) Addr() string { return n.listener.Addr().String() }

// Close ends all connections and waits for their goroutines.
func (n *Null) Close() error {
	err := n.listener.Close()
	n.mu.Lock()
	for c := range n.conns {
		c.Close()
	}
	n.mu.Unlock()
	n.workers.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *Null) accept() {
	for {
		conn, err := n.listener.Accept()
		if err != nil {
			return
		}
		c := &nullConn{Conn: conn, null: n}
		n.mu.Lock()
		n.conns[c] = struct{}{}
		n.mu.Unlock()
		n.workers.Go(func() {
			c.serve()
			n.remove(c)
		})
	}
}

func (n *Null) remove(c *nullConn) {
	c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	n.change(func(f nullFilter) bool { return f.conn != c })
}

// change replaces the table; the caller holds the lock.
func (n *Null) change(keep func(nullFilter) bool, add ...nullFilter) {
	old, next := n.table.Load(), &nullTable{}
	for _, f := range old.filters {
		if keep(f) {
			next.filters = append(next.filters, f)
		}
	}
	if len(add) == 0 && len(next.filters) == len(old.filters) {
		return
	}
	next.filters = append(next.filters, add...)
	n.table.Store(next)
}

// targets returns who gets a message of the topic.
func (t *nullTable) targets(topic []byte) []nullTarget {
	if v, ok := t.topics.Load(string(topic)); ok {
		return v.([]nullTarget)
	}
	var targets []nullTarget
	groups := map[string]int{}
	for _, f := range t.filters {
		if !matches(f.filter, string(topic)) {
			continue
		}
		if f.group == "" {
			targets = append(targets, nullTarget{members: []nullFilter{f}})
		} else if i, ok := groups[f.group]; ok {
			targets[i].members = append(targets[i].members, f)
		} else {
			groups[f.group] = len(targets)
			targets = append(targets, nullTarget{members: []nullFilter{f}, turn: new(atomic.Uint32)})
		}
	}
	t.topics.Store(string(topic), targets)
	return targets
}

// matches tells whether a filter matches a topic, level by level.
func matches(filter, topic string) bool {
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !tmore {
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		filter, topic = frest, trest
	}
}

// A connection that has little to say keeps a small buffer, so that a Null is also
// what a bare server costs.
const (
	nullReadMin = 1 << 10
	nullReadMax = 64 << 10
)

// nullConn is one client. serve and what it calls run on one goroutine.
type nullConn struct {
	net.Conn
	null    *Null
	v5      bool
	nextID  atomic.Uint32
	out     []byte
	batches map[*nullConn]*[]byte // what the read under way brought to others
	touched []*nullConn
}

func (c *nullConn) serve() {
	buf, have := make([]byte, nullReadMin), 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		used := 0
		for {
			head, end := split(buf[used:have])
			if end < 0 {
				return
			}
			if end == 0 {
				break
			}
			if !c.packet(buf[used], buf[used+head:used+end]) {
				return
			}
			used += end
		}
		c.flush()
		full := have == len(buf)
		if have = copy(buf, buf[used:have]); full && len(buf) < nullReadMax || have == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func (c *nullConn) flush() {
	for _, to := range c.touched {
		b := c.batches[to]
		to.Write(*b) // a subscriber that went away is no business of the publisher
		*b = (*b)[:0]
	}
	c.touched = c.touched[:0]
	if len(c.out) > 0 {
		c.Write(c.out)
		c.out = c.out[:0]
	}
}

// packet handles one packet; false ends the connection.
func (c *nullConn) packet(first byte, body []byte) bool {
	switch first >> 4 {
	case 1:
		if len(body) < 9 {
			return false
		}
		at := 2 + int(binary.BigEndian.Uint16(body))
		c.v5 = at < len(body) && body[at] == 5
		c.out = append(c.out, packetConnack<<4, 2, 0, 0)
		if c.v5 {
			c.out[len(c.out)-3]++
			c.out = append(c.out, 0)
		}
	case packetPublish:
		return c.publish(first, body)
	case packetPubrec:
		if len(body) < 2 {
			return false
		}
		c.out = appendAck(c.out, packetPubrel, binary.BigEndian.Uint16(body))
	case packetPubrel:
		if len(body) < 2 {
			return false
		}
		c.out = appendAck(c.out, packetPubcomp, binary.BigEndian.Uint16(body))
	case packetSubscribe:
		return c.subscribe(body)
	case packetPingreq:
		c.out = append(c.out, packetPingresp<<4, 0)
	case packetDisconnect:
		return false
	}
	return true
}

func (c *nullConn) subscribe(body []byte) bool {
	if len(body) < 3 {
		return false
	}
	answer := []byte{body[0], body[1]}
	at := 2
	if c.v5 {
		answer = append(answer, 0)
		at += 1 + int(body[2])
	}
	var add []nullFilter
	for at+2 < len(body) {
		n := int(binary.BigEndian.Uint16(body[at:]))
		at += 2
		if at+n >= len(body) {
			return false
		}
		f := nullFilter{conn: c, filter: string(body[at : at+n]), qos: body[at+n] & 3}
		if rest, ok := strings.CutPrefix(f.filter, "$share/"); ok {
			f.group, f.filter, _ = strings.Cut(rest, "/")
		}
		add = append(add, f)
		answer = append(answer, f.qos)
		at += n + 1
	}
	c.null.mu.Lock()
	c.null.change(func(nullFilter) bool { return true }, add...)
	c.null.mu.Unlock()
	c.out = appendFrame(c.out, packetSuback<<4, answer)
	return true
}

func (c *nullConn) publish(first byte, body []byte) bool {
	id, payload, ok := publishParts(first, body, c.v5)
	if !ok {
		return false
	}
	qos := first >> 1 & 3
	switch qos {
	case 1:
		c.out = appendAck(c.out, packetPuback, id)
	case 2:
		c.out = appendAck(c.out, packetPubrec, id)
	}
	topic := body[2 : 2+binary.BigEndian.Uint16(body)]
	for _, t := range c.null.table.Load().targets(topic) {
		f := t.members[0]
		if t.turn != nil {
			f = t.members[int(t.turn.Add(1))%len(t.members)]
		}
		copies := 1
		if c.null.copies != nil {
			copies = c.null.copies(payload)
		}
		for range copies {
			c.copyTo(f.conn, min(qos, f.qos), topic, payload)
		}
	}
	return true
}

// copyTo adds the message to what the read under way brings to another client.
func (c *nullConn) copyTo(to *nullConn, qos byte, topic, payload []byte) {
	b := c.batches[to]
	if b == nil {
		b = new([]byte)
		if c.batches == nil {
			c.batches = map[*nullConn]*[]byte{}
		}
		c.batches[to] = b
	}
	if len(*b) == 0 {
		c.touched = append(c.touched, to)
	}
	size := 2 + len(topic) + len(payload)
	if qos > 0 {
		size += 2
	}
	if to.v5 {
		size++
	}
	out := appendVarint(append(*b, packetPublish<<4|qos<<1), size)
	out = append(out, byte(len(topic)>>8), byte(len(topic)))
	out = append(out, topic...)
	if qos > 0 {
		out = binary.BigEndian.AppendUint16(out, uint16(to.nextID.Add(1)%65535)+1)
	}
	if to.v5 {
		out = append(out, 0)
	}
	*b = append(out, payload...)
}
