package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The scenarios.
const (
	FanIn     = "fanin"     // Clients publishers, one subscriber
	FanOut    = "fanout"    // one publisher, Clients subscribers
	Pairs     = "pairs"     // Clients publishers, each with its own subscriber
	Rate      = "rate"      // pairs at a fixed total rate, for latency
	Shared    = "shared"    // Clients publishers, one shared subscription of Members
	Wildcards = "wildcards" // as pairs, all subscribers with wildcards, two hearing all
	Connects  = "connect"   // connections made and closed
	Idle      = "idle"      // memory of idle connections
	Offline   = "offline"   // queues of absent persistent sessions, and their replay
	Broadcast = "broadcast" // one message after the other to Clients absent sessions on one filter
	Filters   = "filters"   // Count distinct filters over Clients connections, until every publisher's address knows them
	Retained  = "retained"  // Count retained topics of each publisher, for a subscriber that comes later
)

// Scenarios returns the names of all scenarios.
func Scenarios() []string {
	return []string{FanIn, FanOut, Pairs, Rate, Shared, Wildcards, Connects, Idle, Offline, Broadcast, Retained, Filters}
}

// Unlimited as a Window lifts the limit of a QoS 0 run.
const Unlimited = -1

// NullAddress as the only address stands for a Null broker in this process.
const NullAddress = "null"

// Config says what to run. Fields left zero get the scenario's default.
type Config struct {
	Scenario string
	// Addrs are host:port, used in turn. PubAddrs and SubAddrs, where given,
	// replace them for publishers and subscribers.
	Addrs, PubAddrs, SubAddrs []string
	Version                   byte // 3 (MQTT 3.1), 4 (3.1.1) or 5
	QoS                       byte
	Size                      int // bytes of payload, at least 16
	Clients                   int
	Members                   int // of the shared subscription
	// Count is how many messages each publisher sends (Connects: connections in
	// all; Retained: topics of each). Without it, publishers go on for Duration.
	Count    int
	Duration time.Duration
	// Window is how many messages of one publisher may be under way: not yet
	// acknowledged at QoS 1 and 2, not yet seen by the subscribers at QoS 0.
	// Connects: how many connections at a time.
	Window int
	// Rate is messages per second of all publishers together, each written by
	// itself; 0: as fast as Window allows.
	Rate float64
	// Topics is how many topics each publisher of pairs has, used in turn; its
	// subscriber has a filter for each. Without a Rate and with a Duration, the time
	// runs, and CPU time counts, from when each has been used once.
	Topics int
	// Fillers is how many wildcard filters that match nothing the subscribers of
	// pairs have together. They then hear their publishers by a wildcard as well.
	Fillers int
	// Batch is how many messages at most go into one write.
	Batch int
	// Persistent gives subscribers persistent sessions. Connects: Clients
	// sessions that are there before come back, in turn.
	Persistent bool
	// Strict makes duplicates, disorder, misrouted messages and refusals an error
	// of the run at any QoS: without failures of nodes there is no reason for one.
	Strict bool
	// Between, if set, runs when the queues of Offline and Broadcast, or the topics
	// of Retained, are full and nobody has read them yet, or when the filters of
	// Filters are there.
	Between func(context.Context) error
	// TLS is nil for plain TCP. Resume makes Connects resume TLS sessions.
	TLS    *tls.Config
	Resume bool
	// HandshakeOnly makes Connects end a connection when the TLS handshake is done, so
	// that nothing but that is measured.
	HandshakeOnly bool
	// Curves are the key exchanges that TLS clients offer, and MaxTLS the newest
	// version; empty and 0 mean those of crypto/tls, which begins with a hybrid that
	// costs more than the rest of a resumed handshake and that no device offers.
	Curves   []tls.CurveID
	MaxTLS   uint16
	Username string
	Password string
	// PIDs are processes whose CPU time and memory are measured.
	PIDs []int
	// Wait is how long nothing may arrive before the run gives up on the rest.
	Wait time.Duration
}

// withDefaults returns c with the defaults of its scenario, or an error that
// says what does not fit.
func (c Config) withDefaults() (Config, error) {
	if !slices.Contains(Scenarios(), c.Scenario) {
		return c, fmt.Errorf("there is no scenario %q: use one of %s", c.Scenario, strings.Join(Scenarios(), ", "))
	}
	d := defaults(c.Scenario)
	fill := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&c.Clients, d.Clients)
	fill(&c.Size, d.Size)
	fill(&c.Members, 10)
	fill(&c.Batch, d.Batch)
	fill(&c.Window, d.Window)
	if c.Window == 0 && c.QoS == 0 {
		c.Window = 500
	}
	fill(&c.Window, 100)
	if c.Version == 0 {
		c.Version = 4
	}
	if c.Rate == 0 {
		c.Rate = d.Rate
	}
	if c.Count == 0 && c.Duration == 0 {
		c.Count, c.Duration = d.Count, d.Duration
	}
	if c.Wait == 0 {
		c.Wait = 5 * time.Second
	}
	if c.Rate > 0 { // at a slow pace silence means nothing
		c.Wait = max(c.Wait, time.Duration(3*float64(time.Second)/c.Rate))
	}
	if len(c.PubAddrs) == 0 {
		c.PubAddrs = c.Addrs
	}
	if len(c.SubAddrs) == 0 {
		c.SubAddrs = c.Addrs
	}
	return c, c.validate()
}

