package node

import (
	"context"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/auth"
)

// recallFor is how long a node that has started asks a peer that does not answer.
const recallFor = time.Minute

// recallPage is how many verified passwords one answer has: about 2 MB.
const recallPage = 10_000

// recalling is what is left to ask for. It belongs to the chore alone.
type recalling struct {
	since time.Time // zero: it cannot ask yet
	asked map[string]bool
	over  bool
}

// recall asks the peers, once after the start, which passwords they verified before.
// A balancer sends a node that comes back the next clients that connect, all of
// them: without it each would cost a hash.
func (n *Node) recall(ctx context.Context) {
	r := &n.recalling
	// What the peers know counts under a key that comes with the first lease, and who
	// they are the state says once this node has caught up: the first node of a
	// cluster was alone at the start of its log.
	if r.over || n.secrets.blob() == nil || !n.admitting.Load() {
		return
	}
	if r.since.IsZero() {
		r.since, r.asked = time.Now(), map[string]bool{}
	}
	left := 0
	for peer := range n.book.members() {
		if peer == n.cfg.Node.ID || r.asked[peer] {
			continue
		}
		if err := n.recallFrom(ctx, peer); err != nil {
			n.log.Debug("a peer did not tell which passwords it verified; tried again", "member", peer, "err", err)
			left++
			continue
		}
		r.asked[peer] = true
	}
	r.over = left == 0 || time.Since(r.since) > recallFor
}

// remembered asks for entries behind so many.
type remembered struct {
	After int `json:"after"`
}

// recallFrom learns all that one peer remembers. Entries that move in its order of
// use between two pages may be missed; they cost a hash each.
func (n *Node) recallFrom(ctx context.Context, peer string) error {
	for after := 0; ; after += recallPage {
		var page []auth.Entry
		if err := n.call(ctx, peer, pathRecall, remembered{after}, &page); err != nil {
			return err
		}
		n.memory.Merge(slices.Values(page))
		if len(page) < recallPage {
			n.log.Info("a peer told which passwords it verified", "member", peer, "passwords", after+len(page), "known", n.memory.Len())
			return nil
		}
	}
}

func (n *Node) serveRecall(_ context.Context, _ string, r remembered) ([]auth.Entry, error) {
	all := n.memory.Export()
	all = all[min(max(r.After, 0), len(all)):]
	return all[:min(recallPage, len(all))], nil
}
