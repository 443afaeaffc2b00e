package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// voters is how many of n members vote, most at most: an even number bears no more
// failures than one less.
func voters(n, most int) int {
	switch n = min(n, most); {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	}
	return 1
}

// inContact is how long ago a member that is up answered at most.
const inContact = time.Second

// contactWait is how long a change waits for an answer of the members that it
// depends on. It must be one to a request of after the change began: a change of
// voters takes effect before it is committed, so that with one that died a moment
// ago, and whose lease still runs, the majority would be gone for good.
const contactWait = 2 * time.Second

// caughtUp is how many entries a node may be behind and still be promoted.
const caughtUp = 2000

// seat is what the decision who votes knows of a member.
type seat struct {
	node   string
	voter  bool
	leader bool
	never  bool // it serves only
	up     bool // it answers the leader, and holds a lease if it is to be promoted
	behind uint64
	joined int64
}

// ready tells whether the member may be promoted.
func (s seat) ready() bool { return !s.voter && !s.never && s.up && s.behind <= caughtUp }

func count(seats []seat, is func(seat) bool) (n int) {
	for _, s := range seats {
		if is(s) {
			n++
		}
	}
	return n
}

func votes(s seat) bool { return s.voter }

func mayVote(s seat) bool { return !s.never }

// quorate tells whether the voters that are up can commit a change.
func quorate(seats []seat) bool {
	return count(seats, func(s seat) bool { return s.voter && s.up }) > count(seats, votes)/2
}

// toPromote are the members to make voters next: as many as lead to an odd number,
// so that two are promoted at once or none, and only such as have caught up. A
// number that is even because a voter was replaced is made odd by one.
func toPromote(seats []seat, most int) []string {
	have := count(seats, votes)
	var ready []seat
	for _, s := range seats {
		if s.ready() {
			ready = append(ready, s)
		}
	}
	slices.SortFunc(ready, func(a, b seat) int {
		return cmp.Or(cmp.Compare(a.joined, b.joined), strings.Compare(a.node, b.node))
	})
	n := min(len(ready), voters(count(seats, mayVote), most)-have)
	if (have+n)%2 == 0 {
		n--
	}
	var out []string
	for i := range n {
		out = append(out, ready[i].node)
	}
	return out
}

// toDemote is the voter to make a non-voter next, "" for none: members have left, or
// fewer are to vote, and more do than should. It is never the leader; first one that is
// down, then the one that is furthest behind, then the newest.
func toDemote(seats []seat, most int) string {
	if count(seats, votes) <= voters(count(seats, mayVote), most) {
		return ""
	}
	var all []seat
	for _, s := range seats {
		if s.voter && !s.leader {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b seat) int {
		if a.up != b.up {
			if b.up {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.behind, a.behind), cmp.Compare(b.joined, a.joined), strings.Compare(a.node, b.node))
	})
	for _, s := range all {
		if quorate(without(seats, s.node)) {
			return s.node
		}
	}
	return ""
}

func without(seats []seat, node string) []seat {
	return slices.DeleteFunc(slices.Clone(seats), func(s seat) bool { return s.node == node })
}

// mayRemove tells why a member cannot be removed: the voters that stay would have
// no majority, and the change itself could not be committed.
func mayRemove(seats []seat, node string) error {
	rest := without(seats, node)
	if quorate(rest) {
		return nil
	}
	var down []string
	for _, s := range rest {
		if s.voter && !s.up {
			down = append(down, s.node)
		}
	}
	if len(down) == 0 {
		return faultf(http.StatusConflict, "node %s is the only one that votes: add nodes first, or stop the cluster", node)
	}
	return faultf(http.StatusConflict, "without node %s the voters had no majority, because %s is down: bring that one back, remove it with mqcluster leave %s, or replace it with mqcluster join --replace %s",
		node, strings.Join(down, ", "), down[0], down[0])
}

