package node

import (
	"context"
	"errors"
	"fmt"
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
		Draining: n.away.red(),
	}
	r.Serving = n.serving.Load() && !r.Draining
	for _, c := range []struct {
		ok  bool
		why string
	}{
		{r.Lease, "no lease: the node does not reach a leader with a majority"},
		{r.CaughtUp, "the node has not caught up with the log"},
		{n.serving.Load(), "the node is starting"},
		{!r.Draining, "the node is draining"},
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
	Now     int64  `json:"now_us"` // wall clock
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
		Disk: st.Room.String(), Ready: health{n}.Ready().Ready(), Now: time.Now().UnixMicro(),
		Draining: n.away.phase() != "", Uptime: int64(time.Since(n.started).Seconds()),
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
		Leader: st.Leader, Readiness: health{n}.Ready(), DrainPhase: n.away.phase(),
		Term: st.Term, LastIndex: st.LastIndex, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		Level: fsm.Level, Refusing: st.Scarce,
	}
	out.Draining = out.DrainPhase != ""
	members := n.store.Members()
	out.Members = make([]admin.Member, len(members))
	told := make([]nodeStatus, len(members))
	open := n.openVotes(members)
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { out.Members[i], told[i] = n.describe(ctx, m, roleOf(m, st.Leader, open)) })
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

// openVotes is how many more of the members should vote than do.
func (n *Node) openVotes(members []*logpb.Member) int {
	may, do := 0, 0
	for _, m := range members {
		if !m.ServingOnly {
			may++
		}
		if m.Voter {
			do++
		}
	}
	return voters(may, n.mostVoters()) - do
}

// roleOf is a member's role where so many votes are open.
func roleOf(m *logpb.Member, leader string, open int) string {
	switch {
	case m.Node == leader:
		return admin.RoleLeader
	case m.Voter:
		return admin.RoleVoter
	case open > 0 && !m.ServingOnly:
		return admin.RoleNonVoter
	}
	return admin.RoleServing
}

// describe asks a member how it is.
func (n *Node) describe(ctx context.Context, m *logpb.Member, role string) (admin.Member, nodeStatus) {
	out := admin.Member{Node: m.Node, Address: m.Address, Role: role, ServingOnly: m.ServingOnly, Lease: -1, Version: m.Version, Level: m.Level}
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
	if r.Compromised && (r.Node == "" || r.Node == n.cfg.Node.ID) {
		return admin.Change{}, invalid(errors.New("a node cannot be removed for cause by itself: run this on another one"))
	}
	if r.Node == "" {
		r.Node = n.cfg.Node.ID
	}
	if r.Node == n.cfg.Node.ID {
		n.drain(ctx, departure{forGood: true})
		defer func() {
			if err != nil {
				n.undrain() // it stays, and serves
			}
		}()
		if n.away.phase() != admin.DrainDrained {
			return admin.Change{}, adminError(faultf(http.StatusConflict, "the drain was ended before the clients were sent away, and the node stays: run mqcluster leave again"))
		}
		if n.consensus.IsLeader() {
			if err := n.handOver(ctx); err != nil {
				return admin.Change{}, adminError(err)
			}
		}
	}
	asked := admin.AskedFrom(ctx)
	if r.Actor, r.Via = "", ""; asked != nil && n.identityLevel() {
		r.Actor, r.Via = asked.Actor, n.cfg.Node.ID // the leader's log has it, when this node may be gone
	}
	index, err := askLeader(ctx, n, pathLeave, r, n.expel)
	if f, ok := errors.AsType[*fault](err); ok && f.status == http.StatusMisdirectedRequest {
		index, err = n.expelByOther(ctx, r)
	}
	if err == nil && r.Actor != "" {
		asked.Note()
	}
	if err == nil && r.Node == n.cfg.Node.ID {
		// The log does not reach a node that is gone from it.
		n.goneFor("this node has left the cluster")
	}
	if err == nil && r.Compromised {
		// No voter is to give a key to one that is out.
		if c, err := b.everywhere(ctx, index); err != nil || len(c.NotApplied) > 0 {
			return c, err
		}
		return b.rotateFor(ctx, r.Node, index)
	}
	return admin.Change{Index: index, NotApplied: []string{}}, adminError(err)
}

