package node

import (
	"context"
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

// drainOrder has a node drain, or serve again.
type drainOrder struct {
	Off     bool `json:"off,omitempty"`
	Rate    int  `json:"rate,omitempty"`
	Timeout int  `json:"timeout_s,omitempty"`
}

// serveDrain begins a drain and does not wait for it. A node that is drained already
// goes on with that.
func (n *Node) serveDrain(_ context.Context, _ string, r drainOrder) (none, error) {
	if r.Off {
		n.undrain()
		return none{}, nil
	}
	if away := n.away.first(); away != nil {
		n.wg.Go(func() {
			n.retreat(n.ctx, away, departure{timeout: time.Duration(r.Timeout) * time.Second, rate: r.Rate})
		})
	}
	return none{}, nil
}

// PlanDrain implements admin.Observer.
func (b backend) PlanDrain(ctx context.Context, node string) (admin.DrainPlan, error) {
	n := b.n
	if n.member(node) == nil {
		return admin.DrainPlan{}, adminError(errNoMember(node))
	}
	status, told := n.survey(ctx)
	return planDrain(status, told, node, n.cfg.Drain.Timeout), nil
}

func planDrain(s admin.Status, told []nodeStatus, node string, timeout time.Duration) admin.DrainPlan {
	p := admin.DrainPlan{Node: node, Leads: s.Leader == node, Others: []admin.ClientsOf{}, Timeout: int(timeout.Seconds()), Warnings: []string{}}
	warn := func(format string, args ...any) { p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...)) }
	heirs := 0
	for i, m := range s.Members {
		switch {
		case m.Node == node:
			p.Draining, p.Clients = told[i].Draining, m.Clients
			if !m.Up {
				warn("Node %s does not answer: it cannot be drained.", node)
			}
		case m.Up && told[i].Ready:
			p.Others = append(p.Others, admin.ClientsOf{Node: m.Node, Clients: m.Clients})
			if m.Votes() {
				heirs++
			}
		}
	}
	switch {
	case len(p.Others) == 0:
		warn("No other node is ready: the clients have nowhere to go.")
	case p.Leads && heirs == 0:
		warn("No other voter is ready: %s will lead on.", node)
	case len(p.Others) == 1:
		warn("Only %s is left to serve: if it fails, nobody does.", p.Others[0].Node)
	}
	return p
}

// BeginDrain implements admin.Observer.
func (b backend) BeginDrain(ctx context.Context, node string, how admin.DrainHow) (admin.DrainPlan, error) {
	return b.orderDrain(ctx, node, drainOrder{Rate: how.Rate, Timeout: how.Timeout})
}

// EndDrain implements admin.Observer.
func (b backend) EndDrain(ctx context.Context, node string) (admin.DrainPlan, error) {
	return b.orderDrain(ctx, node, drainOrder{Off: true})
}

func (b backend) orderDrain(ctx context.Context, node string, order drainOrder) (admin.DrainPlan, error) {
	if b.n.member(node) == nil {
		return admin.DrainPlan{}, adminError(errNoMember(node))
	}
	if _, err := askOne(ctx, b.n, node, pathDrain, order, b.n.serveDrain); err != nil {
		return admin.DrainPlan{}, peerError(node, err)
	}
	return b.PlanDrain(ctx, node)
}

// peerError says that a member did not do what it was asked.
func peerError(node string, err error) error {
	if err = adminError(err); asAdmin(err) {
		return err
	}
	return &admin.Error{Kind: admin.Unavailable, Msg: fmt.Sprintf("node %s does not answer (%v): see whether it runs, and try again", node, err)}
}
