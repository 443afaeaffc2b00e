package broker

import (
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/session"
)

// Config is what an operator may set. The zero value of a field means its
// default.
type Config struct {
	// MaxPacketSize is the largest packet that clients may send, in bytes:
	// 1 MiB by default, at most 16 MiB.
	MaxPacketSize int
	// ReceiveMaximum is how many QoS 1 and 2 messages of one client may be
	// unacknowledged: 1,000 by default. Clients before version 5, which cannot be
	// told, are read no further.
	ReceiveMaximum int
	// MaxInflight is how many QoS 1 and 2 messages are sent to one client without
	// an acknowledgement, whatever more it allows: 1,000 by default.
	MaxInflight int
	// MaxSubscriptions of one client: 10,000 by default.
	MaxSubscriptions int
	// MaxQueuedMessages and MaxQueuedBytes bound what is held in memory for one
	// client, for each of QoS 0 and the rest: 50,000 and 8 MiB by default.
	MaxQueuedMessages int
	MaxQueuedBytes    int
	// MessageRate and ByteRate are how many PUBLISH packets, and bytes of them, a
	// second are read of one client, after a burst of a second's worth: one that
	// sends more is read no faster. 0 means no limit.
	MessageRate, ByteRate int
	// TopicLevels is how many levels topics and filters may have; 0 means no limit.
	TopicLevels int
	// RetainedRate is how many retained messages a second are read for one client's
	// subscriptions: 10,000 by default, below 0 no limit. A subscription to
	// everything on a node with millions of topics would else take the disk, and a
	// core, from the others for as long as it runs; few subscriptions match so many
	// that anybody notices.
	RetainedRate int
	// TopicAliasMaximum is how many topic aliases a client may set, and how many
	// are used towards it: 64 by default.
	TopicAliasMaximum int
	// MaxQoS is the highest QoS: nil means 2.
	MaxQoS *byte
	// MaxSessionExpiry cuts the session expiry interval, in seconds: never by
	// default.
	MaxSessionExpiry uint32
	// MaxKeepAlive, in seconds, is imposed on clients that ask for more or none;
	// 0 leaves them their choice.
	MaxKeepAlive uint16
	// ConnectTimeout is how long a connection may take until its CONNECT is
	// complete: 10 s by default.
	ConnectTimeout time.Duration
	// StallTimeout is how long a client may leave its socket full: 30 s by
	// default.
	StallTimeout time.Duration
	// UnservedTimeout is how long clients stay connected while the node has no
	// lease: 10 s by default.
	UnservedTimeout time.Duration
	// ProgressInterval is how long acknowledged positions are gathered: 75 ms by
	// default.
	ProgressInterval time.Duration
	// DrainGrace is how many seconds wills and sessions of drained clients wait
	// at least: 60 by default.
	DrainGrace uint32
	// ServerReference is told to version 5 clients that are sent away.
	ServerReference string
	// DisconnectDenied closes clients before version 5 that publish what they may
	// not; otherwise such messages are dropped silently.
	DisconnectDenied bool
	// RevealDenials answers a subscription that is not allowed with "not
	// authorized" (0x87) in place of "unspecified error" (0x80).
	RevealDenials bool
}

// Limits that do not depend on the configuration.
const (
	maxPacketSize  = 16 << 20
	maxClientID    = 65535
	defaultMaxSize = 1 << 20
)

// WithDefaults returns c with every unset field set.
func (c Config) WithDefaults() Config {
	def(&c.MaxPacketSize, defaultMaxSize)
	def(&c.ReceiveMaximum, 1000)
	def(&c.MaxInflight, 1000)
	def(&c.MaxSubscriptions, 10_000)
	def(&c.MaxQueuedMessages, 50_000)
	def(&c.MaxQueuedBytes, 8<<20)
	def(&c.RetainedRate, 10_000)
	def(&c.TopicAliasMaximum, 64)
	def(&c.MaxSessionExpiry, session.Never)
	def(&c.ConnectTimeout, 10*time.Second)
	def(&c.StallTimeout, 30*time.Second)
	def(&c.UnservedTimeout, 10*time.Second)
	def(&c.ProgressInterval, 75*time.Millisecond)
	def(&c.DrainGrace, 60)
	if c.MaxQoS == nil {
		two := byte(2)
		c.MaxQoS = &two
	}
	return c
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Validate tells the first thing that is wrong with c.
func (c Config) Validate() error {
	c = c.WithDefaults()
	for _, r := range []struct {
		name     string
		v        int
		min, max int
	}{
		{"max_packet_size", c.MaxPacketSize, 64, maxPacketSize},
		{"receive_maximum", c.ReceiveMaximum, 1, 65535},
		{"max_inflight", c.MaxInflight, 1, 65535},
		{"max_subscriptions", c.MaxSubscriptions, 1, 1 << 24},
		{"max_queued_messages", c.MaxQueuedMessages, 1, 1 << 30},
		{"max_queued_bytes", c.MaxQueuedBytes, 1 << 10, 1 << 40},
		{"message_rate", c.MessageRate, 0, 1 << 30},
		{"byte_rate", c.ByteRate, 0, 1 << 40},
		{"topic_levels", c.TopicLevels, 0, 65535},
		{"topic_alias_maximum", c.TopicAliasMaximum, 0, 65535},
		{"max_qos", int(*c.MaxQoS), 0, 2},
	} {
		if r.v < r.min || r.v > r.max {
			return fmt.Errorf("%s is %d: set it to a value from %d to %d", r.name, r.v, r.min, r.max)
		}
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"connect_timeout", c.ConnectTimeout}, {"stall_timeout", c.StallTimeout},
		{"unserved_timeout", c.UnservedTimeout}, {"progress_interval", c.ProgressInterval},
	} {
		if d.v < time.Millisecond || d.v > time.Hour {
			return fmt.Errorf("%s is %s: set it to a value from 1ms to 1h", d.name, d.v)
		}
	}
	return nil
}
