package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// gateGrace is how long after entries were stored nothing is held back: raft
	// is about to send them.
	gateGrace = 5 * time.Millisecond
	// gateHold is the pace of empty appends when there is nothing to tell.
	gateHold = 50 * time.Millisecond
)

// gatedTransport makes a short CommitTimeout affordable. Raft repeats an empty
// append every CommitTimeout whether or not the follower could learn anything
// from it. Those that tell nothing new are held back here until an entry comes,
// or for gateHold; then they are sent, so that raft never takes for contact what
// was none.
type gatedTransport struct {
	*raft.NetworkTransport
	ctx   context.Context
	store *guardedStore
	calls chan raft.RPC // of others, for raft

	mu      sync.Mutex
	woken   chan struct{} // closed when an entry comes
	storing int
	stored  time.Time // when entries were last stored
	peers   map[raft.ServerID]told

	beats      sync.RWMutex // held for reading while raft handles a heartbeat
	beatsEnded bool

	*contacts
}

// told is what a follower has confirmed.
type told struct{ term, commit uint64 }

func newGatedTransport(ctx context.Context, t *raft.NetworkTransport, store *guardedStore, now func() time.Duration) *gatedTransport {
	return &gatedTransport{
		NetworkTransport: t, ctx: ctx, store: store, calls: make(chan raft.RPC), woken: make(chan struct{}), peers: map[raft.ServerID]told{},
		contacts: newContacts(now),
	}
}

// Consumer implements raft.Transport.
func (t *gatedTransport) Consumer() <-chan raft.RPC { return t.calls }

// SetHeartbeatHandler implements raft.Transport. Raft handles a heartbeat on the
// goroutine of its connection, stores the term of a new leader there, panics where
// it cannot, and waits for none of that when it stops.
func (t *gatedTransport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		t.beats.RLock()
		defer t.beats.RUnlock()
		if !t.beatsEnded {
			handle(rpc)
		}
	})
}

// endHeartbeats blocks until raft handles no heartbeat any more; later ones get no
// answer.
func (t *gatedTransport) endHeartbeats() {
	t.beats.Lock()
	defer t.beats.Unlock()
	t.beatsEnded = true
}

// begin is called when entries are about to be stored here: what is held back
// goes out while the disk works, so that replication is free when it is done.
// The function it returns is called then.
func (t *gatedTransport) begin() (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.storing++
	close(t.woken)
	t.woken = make(chan struct{})
	return t.end
}

func (t *gatedTransport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.storing--
	t.stored = time.Now()
}

// AppendEntries implements raft.Transport.
func (t *gatedTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if woken, hold := t.idle(id, req); hold {
		timer := time.NewTimer(gateHold)
		select {
		case <-woken:
		case <-timer.C:
		case <-t.ctx.Done():
		}
		timer.Stop()
	}
	if t.store.stalled() {
		return errStalled
	}
	vouch(req)
	began := t.contacts.now()
	if err := t.NetworkTransport.AppendEntries(id, target, req, resp); err != nil {
		return err
	}
	t.contacts.note(id, req, resp, began)
	if resp.Success && req.PrevLogEntry > 0 {
		t.told(id, req)
	}
	return nil
}

// idle tells whether req says nothing that the follower has not confirmed:
// everything that it was sent is committed, and it knows that. A heartbeat names
// no previous entry and is never held back.
func (t *gatedTransport) idle(id raft.ServerID, req *raft.AppendEntriesRequest) (<-chan struct{}, bool) {
	if len(req.Entries) > 0 || req.PrevLogEntry == 0 || req.LeaderCommitIndex < req.PrevLogEntry {
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.storing > 0 || time.Since(t.stored) < gateGrace {
		return nil, false
	}
	p := t.peers[id]
	return t.woken, p.term == req.Term && p.commit >= req.LeaderCommitIndex
}

func (t *gatedTransport) told(id raft.ServerID, req *raft.AppendEntriesRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers[id] = told{term: req.Term, commit: req.LeaderCommitIndex}
}

// vouch lowers the commit index of an append to the last entry that the request
// vouches for: min(leaderCommit, index of last new entry), as the raft paper has
// it. Raft 1.7.3 reads the commit index later than it chose the entries, by as
// long as it pauses after failures, and the follower takes the lesser of it and
// its own last entry: an old leader that comes back with entries that the others
// have replaced would apply those.
func vouch(req *raft.AppendEntriesRequest) {
	if last := req.PrevLogEntry + uint64(len(req.Entries)); last > 0 {
		req.LeaderCommitIndex = min(req.LeaderCommitIndex, last)
	}
}
