package node

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// health answers the probes.
type health struct{ n *Node }

// Live implements admin.Health: a process that answers is alive; what kills it
// ends it.
func (health) Live() error { return nil }

// readyLag is how many committed entries a ready node may still have to apply.
const readyLag = 10_000

// Ready implements admin.Health.
func (h health) Ready() admin.Readiness {
	n := h.n
	st := n.consensus.Status()
	r := admin.Readiness{
		Lease:    st.Leased && n.admitting.Load(),
		CaughtUp: st.AppliedIndex+readyLag >= st.CommitIndex && st.CommitIndex > 0,
		Serving:  n.serving.Load() && !n.draining.Load(),
	}
	for _, c := range []struct {
		ok  bool
		why string
	}{
		{r.Lease, "no lease: the node does not reach a leader with a majority"},
		{r.CaughtUp, "the node has not caught up with the log"},
		{r.Serving, "the node is starting or draining"},
	} {
		if !c.ok {
			r.Reasons = append(r.Reasons, c.why)
		}
	}
	return r
}

// nodeStatus is what a node tells the others of itself.
type nodeStatus struct {
	Applied uint64 `json:"applied"`
	Clients int    `json:"clients"`
	Version string `json:"version"`
	Lease   int64  `json:"lease_ms"`
	Disk    string `json:"disk"`
	Ready   bool   `json:"ready"`
	// For the overview; a node of an older version does not tell.
	Draining  bool           `json:"draining"`
	Uptime    int64          `json:"uptime_s"`
	CertUntil time.Time      `json:"cert_until"`
	Counters  admin.Counters `json:"counters"`
}

func (n *Node) serveNode(context.Context, string, none) (nodeStatus, error) { return n.self(), nil }

func (n *Node) self() nodeStatus {
	st := n.consensus.Status()
	return nodeStatus{
		Applied: st.AppliedIndex, Clients: int(n.broker.Stats().Connected),
		Version: n.deps.Version, Lease: max(0, st.LeaseLeft.Milliseconds()),
		Disk: st.Room.String(), Ready: health{n}.Ready().Ready(),
		Draining: n.draining.Load(), Uptime: int64(time.Since(n.started).Seconds()),
		CertUntil: n.identity.NotAfter(), Counters: n.counters(),
	}
}

// askTimeout bounds how long status waits for a node.
const askTimeout = time.Second

// Status implements admin.Cluster: what this node knows, and what the others
// answer when asked.
func (b backend) Status(ctx context.Context) (admin.Status, error) {
	out, _ := b.n.survey(ctx)
	return out, nil
}

// survey is Status with what the members told, in the order of the members.
func (n *Node) survey(ctx context.Context) (admin.Status, []nodeStatus) {
	st := n.consensus.Status()
	name, _ := n.store.Setting(settingClusterName)
	out := admin.Status{
		ClusterID: n.identity.ClusterID(), ClusterName: name, Node: n.cfg.Node.ID, Version: n.deps.Version,
		Leader: st.Leader, Readiness: health{n}.Ready(), Draining: n.draining.Load(),
		Term: st.Term, LastIndex: st.LastIndex, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		Level: fsm.Level, Refusing: st.Scarce,
	}
	members := n.store.Members()
	out.Members = make([]admin.Member, len(members))
	told := make([]nodeStatus, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { out.Members[i], told[i] = n.describe(ctx, m, st.Leader) })
	}
	wg.Wait()
	up, all := 0, 0
	for i, m := range members {
		if m.Voter {
			all++
			if out.Members[i].Up {
				up++
			}
		}
	}
	out.Quorum = st.Leader != "" && up > all/2
	return out, told
}

// describe asks a member how it is.
func (n *Node) describe(ctx context.Context, m *logpb.Member, leader string) (admin.Member, nodeStatus) {
	out := admin.Member{Node: m.Node, Address: m.Address, Role: admin.RoleNonVoter, Lease: -1, Version: m.Version, Level: m.Level}
	switch {
	case m.Node == leader:
		out.Role = admin.RoleLeader
	case m.Voter:
		out.Role = admin.RoleVoter
	}
	s, err := n.ask(ctx, m.Node)
	if err != nil {
		return out, nodeStatus{}
	}
	out.Up, out.Applied, out.Clients, out.Version, out.Lease = true, s.Applied, s.Clients, s.Version, s.Lease
	out.Disk = s.Disk
	return out, s
}

