// Package broker is the MQTT engine of one node: it serves the connections of
// clients, versions 3.1, 3.1.1 and 5, puts what has a promise into the
// replicated log, and delivers what comes out of it.
//
// It keeps nothing that must outlive a connection: sessions, queues, retained
// messages and wills are the log's (package fsm). It knows no peer: QoS 0
// messages for other nodes go to Routes.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mqcluster/mqcluster/broker/refused"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// Deps is what a Broker needs of others.
type Deps struct {
	Log        Log
	Routes     Routes
	Auth       Authenticator
	Enhanced   map[string]Enhanced // by authentication method; may be nil
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	NodeID     string
	// Stamp is the log time of the last entry applied here, in milliseconds; it
	// does not block. nil means that the wall clock is log time.
	Stamp func() int64
	// Scarce tells that messages which would have to be stored are to be refused,
	// because the disks are nearly full; nil means never. It must be cheap.
	Scarce func() bool
	// Refused tells in the log of what is refused; nil tells nothing.
	Refused *refused.Log
	// Misbehaved is called with the address of a client that broke the protocol; nil
	// is nobody. It must not block.
	Misbehaved func(netip.AddrPort)
}

// Broker serves clients until it is closed.
type Broker struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	m      *metrics
	n      counters
	stages stages
	tracer atomic.Pointer[Tracer] // nil: nobody traces
	heavy  atomic.Pointer[heavy]  // nil: nobody looks

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// mu guards the tables of connections.
	mu      sync.RWMutex
	clients map[string]*client   // that hold a session, by client id
	conns   map[*client]struct{} // all
	closed  bool

	accounts accounts

	// subMu guards the local subscriptions: edits of the trie, entries' members, and
	// the subs of every client. There is no map of the filters beside the trie: of a
	// million it would take 75 MB.
	subMu sync.Mutex
	trie  *routing.Trie[*entry]
	// subVersion changes after every change of local subscriptions.
	subVersion atomic.Uint64

	// delivered is of the last message of the log; of the goroutine that applies.
	delivered struct {
		topic string
		match *topicMatch
	}
	sysMu      sync.RWMutex
	sys        map[string]*session.Message
	sysMatches matches // under sysMu

	index   atomic.Uint64          // as told by Applied
	taps    atomic.Pointer[[]*tap] // nil: there is none; replaced under subMu
	meter   atomic.Pointer[meter]  // nil: topics are not measured
	comings comings

	serving  atomic.Bool
	unserved atomic.Int64 // tick since when not serving
	draining atomic.Bool  // no CONNECT is accepted
	leaving  atomic.Bool  // see Announce
	moved    atomic.Bool  // for good
	tick     atomic.Int64 // coarse monotonic clock, ns
	start    time.Time
	clock    logClock
	progress progress
	bufs     sync.Pool
	pubs     sync.Pool
}

// Open starts a Broker. It serves nothing until Serve is called.
func Open(ctx context.Context, cfg Config, deps Deps) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.Auth == nil {
		return nil, errors.New("the broker needs a log and an authenticator")
	}
	if deps.Scarce == nil {
		deps.Scarce = func() bool { return false }
	}
	if deps.Routes == nil {
		deps.Routes = noRoutes{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		cfg: cfg.WithDefaults(), deps: deps, log: deps.Logger,
		clients: map[string]*client{}, conns: map[*client]struct{}{},
		trie: routing.NewTrie[*entry](),
		sys:  map[string]*session.Message{}, start: time.Now(),
	}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.bufs.New = func() any { s := make([]byte, 0, bufSize); return &s }
	b.pubs.New = func() any { return newSubmission(b) }
	b.clock.stamp = deps.Stamp
	b.progress.kick = make(chan struct{}, 1)
	b.serving.Store(true)
	b.tick.Store(1)
	b.subVersion.Store(1)
	var timed *prometheus.HistogramVec
	b.stages, timed = newStages(b.start)
	m, err := newMetrics(deps.Registerer, b, timed)
	if err != nil {
		b.cancel()
		return nil, fmt.Errorf("register the broker's metrics: %w", err)
	}
	b.m = m
	b.wg.Go(b.sweep)
	b.wg.Go(b.progressLoop)
	return b, nil
}

// Close ends every connection and waits for all that the Broker started. Serve
// calls under way return.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	all := make([]*client, 0, len(b.conns))
	for c := range b.conns {
		all = append(all, c)
	}
	b.mu.Unlock()
	for _, c := range all {
		c.shut(b.sendAway())
	}
	deadline := time.AfterFunc(closeGrace, func() {
		for _, c := range all {
			c.abort()
		}
	})
	defer deadline.Stop()
	for _, c := range all {
		<-c.done
	}
	b.cancel()
	b.wg.Wait()
	b.m.unregister()
	return nil
}

// closeGrace is how long a connection that is being closed has to take what is
// written to it.
const closeGrace = 2 * time.Second

// Apply acts on an event of the log. It is called on the goroutine that
// applies, in log order, and does not block.
func (b *Broker) Apply(ev fsm.Event) {
	switch ev.Kind {
	case fsm.EventMessage:
		b.n.logged.Add(1)
		b.deliver(&ev)
	case fsm.EventEnded:
		b.ended(ev)
	case fsm.EventAssigned:
		if c := b.find(ev.Client); c != nil {
			c.reread()
		}
	case fsm.EventRestored:
		b.restored()
	}
}

