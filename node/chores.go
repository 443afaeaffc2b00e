package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/gossip"
	"github.com/mqcluster/mqcluster/session"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// What a node does every now and then, each on its own goroutine until Close.
func (n *Node) openChores(context.Context) error {
	for _, chore := range []struct {
		every time.Duration
		do    func(context.Context)
	}{
		{100 * time.Millisecond, n.checkLease},
		{time.Second, n.tellDigest},
		{time.Second, n.watchDisk},
		{rateStep, n.sampleRates},
		{time.Second, n.lead},
		{time.Second, n.fetchCA},
		{followEvery, n.followCA},
		{followEvery, n.driveCA},
		{10 * time.Second, n.renewIdentity},
		{time.Minute, n.countCerts},
		{5 * time.Second, n.publishSys},
		{10 * time.Second, n.releaseGhosts},
		{trimEvery, n.trimQueues},
	} {
		n.wg.Go(func() {
			tick := time.NewTicker(chore.every)
			defer tick.Stop()
			for {
				chore.do(n.ctx)
				select {
				case <-n.ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	n.wg.Go(n.shareLoop)
	n.wg.Go(n.expelLoop)
	return nil
}

// checkLease lets the broker serve only while this node may.
func (n *Node) checkLease(context.Context) {
	may := n.leased() && n.recallSettled()
	// A node that drains holds its lease all the same, and sends its clients away at
	// its own pace.
	n.broker.SetServing(may)
	n.admitting.Store(may)
}

// releaseGhosts gives up sessions that the log says are connected here and are
// not: a claim whose outcome was unknown when its connection was closed, and
// that was applied all the same. One is a ghost when two looks find it.
func (n *Node) releaseGhosts(context.Context) {
	ghosts := map[string]session.Pos{}
	for client, epoch := range n.store.Owned(n.cfg.Node.ID) {
		if !n.broker.Holds(client, epoch) {
			ghosts[client] = epoch
		}
	}
	for client, epoch := range ghosts {
		if n.ghosts[client] != epoch || !n.consensus.Leased() {
			continue
		}
		n.log.Info("a session without a connection is released", "client", client)
		err := n.propose(n.ctx, &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: client, Epoch: uint64(epoch), Will: true}}})
		if err != nil && !errors.Is(err, fsm.ErrStale) {
			n.log.Debug("a session was not released; tried again", "client", client, "err", err)
		}
	}
	n.ghosts = ghosts
}

// tellDigest lets the peers check by gossip whether their copy of this node's
// routes is right.
func (n *Node) tellDigest(context.Context) {
	incarnation, version, hash := n.routes.Digest()
	n.gossip.SetDigest(gossip.Digest{
		Incarnation: incarnation, Version: version, Hash: hash,
		Load: uint32(n.broker.Stats().Connected), Level: levelOf(n),
	})
}

// lead is what only the leader does: it hands down the secrets of memory, has those
// of the log made, and promotes nodes that have caught up.
func (n *Node) lead(ctx context.Context) {
	if !n.consensus.IsLeader() {
		return
	}
	if n.secrets.blob() == nil {
		n.askSecrets()
	}
	blob := n.secrets.renew(time.Now())
	if blob == nil && n.consensus.Secrets() == nil {
		blob = n.secrets.blob()
	}
	if blob != nil {
		if err := n.consensus.SetSecrets(blob); err != nil {
			n.log.Debug("the secrets were not handed down", "err", err)
		}
		n.secrets.receive(blob)
	}
	n.makeSecrets(ctx)
	n.settleVoters()
}

// isVoter tells whether a member votes, by the state.
func (n *Node) isVoter(node string) bool {
	return n.member(node).GetVoter()
}

// member is a node's record in the state, nil if it has none.
func (n *Node) member(node string) *logpb.Member {
	for _, m := range n.store.Members() {
		if m.Node == node {
			return m
		}
	}
	return nil
}

// fetchCA gets the CA keys, which voters have, from the leader.
func (n *Node) fetchCA(ctx context.Context) {
	if !n.isVoter(n.cfg.Node.ID) {
		return
	}
	r, held := n.caRecord(), n.keyring.pins()
	for _, pin := range []string{r.Nodes, r.Clients} {
		if slices.Contains(held, pin) {
			continue
		}
		if err := n.fetchKey(ctx, pin); err != nil {
			n.log.Debug("a CA key was not fetched; tried again", "err", err)
		}
		return
	}
}

// fetchKey gets the key of the CA with a pin from the leader, unless it is here.
func (n *Node) fetchKey(ctx context.Context, pin string) error {
	if slices.Contains(n.keyring.pins(), pin) {
		return nil
	}
	leader, ok := n.consensus.Leader()
	if !ok || leader == n.cfg.Node.ID {
		return errNoLeader
	}
	req := caRequest{Pin: pin}
	if n.caRecord().stage() == admin.CASettled && pin == n.identity.Pin() {
		req.Pin = "" // there is one, and older versions know no other question
	}
	var out caAnswer
	if err := n.call(ctx, leader, pathCA, req, &out); err != nil {
		return err
	}
	ca, err := mtls.ParseCA(out.Cert, out.Key)
	if err != nil {
		return err
	}
	if ca.Pin() != pin || ca.ClusterID() != n.identity.ClusterID() {
		return fmt.Errorf("node %s gave the key of another CA", leader)
	}
	if err := n.keyring.save(ca); err != nil {
		n.log.Warn("a CA key was not saved; tried again", "err", err)
		return err
	}
	return nil
}

// renewIdentity asks for a new certificate in good time.
func (n *Node) renewIdentity(ctx context.Context) {
	if time.Now().Before(mtls.RenewAt(n.identity.Leaf())) {
		return
	}
	if err := n.renew(ctx); err != nil {
		n.log.Warn("the node's certificate was not renewed; tried again", "until", n.identity.NotAfter(), "err", err)
		return
	}
	n.log.Info("the node's certificate was renewed", "until", n.identity.NotAfter())
}

func levelOf(n *Node) uint32 { return n.member(n.cfg.Node.ID).GetLevel() }
