package listener

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// trusts tells whether connections from a must open with a PROXY header.
func (l *Listener) trusts(a netip.Addr) bool {
	for _, p := range l.sources {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// readProxy reads the PROXY header and sets the client's address from it. The
// command LOCAL, of a balancer's own health check, leaves the socket's. TLVs are
// ignored: they are never an identity.
func (c *tcpConn) readProxy() error {
	br := bufio.NewReaderSize(c, 512)
	h, err := proxyproto.Read(br)
	if err != nil {
		return fmt.Errorf("read PROXY header: %w", err)
	}
	if n := br.Buffered(); n > 0 {
		ahead, err := br.Peek(n)
		if err != nil {
			return fmt.Errorf("read PROXY header: %w", err)
		}
		c.ahead = bytes.Clone(ahead)
	}
	if h.Command.IsLocal() {
		return nil
	}
	if src, _, ok := h.TCPAddrs(); ok {
		p := src.AddrPort()
		c.remote = netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return nil
}
