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
	r := &n.renewals
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users[user] {
		return nil
	}
	if r.users == nil {
		r.users = map[string]bool{}
	}
	r.users[user] = true
	return func(hash string) {
		item := &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: user, Hash: &hash, Replaces: old, Update: true}}}
		n.wg.Go(func() {
			// A failure leaves the old hash, and the next login tries again.
			if err := n.propose(n.ctx, item); err != nil {
				n.log.Debug("a password was not hashed anew; tried again at the next login", "err", err)
			}
			r.mu.Lock()
			delete(r.users, user)
			r.mu.Unlock()
		})
	}
}