// expelByOther asks again when the node to be removed has handed its lead over.
func (n *Node) expelByOther(ctx context.Context, r admin.LeaveRequest) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if leader, ok := n.consensus.Leader(); ok && leader != r.Node {
			return askLeader(ctx, n, pathLeave, r, n.expel)
		}
		select {
		case <-ctx.Done():
			return 0, faultf(http.StatusServiceUnavailable, "node %s leads and does not let go of it: stop its machine, and run this again", r.Node)
		case <-tick.C:
		}
	}
}

// rotateFor begins a rotation because a node that was removed had the CA's key.
func (b backend) rotateFor(ctx context.Context, node string, index uint64) (admin.Change, error) {
	out, err := b.RotateCA(ctx, admin.CARequest{Force: true})
	if err != nil {
		return admin.Change{Index: index, NotApplied: []string{}}, fmt.Errorf("node %s is removed, and the CA whose key it had is not rotated: run mqcluster ca rotate (%w)", node, err)
	}
	if out.Index == 0 {
		out.Index = index
	}
	return out.Change, nil
}

// replaceSecrets makes the keys anew that all nodes share in memory: TLS tickets of
// before resume nothing any more, and passwords are verified anew.
func (n *Node) replaceSecrets() error {
	blob := n.secrets.replace(time.Now())
	if err := n.consensus.SetSecrets(blob); err != nil {
		return fmt.Errorf("hand down new keys of TLS tickets: %w", err)
	}
	n.secrets.receive(blob)
	return nil
}

// goneFor ends the node, once.
func (n *Node) goneFor(why string) {
	n.leave.Do(func() {
		n.log.Warn(why + ": empty its data directory before it joins again")
		close(n.left)
	})
}

// gone tells whether the node has left the cluster.
func (n *Node) gone() bool {
	select {
	case <-n.left:
		return true
	default:
		return false
	}
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
	case m.Node == n.cfg.Node.ID && r.Compromised:
		if err := n.handOver(ctx); err != nil {
			return 0, err
		}
		return 0, faultf(http.StatusMisdirectedRequest, "node %s has handed the lead over: ask the new leader", m.Node)
	case m.Node == n.cfg.Node.ID:
		return 0, faultf(http.StatusConflict, "node %s is the only one that could lead: add nodes first, or stop the cluster", m.Node)
	case m.Incarnation != 0 && !r.Force && !r.Compromised:
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
	item := &logpb.Item{Kind: &logpb.Item_MemberRemove{MemberRemove: &logpb.MemberRemove{Node: m.Node, Store: m.Store}}}
	if r.Actor != "" {
		item.By = n.byNode(r.Actor, "leave", m.Node, fmt.Sprintf("asked of node %s, force %v", r.Via, r.Force))
	}
	res, err := n.proposeResult(ctx, item)
	n.log.Info("a node left", "member", m.Node)
	if err == nil && r.Compromised {
		err = n.replaceSecrets()
	}
	return res.Pos.Index(), err
}

// checkRemoved ends the node when the state no longer has it. One that has left and
// joined again comes, on its way through the log, by what it was before: a member of
// its name, with another disk.
func (n *Node) checkRemoved() {
	members := n.store.Members()
	if len(members) == 0 {
		return
	}
	if m := n.member(n.cfg.Node.ID); m != nil && m.Store == n.storeID {
		n.known.Store(true)
	} else if n.known.Load() {
		n.goneFor("this node was removed from the cluster")
	}
}

// Ready is what /readyz answers.
func (n *Node) Ready() admin.Readiness { return health{n}.Ready() }
