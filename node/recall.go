package node

import (
	"context"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/auth"
)

// recallMost bounds an answer to recall, about 10 MB.
const recallMost = 50_000

// recall asks the peers which passwords were verified, when this process has the key
// that they are remembered under, until one answers. A node that was restarted would
// verify each client's anew else, 30 ms of a core for each.
func (n *Node) recall() {
	tick := time.NewTicker(recallPause)
	defer tick.Stop()
	for !n.recallOnce() {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// recallPause lies between two rounds in which no peer answered.
const recallPause = 200 * time.Millisecond

// recallOnce asks every peer and tells whether any has answered, or there is none. A
// node that was killed does not know who they are before it has read its log again.
func (n *Node) recallOnce() bool {
	peers, answers := 0, 0
	for peer := range n.book.members() {
		if peer == n.cfg.Node.ID {
			continue
		}
		peers++
		var all []auth.Entry
		if err := n.call(n.ctx, peer, pathRecall, none{}, &all); err != nil {
			n.log.Debug("a peer did not tell of verified passwords", "member", peer, "err", err)
			continue
		}
		answers++
		n.memory.Merge(slices.Values(all))
	}
	if answers > 0 {
		n.log.Info("peers told which passwords are verified", "users", n.memory.Len())
	}
	return answers > 0 || peers == 0 && health{n}.Ready().CaughtUp
}

func (n *Node) serveRecall(context.Context, string, none) ([]auth.Entry, error) {
	all := n.memory.Export()
	return all[:min(len(all), recallMost)], nil
}
