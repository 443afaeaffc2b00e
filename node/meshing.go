package node

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/gossip"
	"github.com/mqcluster/mqcluster/mesh"
	"github.com/mqcluster/mqcluster/mesh/forward"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// meshProtocols are those that only nodes may speak.
func meshProtocols() []string {
	return []string{mesh.ProtoRaft, mesh.ProtoGossip, mesh.ProtoForward, mesh.ProtoControl, mesh.ProtoPack, consensus.ProtoLease}
}

// meshTLS gives the mesh the node's identity.
type meshTLS struct{ id *mtls.Identity }

func (t meshTLS) Server() *tls.Config {
	return t.id.MeshServer(mtls.ServerOptions{JoinProto: mesh.ProtoJoin}, meshProtocols()...)
}

func (t meshTLS) Client(peer string) *tls.Config { return t.id.MeshClient(peer, meshProtocols()...) }

func (t meshTLS) Peer(s tls.ConnectionState) (string, error) {
	return mtls.PeerNode(s, t.id.ClusterID())
}

// addressBook knows where members can be dialled: as the state says, or, before
// this node has caught up, as raft or the join have told.
type addressBook struct {
	mu     sync.RWMutex
	state  map[string]string
	learnt map[string]string
}

func (b *addressBook) lookup(node string) (string, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if a, ok := b.state[node]; ok {
		return a, true
	}
	a, ok := b.learnt[node]
	return a, ok
}

// lookupMember is lookup in the state alone.
func (b *addressBook) lookupMember(node string) (string, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	a, ok := b.state[node]
	return a, ok
}

func (b *addressBook) learn(node, address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.learnt == nil {
		b.learnt = map[string]string{}
	}
	b.learnt[node] = address
}

func (b *addressBook) replace(state map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = state
}

func (b *addressBook) members() map[string]string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return maps.Clone(b.state)
}

func (n *Node) openMesh(ctx context.Context) error {
	m, err := n.dir.read()
	if err != nil {
		return err
	}
	for node, address := range m.Peers {
		n.book.learn(node, address)
	}
	n.fillBook()
	n.identity.SetAllowed(n.allowPeer)
	n.mesh, err = mesh.Open(ctx, mesh.Config{Node: n.cfg.Node.ID, Listen: n.cfg.Mesh.Listen}, mesh.Deps{
		TLS: meshTLS{n.identity}, Logger: n.log, Registerer: n.reg, Addresses: n.book.lookup,
	})
	if err != nil {
		return err
	}
	n.push("mesh", n.mesh.Close)
	return nil
}

var errRevoked = errors.New("the node's certificate was revoked: it has to join again")

// allowPeer refuses nodes whose certificate was revoked.
func (n *Node) allowPeer(_, serial string) error {
	if n.store.Revoked(serial) {
		return errRevoked
	}
	return nil
}

func (n *Node) openRoutes(ctx context.Context) (err error) {
	n.routes, err = forward.Open(ctx, forward.Config{Node: n.cfg.Node.ID}, forward.Deps{
		Network: n.mesh, Logger: n.log, Registerer: n.reg,
		Deliver: n.deliverRemote, Applied: n.delivered.Load,
		Later: func() bool { return n.store.Level() >= fsm.LevelLeft },
	})
	if err != nil {
		return err
	}
	n.mesh.Handle(mesh.ProtoForward, n.routes.HandleConn)
	n.push("routes", n.routes.Close)
	return nil
}

// deliverRemote passes on what a peer forwarded.
func (n *Node) deliverRemote(_ string, batch []forward.Delivery) {
	publisher, epoch := "", uint64(0)
	for _, d := range batch {
		if d.Client != "" {
			n.broker.DeliverRemoteTo(d.Client, d.Message, d.Subscription)
			continue
		}
		if p := d.Message.Publisher; p != publisher {
			publisher, epoch = p, n.store.Epoch(p).Index()
		}
		if d.Index < epoch {
			continue // of a connection that was taken over since: newer ones have come
		}
		n.broker.DeliverRemote(d.Message, d.AsOf, d.Aside)
	}
}

func (n *Node) openConsensus(ctx context.Context) error {
	m, err := n.dir.read()
	if err != nil {
		return err
	}
	n.storeID = m.Store
	c, err := consensus.Open(ctx, consensusConfig(n.cfg, m, n.deps.Version), consensus.Deps{
		FSM: n.store, State: n.store, Network: n.mesh, Fatal: n.deps.Fatal,
		Logger: n.log, Registerer: n.reg, Due: n.store.Due, Follow: n.followsWall,
		Learn: n.book.learn, OnSecrets: n.secrets.receive, Room: n.disk.Room,
	})
	if err != nil {
		return err
	}
	n.consensus, n.generation = c, m.Generation
	n.mesh.Handle(mesh.ProtoRaft, c.AcceptRaft)
	n.mesh.Handle(mesh.ProtoPack, c.AcceptPacks)
	n.mesh.Handle(consensus.ProtoLease, c.AcceptLease)
	n.push("consensus", c.Close)
	return nil
}

func (n *Node) openGossip(ctx context.Context) (err error) {
	n.gossip, err = gossip.Open(ctx, gossip.Config{Node: n.cfg.Node.ID}, gossip.Deps{
		Network: n.mesh, Members: n.book.members, Logger: n.log, Registerer: n.reg,
		OnDigest: n.digest,
	})
	if err != nil {
		return err
	}
	n.mesh.Handle(mesh.ProtoGossip, n.gossip.HandleConn)
	n.push("gossip", n.gossip.Close)
	return nil
}

// startMesh lets peers in, and lets the parts see what was applied.
func (n *Node) startMesh(context.Context) error {
	n.events.open(n.observe)
	n.membersChanged()
	n.mesh.Start()
	return nil
}

// digest compares what a peer says of its routes with what this node has of
// them.
func (n *Node) digest(node string, d gossip.Digest) {
	n.routes.Check(node, d.Incarnation, d.Version, d.Hash)
}

// fillBook reads the members' addresses from the state.
func (n *Node) fillBook() []string {
	state := map[string]string{}
	var peers []string
	for _, m := range n.store.Members() {
		state[m.Node] = m.Address
		if m.Node != n.cfg.Node.ID {
			peers = append(peers, m.Node)
		}
	}
	n.book.replace(state)
	return peers
}

// leaveGrace is how long connections of a removed member are left alone.
const leaveGrace = 2 * time.Second

func (n *Node) disconnectRemoved(peer string) {
	if _, back := n.book.lookupMember(peer); !back {
		n.mesh.Disconnect(peer)
	}
}

// membersChanged is called on the goroutine that applies.
func (n *Node) membersChanged() {
	before := n.book.members()
	peers := n.fillBook()
	n.routes.SetPeers(peers)
	for peer := range before {
		if _, still := n.book.lookupMember(peer); !still {
			// Not at once: the answer to a node that leaves is on its way.
			time.AfterFunc(leaveGrace, func() { n.disconnectRemoved(peer) })
		}
	}
	n.checkRemoved()
}