// seats are the members as the leader sees them; up are those that answered within
// the last d.
func (n *Node) seats(d time.Duration) []seat {
	st := n.consensus.Status()
	var out []seat
	for _, m := range n.store.Members() {
		s := seat{node: m.Node, leader: m.Node == n.cfg.Node.ID, never: m.ServingOnly, joined: m.JoinedAt, behind: st.CommitIndex}
		for _, server := range st.Servers {
			if server.Node == m.Node && server.Store == m.Store {
				s.voter = server.Voter
			}
		}
		s.up = n.consensus.InContact(m.Node, m.Store, d)
		for _, l := range st.Leases {
			if l.Node == m.Node && l.Granted && l.Age < n.cfg.Raft.Lease {
				s.behind = st.CommitIndex - min(l.AppliedIndex, st.CommitIndex)
			}
		}
		out = append(out, s)
	}
	return out
}

// mostVoters is how many members vote at most.
func (n *Node) mostVoters() int {
	v, _ := n.store.Setting(fsm.SettingVoters)
	return mostVoters(v)
}

// defaultVoters is for a value that is not there, or not known here.
const defaultVoters = 5

func mostVoters(setting string) int {
	if most, err := strconv.Atoi(setting); err == nil && fsm.CheckSetting(fsm.SettingVoters, setting) == nil {
		return most
	}
	return defaultVoters
}

// settleVoters makes as many members vote as should, one step at a time.
func (n *Node) settleVoters() {
	n.votersMu.Lock()
	defer n.votersMu.Unlock()
	seats := n.seats(inContact)
	for _, s := range seats {
		if m := n.member(s.node); m != nil && m.Voter != s.voter {
			n.noteVoter(m, s.voter)
		}
	}
	for _, node := range toPromote(seats, n.mostVoters()) {
		if err := n.promote(node); err != nil {
			n.log.Warn("a node was not promoted to voter; tried again", "member", node, "err", err)
			return
		}
	}
	if node := toDemote(seats, n.mostVoters()); node != "" {
		if err := n.demote(node); err != nil {
			n.log.Warn("a voter was not made a non-voter; tried again", "member", node, "err", err)
		}
	}
}

func (n *Node) promote(node string) error {
	m := n.member(node)
	if m == nil {
		return errNoMember(node)
	}
	began := time.Now()
	err := n.awaitContact(n.ctx, func() error {
		if n.consensus.InContact(m.Node, m.Store, time.Since(began)) {
			return nil
		}
		return errors.New("it does not answer")
	})
	if err != nil {
		return err
	}
	if err := n.consensus.Promote(m.Node, m.Store, m.Address); err != nil {
		return err
	}
	n.log.Info("a node votes now", "member", m.Node)
	n.noteVoter(m, true)
	return nil
}

func (n *Node) demote(node string) error {
	m := n.member(node)
	if m == nil {
		return errNoMember(node)
	}
	if err := n.consensus.Demote(m.Node, m.Store); err != nil {
		return err
	}
	n.log.Info("a node votes no more: an even number of voters bears no more failures", "member", m.Node)
	n.noteVoter(m, false)
	return nil
}

// noteVoter writes into the state what raft's configuration says.
func (n *Node) noteVoter(m *logpb.Member, voter bool) {
	put := &logpb.MemberPut{Node: m.Node, Store: m.Store, Address: m.Address, Voter: voter, ServingOnly: m.ServingOnly}
	if err := n.propose(n.ctx, &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: put}}); err != nil {
		n.log.Warn("whether a node votes was not noted; tried again", "member", m.Node, "err", err)
	}
}

func errNoMember(node string) error {
	return faultf(http.StatusNotFound, "there is no member %s: see mqcluster status", node)
}

