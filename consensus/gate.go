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
	// gateAbsent is how long an append waits for a follower that does not answer.
	gateAbsent = 30 * time.Second
)

// gatedTransport makes a short CommitTimeout affordable. Raft repeats an empty
// append every CommitTimeout whether or not the follower could learn anything
// from it. Those that tell nothing new are held back here until an entry comes,
// or for gateHold; then they are sent, so that raft never takes for contact what
// was none.
//
// It also keeps raft from counting failures of a follower that is down: raft
// waits twice as long after each, up to 10 s, so that one that comes back after
// a minute would hear nothing for that long. Heartbeats, whose pause is short,
// tell that it is back; appends wait for them.
type gatedTransport struct {
	*raft.NetworkTransport
	ctx context.Context

	mu      sync.Mutex
	woken   chan struct{} // closed when an entry comes
	storing int
	stored  time.Time // when entries were last stored
	peers   map[raft.ServerID]told
	absent  map[raft.ServerID]chan struct{} // closed when a heartbeat arrives again
}

// told is what a follower has confirmed.
type told struct{ term, commit uint64 }

func newGatedTransport(ctx context.Context, t *raft.NetworkTransport) *gatedTransport {
	return &gatedTransport{NetworkTransport: t, ctx: ctx, woken: make(chan struct{}), peers: map[raft.ServerID]told{},
		absent: map[raft.ServerID]chan struct{}{}}
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
	heartbeat := req.PrevLogEntry == 0 && len(req.Entries) == 0
	if back := t.gone(id); back != nil && !heartbeat {
		t.hold(back, gateAbsent)
	} else if woken, idle := t.idle(id, req); idle {
		t.hold(woken, gateHold)
	}
	err := t.NetworkTransport.AppendEntries(id, target, req, resp)
	if heartbeat || err != nil {
		t.answered(id, heartbeat, err == nil)
	}
	if err != nil {
		return err
	}
	if resp.Success && req.PrevLogEntry > 0 {
		t.note(id, req)
	}
	return nil
}

// hold waits until c is closed, but no longer than limit.
func (t *gatedTransport) hold(c <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-t.ctx.Done():
	}
}

// gone returns what is closed when the follower answers again, nil if it does.
func (t *gatedTransport) gone(id raft.ServerID) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.absent[id]
}

// answered notes whether a follower did. An append that fails makes it absent,
// a heartbeat that arrives ends that.
func (t *gatedTransport) answered(id raft.ServerID, heartbeat, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch back := t.absent[id]; {
	case ok && back != nil:
		close(back)
		delete(t.absent, id)
	case !ok && !heartbeat && back == nil:
		t.absent[id] = make(chan struct{})
	}
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

func (t *gatedTransport) note(id raft.ServerID, req *raft.AppendEntriesRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers[id] = told{term: req.Term, commit: req.LeaderCommitIndex}
}
