// Package node opens, runs and closes one node: it is where the parts meet.
// Each adapter (broker, consensus, mesh, gossip, admin, tls) declares the small
// interfaces it needs; the types of this package that implement them only pass
// calls on, and hold no rules of their own.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/broker/listener"
	"github.com/mqcluster/mqcluster/broker/refused"
	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/gossip"
	"github.com/mqcluster/mqcluster/identity"
	"github.com/mqcluster/mqcluster/mesh"
	"github.com/mqcluster/mqcluster/mesh/forward"
	"github.com/mqcluster/mqcluster/session"
	mtls "github.com/mqcluster/mqcluster/tls"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Deps of a Node.
type Deps struct {
	Logger *slog.Logger
	// Version of the binary, told to the other nodes.
	Version string
	// Fatal ends the process: the node cannot go on without risk to what it has
	// acknowledged. It does not return.
	Fatal func(error)
}

// Node is one running node.
type Node struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	reg  *prometheus.Registry
	dir  dataDir
	disk *disk // nil where the system does not tell
	heap *memory
	// generation of the cluster, which a node that joins is told.
	generation string
	// storeID is the name of the disk that this node joined with.
	storeID string

	identity  *mtls.Identity
	keyring   *keyring
	store     *fsm.Store
	mesh      *mesh.Mesh
	consensus *consensus.Consensus
	routes    *forward.Forwarder
	gossip    *gossip.Gossip
	broker    *broker.Broker
	verifier  *auth.Verifier
	memory    *auth.Memory
	secrets   *secrets
	guard     *guard
	refusals  *refused.Log
	tokens    *identity.Tokens // nil without
	syslog    *syslogSink      // nil without
	renewals  renewals
	recheck   chan struct{} // users changed
	expelMu   sync.Mutex
	proofs    proofs
	ghosts    map[string]session.Pos // of releaseGhosts alone
	shared    chan auth.Entry        // verified here, to be told to the peers
	listeners []*listener.Listener
	tlsMu     sync.Mutex
	tls       []tlsListener
	admin     *admin.Server
	book      addressBook
	events    gate
	queues    queues
	verify    verifying
	tracing   tracing
	topping   topping
	counts    atomic.Pointer[fsm.Counts] // of the last publishSys
	issued    issuedCerts
	rates     rates
	glance    glance

	started   time.Time
	serving   atomic.Bool
	away      retreats
	admitting atomic.Bool   // the broker was told that this node may accept clients
	known     atomic.Bool   // the state has had this node as a member
	delivered atomic.Uint64 // log index up to which events were observed
	votersMu  sync.Mutex    // who votes is changed by one at a time
	rotateMu  sync.Mutex    // and so are the CAs
	caChanged atomic.Bool   // clients' certificates are to be looked at again
	left      chan struct{} // closed when the node has left the cluster
	asked     chan struct{} // closed when an operator has it stop
	leave     sync.Once
	stop      sync.Once
	recalled  sync.Once
	remembers atomic.Bool               // recall is over
	leasedAt  atomic.Pointer[time.Time] // when checkLease first found a lease

	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	cleanups []cleanup
	closing  sync.Once
	closeErr error
}

// cleanup is pushed right after its part exists and runs in reverse order.
type cleanup struct {
	name string
	run  func() error
}

