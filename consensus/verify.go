package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// contacts notes when each follower last confirmed this node's term: the moment
// before the request was sent whose answer did it.
//
// Raft's VerifyLeader counts any answer that arrives after the call, one to a
// heartbeat sent long before included. A leader that was stopped, or whose
// connections hung, finds such answers when it goes on, while a later leader may
// rule for as long. Here an answer counts for the time before its request.
type contacts struct {
	now func() time.Duration

	cmu     sync.Mutex
	last    map[raft.ServerID]contact
	renewed chan struct{} // closed when last changes; nil: nobody waits
}

type contact struct {
	term  uint64
	began time.Duration
}

func newContacts(now func() time.Duration) *contacts {
	return &contacts{now: now, last: map[raft.ServerID]contact{}}
}

// note takes the answer to a request whose sending began at began. A follower that
// refuses entries for its log's sake follows all the same, but is not counted: it
// is enough that the next heartbeat is.
func (c *contacts) note(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, began time.Duration) {
	if !resp.Success || resp.Term > req.Term {
		return
	}
	c.cmu.Lock()
	defer c.cmu.Unlock()
	if last := c.last[id]; last.term > req.Term || (last.term == req.Term && last.began >= began) {
		return
	}
	c.last[id] = contact{req.Term, began}
	if c.renewed != nil {
		close(c.renewed)
		c.renewed = nil
	}
}

// since tells whether a server confirmed the term with a request that was sent at
// or after t.
func (c *contacts) since(id raft.ServerID, term uint64, t time.Duration) bool {
	c.cmu.Lock()
	defer c.cmu.Unlock()
	last, ok := c.last[id]
	return ok && last.term == term && last.began >= t
}

// changed returns what is closed with the next contact.
func (c *contacts) changed() <-chan struct{} {
	c.cmu.Lock()
	defer c.cmu.Unlock()
	if c.renewed == nil {
		c.renewed = make(chan struct{})
	}
	return c.renewed
}

// verifyRetry is how often a round asks raft for another heartbeat: the first may
// have been on its way already.
const verifyRetry = 100 * time.Millisecond

// confirm returns nil when a majority of the voters has confirmed the term by
// answers to requests that were sent after the call began. Then no later leader had
// been elected when it began.
func (c *Consensus) confirm(ctx context.Context, lead *leading) error {
	began := c.now()
	for {
		changed := c.trans.changed()
		if c.confirmed(lead.term, began) {
			return nil
		}
		// It sends a heartbeat to everybody, and knows sooner than we that this node
		// has stepped down.
		if err := leaderError(c.raft.VerifyLeader().Error()); err != nil {
			return err
		}
		if c.confirmed(lead.term, began) {
			return nil
		}
		retry := time.NewTimer(verifyRetry)
		select {
		case <-changed:
		case <-retry.C:
		case <-lead.ctx.Done():
			retry.Stop()
			return ErrNotLeader
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		}
		retry.Stop()
	}
}

func (c *Consensus) confirmed(term uint64, since time.Duration) bool {
	voters, have := 0, 0
	for _, s := range c.Servers() {
		if !s.Voter {
			continue
		}
		voters++
		if (s.Node == c.cfg.Node && s.Store == c.cfg.Store) || c.trans.since(serverID(s.Node, s.Store), term, since) {
			have++
		}
	}
	return have > voters/2
}

// InContact tells whether a member of the group answered this node, the leader,
// within the last d.
func (c *Consensus) InContact(node, store string, d time.Duration) bool {
	lead := c.lead.Load()
	if lead == nil {
		return false
	}
	return node == c.cfg.Node || c.trans.since(serverID(node, store), lead.term, c.now()-d)
}