// Applied tells that all events of the entry at index have been given to
// Apply.
func (b *Broker) Applied(index uint64) { b.index.Store(index) }

// find returns the connection that holds the session of a client id.
func (b *Broker) find(id string) *client {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.clients[id]
}

// Holds tells whether a connection of this node has the client's session at
// this epoch.
func (b *Broker) Holds(client string, epoch session.Pos) bool {
	c := b.find(client)
	return c != nil && session.Pos(c.epoch) == epoch
}

// Kick closes the connection of a client, if it is on this node, with an MQTT 5
// reason code. Its will fires.
func (b *Broker) Kick(client string, reason byte) bool {
	c := b.find(client)
	if c == nil {
		return false
	}
	b.n.kicked.Add(1)
	c.shut(shutdown{reason: reason, will: true})
	return true
}

// ended closes the connection that has lost its session.
func (b *Broker) ended(ev fsm.Event) {
	c := b.find(ev.Client)
	if c == nil || c.epoch != uint64(ev.Epoch) {
		return
	}
	s := shutdown{reason: reasonTakenOver, lost: true, will: true}
	switch ev.Reason {
	case fsm.EndByOperator:
		s.reason = reasonAdministrative
	case fsm.EndNodeDown:
		s.reason = b.goneReason()
	default:
		b.n.takenOver.Add(1)
	}
	b.detach(c)
	c.shut(s)
	if _, ok := c.conn.(interface{ CloseWrite() error }); ok && c.will {
		// Not after the writer, which may have to wait for the client: the will waits.
		_ = c.stopReading()
	}
}

// restored sends every client away: what they were sent and what they hold is
// no longer known here.
func (b *Broker) restored() {
	for _, c := range b.holders() {
		c.shut(b.sendAway())
	}
}

// sendAway ends a connection for no fault of its client, which is given time to
// come back before anybody is told that it has gone.
func (b *Broker) sendAway() shutdown {
	return shutdown{reason: b.goneReason(), will: true, grace: b.cfg.DrainGrace}
}

func (b *Broker) holders() []*client {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]*client, 0, len(b.clients))
	for _, c := range b.clients {
		all = append(all, c)
	}
	return all
}

// goneReason is what clients are told that do better to go elsewhere.
//
// Use another server (0x9C) is for a time, Server moved (0x9D) for good (MQTT 5,
// section 4.13). A client that does not know where to must not take either for a
// reason to forget the only address that it has.
func (b *Broker) goneReason() byte {
	switch {
	case b.cfg.ServerReference == "":
		return reasonShuttingDown
	case b.moved.Load():
		return reasonMoved
	}
	return reasonUseAnother
}

// SetServing tells whether the node has its lease. Without, no CONNECT is
// accepted, and after Config.UnservedTimeout clients are sent away.
func (b *Broker) SetServing(on bool) {
	if on {
		b.unserved.Store(0)
	} else if b.serving.Load() {
		b.unserved.Store(b.tick.Load())
	}
	b.serving.Store(on)
}

// noRoutes is the road of a node without peers.
type noRoutes struct{}

func (noRoutes) Add(string)                                                        {}
func (noRoutes) Remove(string)                                                     {}
func (noRoutes) Forward([]*session.Message, []uint64, uint64, uint64)              {}
func (noRoutes) ForwardTo(_, _ string, _ *session.Message, _ session.Subscription) {}
func (noRoutes) Wants(string) uint64                                               { return 0 }
func (noRoutes) Version() uint64                                                   { return 0 }
func (noRoutes) Synced() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// MQTT 5 reason codes that the engine sends (section 2.4).
const (
	reasonSuccess         byte = 0x00
	reasonWithWill        byte = 0x04
	reasonNoMatch         byte = 0x10
	reasonNoSubscription  byte = 0x11
	reasonContinue        byte = 0x18
	reasonReauthenticate  byte = 0x19
	reasonUnspecified     byte = 0x80
	reasonMalformed       byte = 0x81
	reasonProtocolError   byte = 0x82
	reasonVersion         byte = 0x84
	reasonClientID        byte = 0x85
	reasonBadCredentials  byte = 0x86
	reasonNotAuthorized   byte = 0x87
	reasonUnavailable     byte = 0x88
	reasonBusy            byte = 0x89
	reasonBanned          byte = 0x8A
	reasonShuttingDown    byte = 0x8B
	reasonBadMethod       byte = 0x8C
	reasonKeepAlive       byte = 0x8D
	reasonTakenOver       byte = 0x8E
	reasonFilterInvalid   byte = 0x8F
	reasonTopicInvalid    byte = 0x90
	reasonIDNotFound      byte = 0x92
	reasonReceiveMaximum  byte = 0x93
	reasonAliasInvalid    byte = 0x94
	reasonTooLarge        byte = 0x95
	reasonQuota           byte = 0x97
	reasonAdministrative  byte = 0x98
	reasonQoSNotSupported byte = 0x9B
	reasonUseAnother      byte = 0x9C
	reasonMoved           byte = 0x9D
	reasonConnectRate     byte = 0x9F
)
