package listener

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
)

// The kinds of listeners.
const (
	KindTCP = "tcp"
	KindTLS = "tls"
	KindWS  = "ws"
	KindWSS = "wss"
)

// DefaultHandshakeTimeout is how long a connection has to say something.
const DefaultHandshakeTimeout = 10 * time.Second

// Config is one listener.
type Config struct {
	// Name is for logs, metrics and Credentials.
	Name string
	// Address is host:port; port 0 chooses a free one.
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
	// its PROXY header, TLS and WebSocket handshakes. 0 means
	// DefaultHandshakeTimeout.
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
func (c Config) Validate() error {
	if c.Name == "" {
		return fmt.Errorf("listener at %q has no name: give it one", c.Address)
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("listener %s: address %q is not host:port: write for example 0.0.0.0:8883", c.Name, c.Address)
	}
	if !slices.Contains([]string{KindTCP, KindTLS, KindWS, KindWSS}, c.Kind) {
		return fmt.Errorf("listener %s: kind %q is not known: choose tls, tcp, wss or ws", c.Name, c.Kind)
	}
	if c.MaxConnections < 0 {
		return fmt.Errorf("listener %s: maximum connections is %d: set it to 0 for no limit or higher", c.Name, c.MaxConnections)
	}
	if c.ConnectRate < 0 || math.IsNaN(c.ConnectRate) || math.IsInf(c.ConnectRate, 0) || c.ConnectBurst < 0 {
		return fmt.Errorf("listener %s: connect rate %v, burst %d: neither may be below 0; 0 means no limit", c.Name, c.ConnectRate, c.ConnectBurst)
	}
	if c.HandshakeTimeout < 0 {
		return fmt.Errorf("listener %s: handshake timeout is %v: set it above 0, or to 0 for %v", c.Name, c.HandshakeTimeout, DefaultHandshakeTimeout)
	}
	if _, err := c.sources(); err != nil {
		return err
	}
	return c.validateWeb()
}

func (c Config) validateWeb() error {
	if c.Kind != KindWS && c.Kind != KindWSS {
		if c.Path != "" || len(c.AllowedOrigins) > 0 {
			return fmt.Errorf("listener %s: path and allowed origins are for kinds ws and wss: remove them or change the kind from %s", c.Name, c.Kind)
		}
		return nil
	}
	if c.Path != "" && !strings.HasPrefix(c.Path, "/") {
		return fmt.Errorf("listener %s: path %q does not begin with a slash: write /%s", c.Name, c.Path, c.Path)
	}
	for _, o := range c.AllowedOrigins {
		if _, err := path.Match(o, ""); err != nil || o == "" {
			return fmt.Errorf("listener %s: allowed origin %q is not a host or a pattern of one: write for example app.example.com or https://*.example.com", c.Name, o)
		}
	}
	return nil
}

// sources parses ProxyFrom.
func (c Config) sources() ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, s := range c.ProxyFrom {
		if a, err := netip.ParseAddr(s); err == nil {
			a = a.Unmap()
			nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("listener %s: PROXY source %q is not an address or a network: write for example 10.0.0.0/8", c.Name, s)
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}

func (c Config) withDefaults() Config {
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.Path == "" {
		c.Path = "/mqtt"
	}
	if c.ConnectRate > 0 && c.ConnectBurst == 0 {
		c.ConnectBurst = max(1, int(math.Ceil(c.ConnectRate)))
	}
	return c
}

func (c Config) encrypted() bool { return c.Kind == KindTLS || c.Kind == KindWSS }

func (c Config) web() bool { return c.Kind == KindWS || c.Kind == KindWSS }
