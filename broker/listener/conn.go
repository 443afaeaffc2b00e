package listener

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// tcpConn is a client's socket. It counts what is read until the client has
// authenticated. It embeds *net.TCPConn, and not net.Conn, because net.Buffers
// writes in one system call only to a connection that has that one's methods.
type tcpConn struct {
	*net.TCPConn
	slot   atomic.Pointer[slot] // nil once the client has authenticated
	remote netip.AddrPort
	// ahead is what came in one read with the PROXY header; only the reader
	// touches it.
	ahead []byte
	turn  *turn // of a TLS handshake; only the reader touches it
	// ends paces what follows the client's end of the connection.
	ends *pace
	// over is closed when nobody is to wait any more; nil while nobody does.
	over atomic.Pointer[chan struct{}]
}

// closed is what over is set to when the connection was closed.
var closed = func() *chan struct{} {
	c := make(chan struct{})
	close(c)
	return &c
}()

// await blocks until what follows the client's end may begin, or the connection is
// closed on this side.
func (c *tcpConn) await() {
	ch := make(chan struct{})
	if c.over.CompareAndSwap(nil, &ch) {
		c.ends.wait(ch)
	}
}

// hasten ends await.
func (c *tcpConn) hasten() {
	if ch := c.over.Swap(closed); ch != nil && ch != closed {
		close(*ch)
	}
}

// Close closes the socket.
func (c *tcpConn) Close() error {
	c.hasten()
	return c.TCPConn.Close()
}

// SetReadDeadline bounds Read; one of the past ends its waiting, too.
func (c *tcpConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && time.Until(t) <= 0 {
		c.hasten()
	}
	return c.TCPConn.SetReadDeadline(t)
}

func (c *tcpConn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		if len(c.ahead) == 0 {
			c.ahead = nil
		}
		return n, nil
	}
	if c.turn != nil {
		c.turn.giveBack()
	}
	n, err := c.TCPConn.Read(p)
	if c.turn != nil && err == nil {
		err = c.turn.take()
	}
	if s := c.slot.Load(); s != nil && n > 0 {
		if err := s.add(n); err != nil {
			return 0, err
		}
	} else if gone(err) {
		c.await()
	}
	return n, err
}

// gone tells whether the client has closed the connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// WriteTo keeps io.Copy from going round Read.
func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// RemoteAddr returns the client's address, that of the PROXY header if there
// was one.
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// cut closes the socket without waiting for anything and without leaving it to
// linger.
func (c *tcpConn) cut() {
	// An error of either means that the socket is closed already.
	_ = c.SetLinger(0)
	_ = c.Close()
}

// remoteOf returns the address of the socket's other end.
func remoteOf(c *net.TCPConn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
