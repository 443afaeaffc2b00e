package sim

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// end is one end of a connection, as a net.Conn. A write never waits: what was
// written is on its way.
type end struct {
	net           *network
	local, remote string
	in, out       *half
}

// half is one direction of a connection.
type half struct {
	wire *wire
	wake chan struct{} // of the reader
	ring *time.Timer   // wakes it too, when the first chunk arrives

	mu       sync.Mutex
	rings    time.Time // when, zero: not
	chunks   []chunk
	last     time.Time // when the newest chunk arrives
	deadline time.Time // of reads
	finished bool      // the writer has closed
	closed   bool      // the reader has closed
	silent   bool      // the reader lost its power: nobody tells the writer
	broken   bool      // both ends get an error
}

// chunk is what one write brought; no bytes are the end of the stream.
type chunk struct {
	at   time.Time
	data []byte
}

func newPair(n *network, from, to string) (near, far *end) {
	there, back := newHalf(n.wire(from, to)), newHalf(n.wire(to, from))
	near = &end{net: n, local: from, remote: to, in: back, out: there}
	far = &end{net: n, local: to, remote: from, in: there, out: back}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends[near], n.ends[far] = struct{}{}, struct{}{}
	return near, far
}

func newHalf(w *wire) *half {
	h := &half{wire: w, wake: make(chan struct{}, 1), ring: time.NewTimer(time.Hour)}
	h.ring.Stop()
	return h
}

func (h *half) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Read implements net.Conn. One goroutine at a time may read.
func (e *end) Read(p []byte) (int, error) {
	for {
		n, mended, err := e.in.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-e.in.wake:
		case <-mended:
		case <-e.in.ring.C:
		}
	}
}

// ringAt lets the reader wake at a time, or sooner. mu is held.
func (h *half) ringAt(at, now time.Time) {
	if h.rings.IsZero() || !h.rings.After(now) || at.Before(h.rings) {
		h.rings = at
		h.ring.Reset(at.Sub(now))
	}
}

// take returns what has arrived. If there is nothing yet the reader waits for wake,
// ring, and, where the wire is cut, for its mending.
func (h *half) take(p []byte) (n int, mended <-chan struct{}, err error) {
	cut, changed := h.wire.state()
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.closed:
		return 0, nil, net.ErrClosed
	case h.broken:
		return 0, nil, syscall.ECONNRESET
	case !h.deadline.IsZero() && !now.Before(h.deadline):
		return 0, nil, os.ErrDeadlineExceeded
	}
	if !h.deadline.IsZero() {
		h.ringAt(h.deadline, now)
	}
	if len(h.chunks) == 0 {
		return 0, nil, nil
	}
	c := &h.chunks[0]
	switch {
	case cut:
		return 0, changed, nil
	case c.at.After(now):
		h.ringAt(c.at, now)
		return 0, nil, nil
	case len(c.data) == 0:
		return 0, nil, io.EOF
	}
	for len(h.chunks) > 0 && n < len(p) && len(h.chunks[0].data) > 0 && !h.chunks[0].at.After(now) {
		k := copy(p[n:], h.chunks[0].data)
		n += k
		h.chunks[0].data = h.chunks[0].data[k:]
		if len(h.chunks[0].data) > 0 {
			break
		}
		h.chunks = h.chunks[1:]
	}
	return n, nil, nil
}

// Write implements net.Conn.
func (e *end) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	h := e.out
	late := h.wire.latency()
	cut, _ := h.wire.state()
	// A host that is back knows nothing of connections from before.
	knows := !cut && e.net.powered(e.remote)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.finished:
		return 0, net.ErrClosed
	case h.broken:
		return 0, syscall.ECONNRESET
	case h.silent && !knows, h.closed && cut:
		return len(p), nil
	case h.silent, h.closed:
		h.broken = true
		return 0, syscall.EPIPE
	}
	h.put(late, append([]byte(nil), p...))
	e.net.sent.Add(1)
	return len(p), nil
}

// put is called with mu held.
func (h *half) put(late time.Duration, data []byte) {
	now := time.Now()
	at := now.Add(late)
	if at.Before(h.last) {
		at = h.last
	}
	h.last = at
	h.chunks = append(h.chunks, chunk{at, data})
	h.ringAt(at, now)
}

// CloseWrite ends the stream; the other direction goes on.
func (e *end) CloseWrite() error {
	h := e.out
	late := h.wire.latency()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.finished {
		return net.ErrClosed
	}
	h.finished = true
	h.put(late, nil)
	return nil
}

// Close implements net.Conn.
func (e *end) Close() error {
	_ = e.CloseWrite() // twice is no error
	e.gone(false)
	return nil
}

// vanish is Close by a loss of power.
func (e *end) vanish() {
	e.out.mu.Lock()
	e.out.finished = true
	e.out.mu.Unlock()
	e.gone(true)
}

func (e *end) gone(silent bool) {
	e.net.mu.Lock()
	delete(e.net.ends, e)
	e.net.mu.Unlock()
	h := e.in
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed, h.silent, h.chunks = true, h.silent || silent, nil
	h.ring.Stop()
	h.signal()
}

// reset breaks the connection for both ends.
func (e *end) reset() {
	for _, h := range []*half{e.in, e.out} {
		h.mu.Lock()
		h.broken, h.chunks = true, nil
		h.signal()
		h.mu.Unlock()
	}
}

// orphaned tells whether the other end lost its power.
func (e *end) orphaned() bool {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	return e.out.silent
}

// SetReadDeadline implements net.Conn.
func (e *end) SetReadDeadline(t time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.deadline = t
	e.in.signal()
	return nil
}

// SetWriteDeadline implements net.Conn; writes do not wait.
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (e *end) SetDeadline(t time.Time) error { return e.SetReadDeadline(t) }

type addr string

func (addr) Network() string  { return "sim" }
func (a addr) String() string { return string(a) }

// LocalAddr implements net.Conn.
func (e *end) LocalAddr() net.Addr { return addr(e.local) }

// RemoteAddr implements net.Conn.
func (e *end) RemoteAddr() net.Addr { return addr(e.remote) }