// Open starts a node whose data directory init or join has made. It returns
// when the node accepts connections on its listeners, which may be before the
// cluster has a leader: /readyz tells. An Open that fails leaves nothing behind.
func Open(ctx context.Context, cfg Config, deps Deps) (_ *Node, err error) {
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Fatal == nil {
		deps.Fatal = func(err error) { panic(err) }
	}
	n := &Node{
		cfg: cfg, deps: deps, log: deps.Logger,
		reg: prometheus.NewRegistry(), dir: dataDir(cfg.DataDir),
		started: time.Now(), left: make(chan struct{}), asked: make(chan struct{}), recheck: make(chan struct{}, 1),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, step := range []struct {
		name string
		open func(context.Context) error
	}{
		{"data directory", n.openDir},
		{"identity", n.openIdentity},
		{"memory", n.openMemory},
		{"disk", n.openDisk},
		{"state", n.openStore},
		{"queues", n.openQueues},
		{"mesh", n.openMesh},
		{"routes", n.openRoutes},
		{"passwords", n.openAuth},
		{"log", n.openConsensus},
		{"broker", n.openBroker},
		{"control", n.openControl},
		{"gossip", n.openGossip},
		{"mesh", n.startMesh},
		{"syslog", n.openSyslog},
		{"admin", n.openAdmin},
		{"listeners", n.openListeners},
		{"metrics", n.openMetrics},
		{"chores", n.openChores},
		{"backups", n.openSchedule},
	} {
		if err := step.open(ctx); err != nil {
			return nil, fmt.Errorf("start node %s: %w", cfg.Node.ID, err)
		}
	}
	return n, nil
}

func (n *Node) push(name string, run func() error) {
	n.cleanups = append(n.cleanups, cleanup{name, run})
}

// Left is closed when the node was removed from the cluster and is to stop.
func (n *Node) Left() <-chan struct{} { return n.left }

// Asked is closed when an operator has asked the node to stop.
func (n *Node) Asked() <-chan struct{} { return n.asked }

// Close drains and stops the node: leadership is handed over, clients are sent away
// after Config.Drain.Delay, what is in flight is finished or failed. It is idempotent.
func (n *Node) Close() error {
	n.closing.Do(func() {
		switch {
		case !n.serving.Load() || n.broker == nil:
		case n.gone():
			n.broker.Announce(true) // for whom it still has; the cluster has their sessions
		case n.consensus.Leased():
			n.drain(context.Background(), departure{})
		}
		n.cancel()
		var errs []error
		for _, c := range slices.Backward(n.cleanups) {
			if err := c.run(); err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", c.name, err))
			}
		}
		n.wg.Wait()
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}

// openDir checks that the data directory was initialised and takes its lock.
func (n *Node) openDir(context.Context) error {
	if !n.dir.initialised() {
		return fmt.Errorf("the data directory %s holds no node: make the first node of a cluster with mqcluster init, or add this one with mqcluster join", n.dir)
	}
	unlock, err := n.dir.lock()
	if err != nil {
		return err
	}
	n.push("data directory", unlock)
	m, err := n.dir.read()
	if err == nil && m.Recovering {
		err = errors.New("a mqcluster recover of this node did not end: run it again")
	}
	return err
}

func (n *Node) openIdentity(context.Context) error {
	m, err := n.dir.read()
	if err != nil {
		return err
	}
	n.keyring = newKeyring(&n.cfg)
	if err := n.keyring.reseal(); err != nil {
		return err
	}
	if !n.keyring.sealed() {
		n.log.Info("the CA's key is not encrypted on this node's disk, only its file's mode protects it: set ca.pass_file to seal it")
	}
	id, err := mtls.OpenIdentity(n.dir.tls(), m.ClusterID)
	if errors.Is(err, mtls.ErrExpired) {
		// A node that was off for longer than its certificate lives, and holds the
		// CA key, may renew its own.
		for _, pin := range n.keyring.pins() {
			ca, caErr := n.keyring.get(pin)
			if caErr != nil {
				continue
			}
			if id, err = mtls.RenewExpired(n.dir.tls(), ca, 0, time.Now()); err == nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	if id.ID() != n.cfg.Node.ID {
		return fmt.Errorf("the data directory %s belongs to node %s, not to node %s: correct node.id or data_dir", n.dir, id.ID(), n.cfg.Node.ID)
	}
	n.identity = id
	return nil
}

func (n *Node) openStore(ctx context.Context) error {
	s, err := fsm.Open(ctx, fsm.Config{Dir: n.dir.state(), Node: n.cfg.Node.ID}, fsm.Deps{
		Logger: n.log, Observe: n.events.observe, Halt: n.deps.Fatal, Room: n.disk.holds,
	})
	if err != nil {
		return err
	}
	n.store = s
	n.push("state", s.Close)
	return nil
}
