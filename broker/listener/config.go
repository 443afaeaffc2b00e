package listener

import "time"

// Config is one listener.
type Config struct {
	Name    string
	Address string
	// Kind is tcp, tls, ws or wss.
	Kind string
	// MaxConnections is how many connections may be open at once; 0 means no
	// limit.
	MaxConnections int
	// ConnectRate is how many connections a second are accepted on average,
	// ConnectBurst how many at once; a rate of 0 means no limit, a burst of 0
	// one second's worth.
	ConnectRate  float64
	ConnectBurst int
	// HandshakeTimeout is how long a connection has from accept to the end of
	// its PROXY header, TLS and WebSocket handshakes. 0 means 10 s.
	HandshakeTimeout time.Duration
	// ProxyFrom are the networks (CIDR, or single addresses) whose connections
	// must open with a PROXY header, version 1 or 2. From all others such a
	// header is garbage.
	ProxyFrom []string
	// Path is the WebSocket path; empty means /mqtt.
	Path string
	// AllowedOrigins are the origins, besides the listener's own host, whose
	// pages may connect over WebSocket: host patterns, or scheme://host.
	AllowedOrigins []string
}

// Validate tells what is wrong with c, and how to put it right.
func (c Config) Validate() error { panic("soon") }
