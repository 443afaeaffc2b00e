package consensus

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"
)

// A follower that holds a snapshot of index S has no entries up to S, and raft 1.7.3
// forgets there that it knows them. An append that begins at or before S, which a
// leader sends again when the answer to the first was lost, is refused for want of
// its previous entry. The leader then sends a snapshot, an older one perhaps, and the
// follower installs it over a newer state and deletes its whole log, entries that it
// has confirmed included, whose last index it goes on to believe in: everything is
// refused from then on, or what comes next is stored behind a gap.
//
// What is at or before S is committed, and a leader of the current term has the same
// there. So such an append is cut to what comes after S. A snapshot of what was applied
// here already, or whose last entry is in the log, is confirmed and not installed: as
// the raft paper has it, the entries behind that one are kept.

// point is the last entry that a snapshot holds.
type point struct{ index, term uint64 }

// settled hands raft the requests of others as they concern a node that has a
// snapshot.
type settled struct {
	newest  func() *point // snapshot on disk, nil for none
	applied func() uint64
	term    func() (uint64, error)
	log     interface {
		GetLog(index uint64, l *raft.Log) error
	}
}

// serve passes requests from in to out until done is closed.
func (s settled) serve(in <-chan raft.RPC, out chan<- raft.RPC, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case rpc := <-in:
			if s.answered(rpc) {
				continue
			}
			select {
			case out <- rpc:
			case <-done:
				return
			}
		}
	}
}

// answered changes a request where that is needed, and tells whether it was answered.
func (s settled) answered(rpc raft.RPC) bool {
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		// A snapshot counts when the state is at least that of it.
		if p := s.newest(); p != nil && p.index <= s.applied() {
			p.cut(req)
		}
	case *raft.InstallSnapshotRequest:
		return s.known(rpc, req)
	}
	return false
}

// cut takes out of an append what the snapshot has. Without a previous entry raft
// asks for none; the first entry left follows the snapshot.
func (p *point) cut(req *raft.AppendEntriesRequest) {
	switch {
	case req.PrevLogEntry == 0 || req.PrevLogEntry > p.index:
		return
	case req.PrevLogEntry == p.index && req.PrevLogTerm != p.term:
		return // not of a leader that may be
	}
	req.Entries = slices.DeleteFunc(req.Entries, func(l *raft.Log) bool { return l.Index <= p.index })
	req.PrevLogEntry, req.PrevLogTerm = 0, 0
}

// known confirms a snapshot of what this node has already. One of a term that
// this node has not heard of is refused: the leader's heartbeats bring that, and it
// tries again.
func (s settled) known(rpc raft.RPC, req *raft.InstallSnapshotRequest) bool {
	var last raft.Log
	if req.LastLogIndex > s.applied() && (s.log.GetLog(req.LastLogIndex, &last) != nil || last.Term != req.LastLogTerm) {
		return false
	}
	term, err := s.term()
	if err == nil && req.Term < term {
		return false // raft refuses it for its term
	}
	if err == nil && req.Term > term {
		err = errors.New("its term is not known here yet")
	}
	// What comes next in the stream is the next request.
	if _, read := io.Copy(io.Discard, rpc.Reader); read != nil {
		err = errors.Join(err, read)
	}
	if err != nil {
		rpc.Respond(nil, fmt.Errorf("snapshot of entry %d: %w", req.LastLogIndex, err))
		return true
	}
	rpc.Respond(&raft.InstallSnapshotResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: term, Success: true,
	}, nil)
	return true
}
