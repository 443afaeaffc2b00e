package node

import (
	"sync"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// renewals are the users whose hash is being replaced: however many clients of one
// user log in at once, one replacement is proposed, and none where the log has one.
type renewals struct {
	mu    sync.Mutex
	users map[string]bool
}

// renewHash implements auth.Renew: hashes that came from another broker become
// the cluster's own at the next login. What is proposed is void where another node
// was first, and ends no connection.
func (n *Node) renewHash(user, old string) func(hash string) {
	u, ok := n.store.Policy().User(user)
	if !ok || u.Hash != old || n.everyoneAt(fsm.LevelImport, "") != nil {
		return nil
	}
	if !n.renewals.begin(user) {
		return nil
	}
	return func(hash string) {
		n.putRenewed(&logpb.UserPut{Name: user, Hash: &hash, Replaces: old, Update: true})
	}
}

// begin tells whether the user's hash may be replaced now; end has to follow.
func (r *renewals) begin(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users[user] {
		return false
	}
	if r.users == nil {
		r.users = map[string]bool{}
	}
	r.users[user] = true
	return true
}

func (r *renewals) end(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.users, user)
}

// putRenewed proposes what begin allowed, without waiting for it.
func (n *Node) putRenewed(put *logpb.UserPut) {
	n.wg.Go(func() {
		// A failure leaves what was there, and the next login tries again.
		if err := n.propose(n.ctx, &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: put}}); err != nil {
			n.log.Debug("a password was not hashed anew; tried again at the next login", "err", err)
		}
		n.renewals.end(put.Name)
	})
}