// ListSessions implements admin.Sessions.
func (b backend) ListSessions(_ context.Context, r admin.SessionRequest) ([]admin.Session, error) {
	if r.Limit <= 0 {
		r.Limit = 1000
	}
	var out []admin.Session
	for _, s := range b.n.store.Sessions(r.Prefix, r.Limit) {
		out = append(out, admin.Session{
			Client: s.Client, User: s.User, Node: s.Owner, Address: s.Address,
			Protocol: int(s.Protocol), Subscriptions: len(s.Subscriptions), Expiry: s.Expiry,
		})
	}
	return out, nil
}

// EndSession implements admin.Sessions.
func (b backend) EndSession(ctx context.Context, client string) (admin.Change, error) {
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_SessionEnd{SessionEnd: &logpb.SessionEnd{Client: client}}})
}

// Leave implements admin.Cluster: it removes this node, or another one that will
// not come back, from the cluster.
func (b backend) Leave(ctx context.Context, r admin.LeaveRequest) (_ admin.Change, err error) {
	n := b.n
	if r.Node == "" {
		r.Node = n.cfg.Node.ID
	}
	if r.Node == n.cfg.Node.ID {
		n.drain(ctx, 0, 0)
		defer func() {
			if err != nil {
				n.undrain() // it stays, and serves
			}
		}()
		if n.consensus.IsLeader() {
			if err := n.handOver(ctx); err != nil {
				return admin.Change{}, adminError(err)
			}
		}
	}
	index, err := askLeader(ctx, n, pathLeave, r, n.expel)
	if err == nil && r.Node == n.cfg.Node.ID {
		// The log does not reach a node that is gone from it.
		n.goneFor("this node has left the cluster")
	}
	return admin.Change{Index: index, NotApplied: []string{}}, adminError(err)
}

// goneFor ends the node, once.
func (n *Node) goneFor(why string) {
	n.leave.Do(func() {
		n.log.Warn(why + ": empty its data directory before it joins again")
		close(n.left)
	})
}

func (n *Node) serveLeave(ctx context.Context, peer string, r admin.LeaveRequest) (uint64, error) {
	if r.Node == "" {
		r.Node = peer
	}
	if r.Node == peer {
		r.Force = true // it drained and asks for itself
	}
	return n.expel(ctx, r)
}

// expel removes a member. A voter goes from raft's configuration before it goes
// from the state, so that the quorum is never counted with a node that is gone.
func (n *Node) expel(ctx context.Context, r admin.LeaveRequest) (uint64, error) {
	m := n.member(r.Node)
	switch {
	case m == nil:
		return 0, errNoMember(r.Node)
	case m.Node == n.cfg.Node.ID:
		return 0, faultf(http.StatusConflict, "node %s is the only one that could lead: add nodes first, or stop the cluster", m.Node)
	case m.Incarnation != 0 && !r.Force:
		return 0, faultf(http.StatusConflict, "node %s is up: run mqcluster leave there, or use --force", m.Node)
	}
	n.votersMu.Lock()
	defer n.votersMu.Unlock()
	if err := n.takeOut(ctx, m); err != nil {
		return 0, err
	}
	if err := n.revokeCerts(ctx, m.Node); err != nil {
		return 0, err
	}
	res, err := n.proposeResult(ctx, &logpb.Item{Kind: &logpb.Item_MemberRemove{MemberRemove: &logpb.MemberRemove{Node: m.Node, Store: m.Store}}})
	n.log.Info("a node left", "member", m.Node)
	return res.Pos.Index(), err
}

// checkRemoved ends the node when the state no longer has it.
func (n *Node) checkRemoved() {
	members := n.store.Members()
	if len(members) == 0 {
		return
	}
	known := false
	for _, m := range members {
		known = known || m.Node == n.cfg.Node.ID
	}
	if known {
		n.known.Store(true)
	} else if n.known.Load() {
		n.goneFor("this node was removed from the cluster")
	}
}

// Ready is what /readyz answers.
func (n *Node) Ready() admin.Readiness { return health{n}.Ready() }
