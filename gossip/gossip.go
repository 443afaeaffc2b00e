// Package gossip tells which nodes are alive and what small things they say of
// themselves. It is memberlist over the mesh: TLS proves who sends, so nothing
// is encrypted or signed again, and a node's address is made of its id, so that
// no name in a packet can stand against the certificate.
//
// It decides nothing: leases and membership are the log's.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// Proto is the protocol's name in the mesh.
const Proto = "mqc-gossip/1"

// Network opens streams to peers; Dial must give up when ctx ends.
type Network interface {
	Dial(ctx context.Context, peer, proto string) (net.Conn, error)
}

// Config sets the pace. Zero values take the defaults given.
type Config struct {
	// Node is this node's id.
	Node string
	// ProbeInterval and ProbeTimeout: one peer is probed each interval; 1 s and
	// 500 ms.
	ProbeInterval, ProbeTimeout time.Duration
	// SuspicionMult: how many intervals (times log of the size) a silent node
	// may take to answer before it counts as dead; 4.
	SuspicionMult int
	// GossipInterval is how often news are passed on; 200 ms.
	GossipInterval time.Duration
	// PushPullInterval is how often two nodes compare all they know; 30 s.
	PushPullInterval time.Duration
	// RejoinInterval is how often members that are not known to be alive are
	// contacted, give or take a quarter; 4 s.
	RejoinInterval time.Duration
	// DigestInterval is how often a new digest is sent at most; 1 s.
	DigestInterval time.Duration
	// StreamTimeout bounds each dial and each exchange; 5 s.
	StreamTimeout time.Duration
	// LeaveTimeout is how long Close tries to say goodbye; 1 s.
	LeaveTimeout time.Duration
}

func (c *Config) setDefaults() {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&c.ProbeInterval, time.Second)
	or(&c.ProbeTimeout, 500*time.Millisecond)
	or(&c.GossipInterval, 200*time.Millisecond)
	or(&c.PushPullInterval, 30*time.Second)
	or(&c.RejoinInterval, 4*time.Second)
	or(&c.DigestInterval, time.Second)
	or(&c.StreamTimeout, 5*time.Second)
	or(&c.LeaveTimeout, time.Second)
	if c.SuspicionMult <= 0 {
		c.SuspicionMult = 4
	}
}

// Event is a change of what is known of a peer.
type Event struct {
	Node  string
	Alive bool
}

// Deps are the parts that gossip is plugged into.
type Deps struct {
	Network Network
	// Members returns the members of the cluster, id → mesh address; nodes that
	// are not among them are ignored. It must not block. Only the ids matter
	// here: the network knows the addresses.
	Members func() map[string]string
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// OnChange and OnDigest may be nil. They run one at a time, never for this
	// node itself; of quick changes only the last is told. They may block, which
	// delays other events only.
	OnChange func(Event)
	OnDigest func(node string, d Digest)
}

// Gossip is one node's part. It is safe for concurrent use.
type Gossip struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	net     *transport
	list    *memberlist.Memberlist
	view    *view

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	mu      sync.Mutex
	digest  Digest
	changed chan struct{} // capacity 1
}

