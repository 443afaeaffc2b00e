package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// protoMQTT is what clients dial.
const protoMQTT = "mqtt"

// process is one run of a node: what package node makes of the parts, without
// what needs files, certificates or a second machine.
type process struct {
	c         *cluster
	name      string
	disk      *disk
	store     *fsm.Store
	consensus *consensus.Consensus
	broker    *broker.Broker
	events    gate
	fsm       tracedFSM
	dead      atomic.Bool
	acceptMu  sync.Mutex // so that nothing is accepted by the dead
	ghosts    map[string]session.Pos

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// gate holds back events until the parts that they are for exist.
type gate struct {
	mu      sync.Mutex
	pass    func([]fsm.Event)
	waiting []fsm.Event
}

func (g *gate) observe(events []fsm.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pass == nil {
		g.waiting = append(g.waiting, events...)
		return
	}
	g.pass(events)
}

func (g *gate) open(pass func([]fsm.Event)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass = pass
	if len(g.waiting) > 0 {
		pass(g.waiting)
		g.waiting = nil
	}
}

// start opens a node on a disk and lets peers and clients in.
func (c *cluster) start(name string, d *disk) (*process, error) {
	p := &process{c: c, name: name, disk: d}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var err error
	p.store, err = fsm.Open(p.ctx, fsm.Config{
		Dir: stateDir, Node: name, FS: linksAlone{d.fs, &d.links}, CacheBytes: 1 << 20, MemTableBytes: int64(c.plan.memtable), KeepDead: c.plan.keepDead,
	}, fsm.Deps{Observe: p.events.observe, Halt: p.halt})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.fsm = tracedFSM{p: p}
	log := c.logger(name)
	p.consensus, err = consensus.Open(p.ctx, c.plan.consensus(name), consensus.Deps{
		FSM: &p.fsm, State: p.store, Network: port{p}, Fatal: p.fatal, Logger: log,
		Registerer: prometheus.NewRegistry(), Due: p.store.Due,
		Storage: &consensus.Storage{Log: d.log, Snapshots: d.snaps}, Now: c.clock(name),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.store.Close())
	}
	p.broker, err = broker.Open(p.ctx, c.plan.broker(), broker.Deps{
		Log: p, Auth: p, NodeID: name, Logger: log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.consensus.Close(), p.store.Close())
	}
	p.events.open(p.observe)
	p.wg.Go(p.chores)
	c.net.listen(name, p.accept)
	return p, nil
}

// kill ends the process as kill -9 does, or, silently, as a loss of power. It
// returns the disk as the next start finds it. What goes on inside is seen by
// nobody; cluster.reaper waits for its end.
func (p *process) kill(power bool, unsynced int, rng *rand.Rand) *disk {
	p.die()
	if power {
		p.c.net.powerOff(p.name)
	} else {
		p.c.net.listen(p.name, nil)
	}
	for _, e := range p.c.net.between(p.name, "") {
		if power {
			e.vanish()
		} else {
			_ = e.Close()
		}
	}
	d := p.disk.crash(unsynced, rng)
	p.c.reaper.Go(func() {
		_ = p.broker.Close()    // a corpse
		_ = p.consensus.Close() // may not say goodbye
		p.end()
	})
	return d
}

// stop ends the process in good order; its disk is left for the next start.
func (p *process) stop() error {
	err := errors.Join(p.broker.Close(), p.consensus.Close())
	p.die()
	p.c.net.listen(p.name, nil)
	for _, e := range p.c.net.between(p.name, "") {
		_ = e.Close()
	}
	return errors.Join(err, p.end())
}

// die takes the process out of the network.
func (p *process) die() {
	p.acceptMu.Lock()
	defer p.acceptMu.Unlock()
	p.dead.Store(true)
}

func (p *process) end() error {
	p.cancel()
	p.wg.Wait()
	return p.store.Close()
}

// halt and fatal end the process in reality. A dead one may meet its frozen disk.
func (p *process) halt(err error) {
	if !p.dead.Load() {
		p.c.fail("%s halts: %v", p.name, err)
	}
}

func (p *process) fatal(err error) {
	if !p.dead.Load() {
		p.c.fail("%s gives up its log: %v", p.name, err)
	}
}

// port is the process's way into the network.
type port struct{ p *process }

// Dial implements consensus.Network.
func (o port) Dial(ctx context.Context, peer, proto string) (net.Conn, error) {
	if o.p.dead.Load() {
		return nil, errCrashed
	}
	conn, err := o.p.c.net.dial(ctx, o.p.name, peer, proto)
	if err == nil && o.p.dead.Load() {
		return nil, errors.Join(errCrashed, conn.Close())
	}
	return conn, err
}

func (p *process) accept(from, proto string, conn net.Conn) {
	p.acceptMu.Lock()
	defer p.acceptMu.Unlock()
	if p.dead.Load() {
		_ = conn.Close()
		return
	}
	p.wg.Go(func() {
		switch proto {
		case consensus.ProtoRaft:
			p.consensus.AcceptRaft(from, conn)
		case consensus.ProtoPack:
			p.consensus.AcceptPacks(from, conn)
		case consensus.ProtoLease:
			p.consensus.AcceptLease(from, conn)
		case protoMQTT:
			rest := p.broker.Serve(context.Background(), conn, broker.ConnInfo{
				Listener: "sim", Remote: netip.MustParseAddrPort("127.0.0.1:1"), AllowAnonymous: true,
			})
			if rest != nil {
				rest()
			}
		default:
			_ = conn.Close()
		}
	})
}

// observe hands events to the parts, as package node does.
func (p *process) observe(events []fsm.Event) {
	for _, e := range events {
		switch e.Kind {
		case fsm.EventResult, fsm.EventPackGap, fsm.EventNode:
			p.consensus.Applied(e)
		case fsm.EventRestored:
			p.broker.Apply(e)
			p.consensus.Applied(e)
		case fsm.EventMembers:
		default:
			p.broker.Apply(e)
		}
	}
}

// chores are those of a node that matter here.
func (p *process) chores() {
	lease := time.NewTicker(100 * time.Millisecond)
	defer lease.Stop()
	ghosts := time.NewTicker(2 * time.Second)
	defer ghosts.Stop()
	for {
		p.broker.SetServing(p.consensus.Leased() && p.consensus.Incarnation() != 0)
		select {
		case <-p.ctx.Done():
			return
		case <-lease.C:
		case <-ghosts.C:
			p.releaseGhosts()
		}
	}
}

// releaseGhosts gives up sessions that the log says are connected here and are
// not, as package node does.
func (p *process) releaseGhosts() {
	ghosts := map[string]session.Pos{}
	for client, epoch := range p.store.Owned(p.name) {
		if !p.broker.Holds(client, epoch) {
			ghosts[client] = epoch
		}
	}
	for client, epoch := range ghosts {
		if p.ghosts[client] == epoch && p.consensus.Leased() {
			p.Submit(&logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: client, Epoch: uint64(epoch), Will: true}}},
				func(fsm.Result) {})
		}
	}
	p.ghosts = ghosts
}

// The process is its broker's Log.

func (p *process) Submit(item *logpb.Item, done func(fsm.Result)) {
	p.consensus.Submit(planted(item, done))
}
func (p *process) View() fsm.View                 { return p.store.View() }
func (p *process) Leased() bool                   { return p.consensus.Leased() }
func (p *process) Shared(topic string) []fsm.Pick { return p.store.Shared(topic) }
func (p *process) Queues(topic string) bool       { return p.store.Queues(topic) }
func (p *process) Locked(f func(at session.Pos, view func() fsm.View)) {
	p.store.Locked(f)
}

// And its Authenticator: everybody is who they say, with the rights of the log.

func (p *process) Authenticate(_ context.Context, c broker.Credentials) (string, error) {
	return c.Username, nil
}

func (p *process) Rights(c broker.Credentials, user string) broker.Rights {
	return p.store.Policy().Rights(user, c.ClientID)
}

func (p *process) Quota(string) auth.Quota { return auth.Quota{} }

func (p *process) Version() uint64 { return p.store.Policy().Version() }
