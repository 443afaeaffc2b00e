package consensus

import (
	"slices"
	"strings"
	"time"
)

// Status is what this node knows of the group, for people.
type Status struct {
	Node, Leader  string
	State         string // raft's word: Leader, Follower, Candidate
	Term          uint64
	CommitIndex   uint64
	AppliedIndex  uint64
	LastIndex     uint64
	Incarnation   uint64
	Leased        bool
	LeaseLeft     time.Duration
	PacksInFlight int
	ItemsQueued   int
	Servers       []Server
	// Room of this node's disk; Scarce: durable publishes are refused.
	Room   Room
	Scarce bool
	// Leases are filled in on the leader.
	Leases []LeaseStatus
}

// LeaseStatus is one node's lease as the leader sees it.
type LeaseStatus struct {
	Node         string
	Incarnation  uint64
	AppliedIndex uint64
	// Granted by this leader, and Age of the last grant; without one the age is that
	// of the leadership.
	Granted bool
	Age     time.Duration
	// ClockOffset of the node's wall clock from the leader's, as of its last
	// request, the way of the request included.
	ClockOffset time.Duration
}

// Status reports on this node; on the leader, on every node's lease.
func (c *Consensus) Status() Status {
	leader, _ := c.Leader()
	b := c.proposer.load()
	s := Status{
		Node: c.cfg.Node, Leader: leader, State: c.raft.State().String(),
		Term: c.raft.CurrentTerm(), CommitIndex: c.raft.CommitIndex(),
		AppliedIndex: c.deps.State.AppliedIndex(), LastIndex: c.raft.LastIndex(),
		Incarnation: uint64(c.Incarnation()), Leased: c.Leased(), LeaseLeft: c.leaseLeft(),
		PacksInFlight: b.InFlight, ItemsQueued: b.Items, Servers: c.Servers(),
		Room: c.deps.Room(), Scarce: c.Scarce(),
	}
	if !c.IsLeader() {
		return s
	}
	g := c.granter
	g.mu.Lock()
	defer g.mu.Unlock()
	now := c.now()
	for node, h := range g.holders {
		l := LeaseStatus{Node: node, Incarnation: h.incarnation, AppliedIndex: h.applied, Granted: h.granted, Age: now - h.renewed, ClockOffset: h.offset}
		if node == c.cfg.Node {
			l.AppliedIndex = s.AppliedIndex
		}
		s.Leases = append(s.Leases, l)
	}
	slices.SortFunc(s.Leases, func(a, b LeaseStatus) int { return strings.Compare(a.Node, b.Node) })
	return s
}

// Stats are raft's own figures, by raft's names.
func (c *Consensus) Stats() map[string]string { return c.raft.Stats() }