// Open starts gossip and begins to contact the members; it does not wait for
// any.
func Open(_ context.Context, cfg Config, deps Deps) (*Gossip, error) {
	cfg.setDefaults()
	if deps.Network == nil || deps.Members == nil || cfg.Node == "" {
		return nil, errors.New("gossip: Config.Node, Deps.Network and Deps.Members are required")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	met, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the gossip metrics: %w", err)
	}
	g := &Gossip{
		cfg: cfg, deps: deps, log: deps.Logger, metrics: met,
		changed: make(chan struct{}, 1),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.net = newTransport(g.ctx, cfg, deps, met)
	g.view = newView(cfg.Node, deps, met)
	g.list, err = memberlist.Create(g.listConfig())
	if err != nil {
		g.cancel()
		_ = g.net.Shutdown()
		met.unregister()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	if err := met.watch(g.list); err != nil {
		return nil, errors.Join(fmt.Errorf("register the gossip metrics: %w", err), g.Close())
	}
	g.wg.Go(func() { g.view.run(g.ctx) })
	g.wg.Go(g.rejoin)
	g.wg.Go(g.announce)
	return g, nil
}

func (g *Gossip) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.cfg.Node
	c.Transport = g.net
	ip := addressOf(g.cfg.Node)
	c.BindAddr, c.BindPort = ip.String(), virtualPort
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, virtualPort
	c.ProbeInterval, c.ProbeTimeout = g.cfg.ProbeInterval, g.cfg.ProbeTimeout
	c.SuspicionMult = g.cfg.SuspicionMult
	c.GossipInterval = g.cfg.GossipInterval
	c.PushPullInterval = g.cfg.PushPullInterval
	c.TCPTimeout = g.cfg.StreamTimeout
	c.EnableCompression = false
	c.RequireNodeNames = true
	c.Events, c.Alive, c.Delegate = events{g.view}, guard{g.net}, meta{g}
	c.Logger = log.New(debugWriter{g.log}, "", 0)
	return c
}

// HandleConn serves a connection of a peer; it is what the mesh calls for Proto.
// It owns c.
func (g *Gossip) HandleConn(peer string, c net.Conn) { g.net.handle(peer, c) }

// SetDigest makes d what this node says of itself; the others hear of it within
// Config.DigestInterval and a few gossip intervals. It does not block.
func (g *Gossip) SetDigest(d Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.digest == d {
		return
	}
	g.digest = d
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Peers returns what is known of the other nodes, by id.
func (g *Gossip) Peers() []Peer { return g.view.peers() }

// announce sends new digests, at a bounded rate.
func (g *Gossip) announce() {
	for {
		select {
		case <-g.changed:
		case <-g.ctx.Done():
			return
		}
		// Whoever does not hear of it now does so by the next exchange.
		if err := g.list.UpdateNode(g.cfg.DigestInterval); err != nil {
			g.log.Debug("gossip: digest not sent", "err", err)
		}
		select {
		case <-time.After(g.cfg.DigestInterval):
		case <-g.ctx.Done():
			return
		}
	}
}

// rejoin contacts members that gossip does not have alive: at the start, and
// after a partition, which memberlist by itself never heals.
func (g *Gossip) rejoin() {
	const atOnce = 4
	for {
		var wg sync.WaitGroup
		limit := make(chan struct{}, atOnce)
		for _, id := range g.missing() {
			wg.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()
				g.metrics.rejoins.Inc()
				if _, err := g.list.Join([]string{joinName(id)}); err != nil {
					g.log.Debug("gossip: no contact", "member", id, "err", err)
				}
			})
		}
		wg.Wait()
		quarter := g.cfg.RejoinInterval / 4
		select {
		case <-time.After(3*quarter + rand.N(2*quarter+1)):
		case <-g.ctx.Done():
			return
		}
	}
}

// missing returns the members that are not alive, and forgets who is no member
// any more.
func (g *Gossip) missing() []string {
	members := g.net.refresh()
	g.view.keep(members)
	var ids []string
	for id := range members {
		if id != g.cfg.Node && !g.view.alive(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Close tells the others that this node leaves, ends gossip and waits. It blocks
// for Config.LeaveTimeout and a dial's time at most, and is idempotent. A probe
// that is under way ends within a few Config.ProbeInterval, without effect.
func (g *Gossip) Close() error {
	var err error
	g.once.Do(func() {
		if e := g.list.Leave(g.cfg.LeaveTimeout); e != nil {
			g.log.Debug("gossip: left without a goodbye", "err", e)
		}
		g.cancel()
		err = g.list.Shutdown()
		g.wg.Wait()
		g.metrics.unregister()
	})
	if err != nil {
		return fmt.Errorf("end gossip: %w", err)
	}
	return nil
}
