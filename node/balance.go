package node

import (
	"context"
	"errors"
	"sync"

	"github.com/mqcluster/mqcluster/admin"
)

// shedRequest asks a node to send that many clients away.
type shedRequest struct {
	Clients int `json:"clients"`
}

type shedAnswer struct {
	Sent int `json:"sent"`
}

// shedMost is how many clients one call sends away, well within controlTimeout.
const shedMost = 500

func (n *Node) serveShed(ctx context.Context, _ string, r shedRequest) (shedAnswer, error) {
	sent := n.broker.Shed(ctx, min(r.Clients, shedMost))
	n.log.Info("clients were sent to other nodes", "clients", sent)
	return shedAnswer{sent}, nil
}

// share is how many clients each of the nodes that are not out should have at
// most.
func share(nodes []admin.Share) int {
	clients, in := 0, 0
	for _, s := range nodes {
		if !s.Out {
			clients += s.Clients
			in++
		}
	}
	if in == 0 {
		return 0
	}
	return (clients + in - 1) / in
}

// Balance implements admin.Balance. The shares are those of its beginning: who was
// sent away is connected to nobody for a moment.
func (b backend) Balance(ctx context.Context) ([]admin.Share, error) {
	n := b.n
	members := n.store.Members()
	out := make([]admin.Share, len(members))
	each := func(do func(*admin.Share)) {
		var wg sync.WaitGroup
		for i := range out {
			wg.Go(func() { do(&out[i]) })
		}
		wg.Wait()
	}
	for i, m := range members {
		out[i].Node = m.Node
	}
	each(func(s *admin.Share) {
		st, err := n.ask(ctx, s.Node)
		s.Clients, s.Out = st.Clients, err != nil || !st.Ready
	})
	most := share(out)
	errs := make(chan error, len(out))
	each(func(s *admin.Share) {
		if !s.Out {
			s.Share = most
			errs <- n.shed(ctx, s)
		}
	})
	close(errs)
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return out, adminError(failed)
}

// ask asks a member, or this node, how it is.
func (n *Node) ask(ctx context.Context, member string) (s nodeStatus, err error) {
	if member == n.cfg.Node.ID {
		return n.self(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return s, n.call(ctx, member, pathNode, none{}, &s)
}

// shed has a member send away what it has beyond its share, in as many calls as
// that takes.
func (n *Node) shed(ctx context.Context, s *admin.Share) error {
	for s.Clients-s.Sent > s.Share && ctx.Err() == nil {
		request, answer := shedRequest{s.Clients - s.Sent - s.Share}, shedAnswer{}
		var err error
		if s.Node == n.cfg.Node.ID {
			answer, err = n.serveShed(ctx, "", request)
		} else {
			err = n.call(ctx, s.Node, pathShed, request, &answer)
		}
		if err != nil {
			return err
		}
		if answer.Sent == 0 {
			return nil // they have gone by themselves
		}
		s.Sent += answer.Sent
	}
	return nil
}