// defaults returns what makes the scenario that of docs/benchmarks.md.
func defaults(scenario string) Config {
	d := Config{Clients: 100, Size: 64, Batch: 64, Duration: 5 * time.Second}
	switch scenario {
	case FanIn:
		d.Clients, d.Size, d.Window = 50, 16, 500
	case FanOut:
		d.Clients = 500
	case Rate:
		d.Rate, d.Batch = 5000, 1
	case Connects:
		d.Count, d.Duration, d.Window = 1000, 0, 16
	case Idle:
		d.Clients, d.Window = 1000, 16
	case Offline:
		d.Clients, d.Count, d.Duration = 10, 1000, 0
	case Broadcast:
		d.Clients, d.Count, d.Duration, d.Window, d.Batch = 1000, 20, 0, 1, 1
	case Retained:
		d.Clients, d.Count, d.Duration = 10, 1000, 0
	case Filters:
		d.Clients, d.Count, d.Duration = 100, 100_000, 0
	}
	return d
}

func (c Config) validate() error {
	switch {
	case len(c.PubAddrs) == 0 || len(c.SubAddrs) == 0:
		return errors.New("no broker address is given: use --addr HOST:PORT, or --pub-addr and --sub-addr")
	case c.Version < 3 || c.Version > 5:
		return fmt.Errorf("MQTT version %d is none of 3 (3.1), 4 (3.1.1) and 5", c.Version)
	case c.QoS > 2:
		return fmt.Errorf("QoS %d is none of 0, 1 and 2", c.QoS)
	case c.Size < headerSize:
		return fmt.Errorf("a payload of %d bytes is too small: the accounting needs %d", c.Size, headerSize)
	case c.Size > 16<<20:
		return fmt.Errorf("a payload of %d bytes is larger than the 16 MiB that brokers take", c.Size)
	case c.Clients < 1 || c.Members < 1 || c.Batch < 1:
		return errors.New("clients, members and batch must be at least 1")
	case c.Window < 1 && (c.QoS > 0 || c.Window != Unlimited):
		return fmt.Errorf("a window of %d is not possible at QoS %d: use 1 to 65535, or -1 for no limit at QoS 0", c.Window, c.QoS)
	case c.QoS > 0 && c.Window > 65535:
		return fmt.Errorf("a window of %d is larger than the 65535 packet ids of MQTT", c.Window)
	case c.Count < 0 || c.Duration < 0 || c.Rate < 0:
		return errors.New("count, duration and rate must not be negative")
	case c.queues() && c.QoS == 0:
		return fmt.Errorf("brokers queue nothing for absent clients at QoS 0: use --qos 1 or 2 with the %s scenario", c.Scenario)
	case (c.queues() || c.Scenario == Retained) && c.Count == 0:
		return fmt.Errorf("the %s scenario needs a --count: it cannot tell when there is enough", c.Scenario)
	case c.Scenario == Retained && (c.QoS == 0 || c.Count > maxTopics):
		return fmt.Errorf("the retained scenario needs --qos 1 or 2, to know what is there, and a --count of at most %d", maxTopics)
	case c.Scenario == Filters && (c.Count < c.Clients || c.Count > maxTopics):
		return fmt.Errorf("the filters scenario needs a --count of at least one filter for each of %d clients and at most %d", c.Clients, maxTopics)
	case c.paced() && (c.queues() || slices.Contains([]string{Connects, Idle, Retained, Filters}, c.Scenario)):
		return fmt.Errorf("the %s scenario goes as fast as it can: leave --rate out", c.Scenario)
	case (c.Topics > 1 || c.Fillers > 0) && c.Scenario != Pairs && c.Scenario != Rate:
		return fmt.Errorf("only pairs have --topics and --fillers: use --scenario pairs or rate instead of %s", c.Scenario)
	case c.Topics < 0 || c.Topics > maxTopics || c.Fillers < 0:
		return fmt.Errorf("topics and fillers must not be negative, and topics at most %d", maxTopics)
	case c.Resume && c.TLS == nil:
		return errors.New("only TLS sessions can be resumed: give --cafile as well as --resume")
	case c.HandshakeOnly && (c.TLS == nil || c.Scenario != Connects || c.Persistent):
		return errors.New("only the connect scenario over TLS, without persistent sessions, can end after the handshake: leave --handshake-only out, or give --cafile")
	}
	return nil
}

// paced tells whether messages are sent at a rate.
func (c *Config) paced() bool { return c.Rate > 0 }

// queues tells whether subscribers are away while messages are published.
func (c *Config) queues() bool { return c.Scenario == Offline || c.Scenario == Broadcast }
