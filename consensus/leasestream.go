package consensus

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"time"
)

// AcceptLease serves a peer's lease stream. It returns when the stream ends,
// which it does when this node does not lead, and closes conn.
func (c *Consensus) AcceptLease(peer string, conn net.Conn) {
	c.serve(peer, conn, func(lead *leading) error {
		g := c.granter
		poke := make(chan struct{}, 1)
		answers := make(chan leaseAnswer)
		ended, gone := make(chan struct{}), make(chan struct{})
		defer close(ended)
		g.mu.Lock()
		g.pokes[poke] = struct{}{}
		g.mu.Unlock()
		defer func() {
			g.mu.Lock()
			delete(g.pokes, poke)
			g.mu.Unlock()
		}()
		c.wg.Go(func() {
			defer close(gone)
			for {
				var a leaseAnswer
				select {
				case <-ended:
					return
				case a = <-answers:
				case <-poke:
					g.mu.Lock()
					a.Want = g.want
					g.mu.Unlock()
				}
				if err := writeJSON(conn, a); err != nil {
					_ = conn.Close()
					return
				}
			}
		})
		rd := bufio.NewReader(conn)
		for {
			var r leaseRequest
			if err := readJSON(conn, rd, &r); err != nil {
				return err
			}
			select {
			case answers <- g.answer(lead.ctx, lead, peer, r):
			case <-gone:
				return nil
			}
		}
	})
}

// WaitApplied waits until every node that holds a lease has applied index, or
// for ctx, and names those that have not. A node that loses its lease meanwhile
// is not waited for: it serves nobody. Leader only.
func (c *Consensus) WaitApplied(ctx context.Context, index uint64) (missing []string, err error) {
	g := c.granter
	lead := c.lead.Load()
	if lead == nil {
		return nil, ErrNotLeader
	}
	g.mu.Lock()
	g.want = max(g.want, index)
	g.mu.Unlock()
	g.pokeAll()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		g.mu.Lock()
		changed := g.changed
		g.mu.Unlock()
		if missing = g.behind(index); len(missing) == 0 {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return missing, fmt.Errorf("wait for %d nodes: %w", len(missing), ctx.Err())
		case <-lead.ctx.Done():
			return missing, ErrNotLeader
		case <-changed:
		case <-tick.C:
		}
	}
}

// behind names the leaseholders that have not told that they applied index.
func (g *granter) behind(index uint64) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sync()
	now := g.c.now()
	var out []string
	for node, h := range g.holders {
		switch {
		case now-h.renewed > g.c.cfg.Lease+g.c.cfg.Margin:
		case node == g.c.cfg.Node:
			if g.c.deps.State.AppliedIndex() < index {
				out = append(out, node)
			}
		case h.applied < index:
			out = append(out, node)
		}
	}
	slices.Sort(out)
	return out
}
