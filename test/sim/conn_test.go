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

	mu       sync.Mutex
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

func newHalf(w *wire) *half { return &half{wire: w, wake: make(chan struct{}, 1)} }

func (h *half) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Read implements net.Conn. One goroutine at a time may read.
func (e *end) Read(p []byte) (int, error) {
	for {
		n, wait, err := e.in.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		wait.pause(e.in.wake)
	}
}

// pause is what a reader waits for.
type pause struct {
	until   time.Time // zero: nothing is on its way
	changed <-chan struct{}
}

func (p pause) pause(wake <-chan struct{}) {
	var ring <-chan time.Time
	if !p.until.IsZero() {
		timer := time.NewTimer(time.Until(p.until))
		defer timer.Stop()
		ring = timer.C
	}
	select {
	case <-wake:
	case <-p.changed:
	case <-ring:
	}
}

// take returns what has arrived, or what to wait for.
func (h *half) take(p []byte) (int, pause, error) {
	cut, changed := h.wire.state()
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.closed:
		return 0, pause{}, net.ErrClosed
	case h.broken:
		return 0, pause{}, syscall.ECONNRESET
	case !h.deadline.IsZero() && !now.Before(h.deadline):
		return 0, pause{}, os.ErrDeadlineExceeded
	}
	wait := pause{until: h.deadline}
	if len(h.chunks) == 0 {
		return 0, wait, nil
	}
	c := &h.chunks[0]
	switch {
	case cut:
		wait.changed = changed
	case c.at.After(now):
		if wait.until.IsZero() || c.at.Before(wait.until) {
			wait.until = c.at
		}
	case len(c.data) == 0:
		return 0, pause{}, io.EOF
	default:
		n := 0
		for len(h.chunks) > 0 && n < len(p) && len(h.chunks[0].data) > 0 && !h.chunks[0].at.After(now) {
			k := copy(p[n:], h.chunks[0].data)
			n += k
			h.chunks[0].data = h.chunks[0].data[k:]
			if len(h.chunks[0].data) > 0 {
				break
			}
			h.chunks = h.chunks[1:]
		}
		return n, pause{}, nil
	}
	return 0, wait, nil
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
	return len(p), nil
}

// put is called with mu held.
func (h *half) put(late time.Duration, data []byte) {
	at := time.Now().Add(late)
	if at.Before(h.last) {
		at = h.last
	}
	h.last = at
	h.chunks = append(h.chunks, chunk{at, data})
	h.signal()
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
