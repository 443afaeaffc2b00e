package node

import (
	"context"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/auth"
)

// recallPage is how many verified passwords one answer has: about 2 MB.
const recallPage = 10_000

// recallPause lies between the first two rounds in which no peer answered; it doubles
// up to recallGrace, because peers may be down for long.
const recallPause = 20 * time.Millisecond

// recall asks the peers which passwords were verified, when this process has the key
// that they are remembered under, until one answers. A balancer sends a node that
// comes back the next clients that connect, all of them, and each would cost a hash
// else, 30 ms of a core.
func (n *Node) recall() {
	defer n.remembers.Store(true)
	for pause := recallPause; !n.recallOnce(); pause = min(2*pause, recallGrace) {
		select {
		case <-n.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// recallOnce asks every peer and tells whether any has answered, or there is none. A
// node that was killed does not know who they are before it has read its log again.
func (n *Node) recallOnce() bool {
	peers, answers := 0, 0
	for peer := range n.book.members() {
		if peer == n.cfg.Node.ID {
			continue
		}
		peers++
		if err := n.recallFrom(n.ctx, peer); err != nil {
			n.log.Debug("a peer did not tell of verified passwords", "member", peer, "err", err)
			continue
		}
		answers++
	}
	if answers > 0 {
		n.log.Info("peers told which passwords are verified", "users", n.memory.Len())
	}
	// Before it has read its log, the founder of a cluster believes that it is alone.
	return answers > 0 || peers == 0 && n.leased()
}

// recallGrace bounds how long a node with a lease waits for what its peers remember
// before it accepts clients.
const recallGrace = time.Second

// leased tells whether the node has a lease and its own incarnation is in the log.
func (n *Node) leased() bool { return n.consensus.Leased() && n.consensus.Incarnation() != 0 }

// recallSettled tells whether clients need not wait for recall any more. It is asked
// when the node is leased.
func (n *Node) recallSettled() bool {
	now := time.Now()
	n.leasedAt.CompareAndSwap(nil, &now)
	return n.remembers.Load() || time.Since(*n.leasedAt.Load()) > recallGrace
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
			return nil
		}
	}
}

func (n *Node) serveRecall(_ context.Context, _ string, r remembered) ([]auth.Entry, error) {
	all := n.memory.Export()
	all = all[min(max(r.After, 0), len(all)):]
	return all[:min(recallPage, len(all))], nil
}

// askSecretsTime bounds how long a new leader asks one peer for the secrets.
const askSecretsTime = 500 * time.Millisecond

// askSecrets has a leader that was just started take over the secrets that its peers
// hold: with new ones nobody would know a verified password or a TLS ticket any more.
func (n *Node) askSecrets() {
	for peer := range n.book.members() {
		if peer == n.cfg.Node.ID {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, askSecretsTime)
		var blob []byte
		err := n.call(ctx, peer, pathSecrets, none{}, &blob)
		cancel()
		if err == nil && len(blob) > 0 {
			n.secrets.receive(blob)
			return
		}
	}
}

func (n *Node) serveSecrets(context.Context, string, none) ([]byte, error) {
	return n.secrets.blob(), nil
}
