package consensus

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// Room is what a node's disk has left. The cluster goes on while a quorum of
// voters has enough; it stops taking durable messages before the log of a voter
// that it needs can grow no more, so that it can still be emptied.
type Room byte

const (
	// RoomEnough: nothing to tell.
	RoomEnough Room = iota
	// RoomLow: the node does not lead if another can, and durable publishes are
	// refused where the group cannot do without it.
	RoomLow
	// RoomNone: what is left is the reserve. The node takes no entries, so that it
	// lags, and serves nobody.
	RoomNone
)

// String names it for people.
func (r Room) String() string {
	switch r {
	case RoomLow:
		return "low"
	case RoomNone:
		return "full"
	}
	return "ok"
}

// Scarce tells whether messages that would have to be stored are to be refused:
// the disks of so many voters are low that there is no quorum without them. It is
// the leader's word, and cheap.
func (c *Consensus) Scarce() bool { return c.lessee.scarce.Load() }

// roomWord is what a node last told of its disk.
type roomWord struct {
	room Room
	at   time.Duration
}

// scarce decides for all. A voter that was not heard of for longer than a lease
// has no room to give. Until a fresh leader has heard of those that it needs it
// does not know, and what the last one said holds. mu is held.
func (g *granter) scarce() (scarce, known bool) {
	now, patience := g.c.now(), g.c.cfg.Lease+g.c.cfg.Margin
	voters, low, fit, unheard := 0, 0, 0, 0
	for _, s := range g.c.Servers() {
		if !s.Voter {
			continue
		}
		voters++
		w, heard := g.rooms[s.Node]
		switch {
		case heard && w.room != RoomEnough:
			low++
		case heard && now-w.at <= patience:
			fit++
		case !heard && now-g.since <= patience:
			unheard++
		}
	}
	quorum := voters/2 + 1
	return low > 0 && fit+unheard < quorum, fit >= quorum || fit+unheard < quorum
}

// heard notes a node's word about its disk.
func (g *granter) heard(node string, r Room) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rooms[node] = roomWord{r, g.c.now()}
}

// watchRoom hands leadership to a voter with more room than this node has.
func (c *Consensus) watchRoom() {
	tick := time.NewTicker(c.cfg.Renew)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		own := c.deps.Room()
		if own == RoomEnough || !c.IsLeader() {
			continue
		}
		to, ok := c.roomier(own)
		if !ok {
			continue
		}
		c.log.Warn("leadership goes to a node whose disk has more room", "member", to.Node)
		id, at := serverID(to.Node, to.Store), serverAddress(to.Node, to.Store, to.Address)
		if err := leaderError(c.raft.LeadershipTransferToServer(id, at).Error()); err != nil {
			c.log.Debug("leadership was not handed over", "member", to.Node, "err", err)
		}
	}
}

// roomier is the voter with a lease and the most room, if that is more than this
// node has.
func (c *Consensus) roomier(own Room) (best Server, ok bool) {
	g := c.granter
	g.mu.Lock()
	defer g.mu.Unlock()
	now := c.now()
	for _, s := range c.Servers() {
		w, known := g.rooms[s.Node]
		h := g.holders[s.Node]
		if s.Voter && s.Node != c.cfg.Node && known && h != nil && h.granted && now-h.renewed <= c.cfg.Lease && w.room < own {
			best, own, ok = s, w.room, true
		}
	}
	return best, ok
}

// RequestVote implements raft.Transport: a node that could not store an entry
// does not ask for votes.
func (t *gatedTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.fit(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestVote(id, target, req, resp)
}

// RequestPreVote implements raft.WithPreVote, as RequestVote.
func (t *gatedTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.fit(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, target, req, resp)
}

// errStalled: the followers are to elect a leader whose disk answers. Raft's own
// loop waits for the disk and could not step down; its heartbeats would go on.
var errStalled = errors.New("the disk of this node does not answer")

func (t *gatedTransport) fit() error {
	if t.store.room() == RoomNone {
		return errNoRoom
	}
	if t.store.stalled() {
		return errStalled
	}
	return nil
}

// roomySnapshots refuses snapshots that would eat into the reserve: raft tries
// again later.
type roomySnapshots struct {
	raft.SnapshotStore
	room func() Room
	made func(point) // is told of every snapshot that is whole
}

// Create implements raft.SnapshotStore.
func (s roomySnapshots) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	if s.room() == RoomNone {
		return nil, fmt.Errorf("make a snapshot: %w", errNoRoom)
	}
	sink, err := s.SnapshotStore.Create(v, index, term, conf, confIndex, t)
	if err != nil {
		return nil, err
	}
	return &roomySink{SnapshotSink: sink, room: s.room, made: func() { s.made(point{index, term}) }}, nil
}

// roomySink looks at the room every megabyte.
type roomySink struct {
	raft.SnapshotSink
	room func() Room
	made func()
	left int
}

// Close implements io.Closer.
func (s *roomySink) Close() error {
	err := s.SnapshotSink.Close()
	if err == nil {
		s.made()
	}
	return err
}

// Write implements io.Writer.
func (s *roomySink) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left <= 0 {
		s.left = 1 << 20
		if s.room() == RoomNone {
			return 0, fmt.Errorf("write a snapshot: %w", errNoRoom)
		}
	}
	return s.SnapshotSink.Write(p)
}

var (
	_ io.Writer        = (*roomySink)(nil)
	_ raft.WithPreVote = (*gatedTransport)(nil)
)