// takeOut removes a member's server from raft's configuration, after a spare has
// taken its vote over where there is one. votersMu is held.
func (n *Node) takeOut(ctx context.Context, m *logpb.Member) error {
	seats, began := n.seats(inContact), time.Now()
	i := slices.IndexFunc(seats, func(s seat) bool { return s.node == m.Node })
	if i >= 0 && seats[i].voter {
		if err := n.awaitContact(ctx, func() error { seats = n.seats(time.Since(began)); return mayRemove(seats, m.Node) }); err != nil {
			return err
		}
		rest := without(seats, m.Node)
		if spare := toPromote(rest, n.mostVoters()); len(spare) > 0 && count(rest, votes)%2 == 0 {
			if err := n.promote(spare[0]); err != nil {
				n.log.Warn("no node took the vote over", "member", spare[0], "err", err)
			}
		}
	}
	if err := n.consensus.Remove(m.Node, m.Store); err != nil {
		return fmt.Errorf("remove node %s from the log's voters: %w", m.Node, err)
	}
	return nil
}

// awaitContact asks may until it says yes, for contactWait, and returns its last
// word.
func (n *Node) awaitContact(ctx context.Context, may func() error) error {
	ctx, cancel := context.WithTimeout(ctx, contactWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := may()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// makeHeir makes sure that another member can lead: where only this node votes,
// one that has caught up becomes a voter. votersMu is held.
func (n *Node) makeHeir() error {
	seats := n.seats(inContact)
	if count(seats, votes) > 1 {
		return nil
	}
	for _, s := range seats {
		if s.ready() {
			return n.promote(s.node)
		}
	}
	return faultf(http.StatusConflict, "node %s is the only one that can lead: add nodes first, or stop the cluster", n.cfg.Node.ID)
}

// revokeCerts ends the certificates of a node.
func (n *Node) revokeCerts(ctx context.Context, node string) error {
	for _, c := range n.store.Certs() {
		if c.Kind != "node" || c.Subject != node || c.Revoked {
			continue
		}
		if err := n.propose(ctx, revocation(c)); err != nil {
			return err
		}
	}
	return nil
}

// replace takes a dead member out, so that the node of the request comes into its
// place. Asked again by the same key it finds its work done. votersMu is held.
func (n *Node) replace(ctx context.Context, req joinRequest) error {
	old, self := n.member(req.Replace), n.member(req.Node)
	switch {
	case self != nil && self.Store == req.Store && (old == nil || req.Replace == req.Node):
		return nil // done before
	case old == nil:
		return errNoMember(req.Replace)
	case old.Incarnation != 0:
		return faultf(http.StatusConflict, "node %s is up, or was until %v ago: only a dead node is replaced; stop it, or wait, and run this again", req.Replace, (n.cfg.Raft.Lease * 6 / 5).Round(time.Second))
	case self != nil && req.Node != req.Replace && self.Store != req.Store:
		return faultf(http.StatusConflict, "a member named %s exists already: choose another node.id, or replace that one", req.Node)
	case req.ServingOnly && !old.ServingOnly:
		return faultf(http.StatusConflict, "node %s may vote, and a node that serves only cannot take its place: leave out --serving-only, or remove that one first with mqcluster leave %s", req.Replace, req.Replace)
	}
	if err := n.takeOut(ctx, old); err != nil {
		return err
	}
	if err := n.revokeCerts(ctx, old.Node); err != nil {
		return err
	}
	n.log.Info("a dead node is replaced", "member", old.Node, "by", req.Node)
	if req.Node == old.Node {
		return nil // its record becomes the new one's
	}
	// The new one first: an attempt that ends between the two can be made again.
	put := &logpb.MemberPut{Node: req.Node, Store: req.Store, Address: req.Address, ServingOnly: req.ServingOnly}
	if err := n.propose(ctx, &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: put}}); err != nil {
		return err
	}
	return n.propose(ctx, &logpb.Item{Kind: &logpb.Item_MemberRemove{MemberRemove: &logpb.MemberRemove{Node: old.Node, Store: old.Store}}})
}
