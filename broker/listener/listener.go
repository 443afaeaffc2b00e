// Package listener accepts the connections of MQTT clients over TCP, TLS,
// WebSocket and secure WebSocket, and hands the engine a net.Conn that carries
// MQTT and nothing else. It is where connections are counted, limited and
// refused before they cost anything; it knows no packet.
package listener

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Info is what the listener knows of a connection that it hands over.
type Info struct {
	// Listener is Config.Name.
	Listener string
	// Remote is the client's address: that of the PROXY header where one was
	// accepted, else the socket's.
	Remote netip.AddrPort
	// TLS is nil without TLS.
	TLS *tls.ConnectionState
	// Protocol is Config.Kind: tcp, tls, ws or wss.
	Protocol string
	// Accepted is when the connection was accepted: the 10 s that it has to send
	// CONNECT run from here.
	Accepted time.Time
	// Greeted is to be called when a whole CONNECT came: from then on the
	// connection is not closed to make room for another that is not
	// authenticated. Calling it is optional.
	Greeted func()
	// Authenticated is to be called when CONNECT succeeded: it gives back the
	// connection's share of the Budget. It may be called more than once.
	Authenticated func()
}

// Deps is what a Listener needs of others.
type Deps struct {
	// TLS returns the settings of now; called for every connection. Needed for
	// tls and wss only.
	TLS func() *tls.Config
	// Serve serves one connection on a goroutine of its own; the connection is
	// closed when it returns. ctx ends when the listener is closed. A panic is
	// recovered, counted and logged.
	Serve func(ctx context.Context, c net.Conn, info Info)
	// Budget is shared by all listeners of a node.
	Budget     *Budget
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Listener accepts connections until it is closed.
type Listener struct{}

// Open binds the address and starts to accept.
func Open(ctx context.Context, cfg Config, deps Deps) (*Listener, error) { panic("soon") }

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { panic("soon") }

// Close stops accepting, ends what has not been handed to Serve yet, and
// cancels the context of Serve. It does not wait for Serve; Drain does. It may
// be called more than once.
func (l *Listener) Close() error { panic("soon") }

// Drain closes the listener and waits until every Serve has returned or ctx has
// ended, whose error it then returns after closing the connections left.
func (l *Listener) Drain(ctx context.Context) error { panic("soon") }
