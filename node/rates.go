package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

// What a node remembers of what it did: ten minutes.
const (
	rateStep    = 2 * time.Second
	ratesKept   = 300
	membersTime = 2 * time.Second
)

// rates are the last samples of the counters.
type rates struct {
	mu      sync.Mutex
	last    admin.Counters
	samples []rateSample // oldest first
}

type rateSample struct {
	at time.Time
	admin.Sample
}

// counters are what the node has counted since its start.
func (n *Node) counters() admin.Counters {
	st := n.broker.Stats()
	return admin.Counters{
		In: sum(st.MessagesIn), Out: sum(st.MessagesOut), BytesIn: st.BytesIn, BytesOut: st.BytesOut,
		Dropped: st.Dropped + n.queues.total.Load(), Connects: st.Connects, Refused: st.Refused,
		Connected: st.Connected, Subscriptions: st.Subscriptions,
	}
}

// sampleRates is a chore.
func (n *Node) sampleRates(context.Context) {
	now, c := time.Now(), n.counters()
	r := &n.rates
	r.mu.Lock()
	defer r.mu.Unlock()
	s := rateSample{at: now, Sample: admin.Sample{
		In: c.In - r.last.In, Out: c.Out - r.last.Out, BytesIn: c.BytesIn - r.last.BytesIn, BytesOut: c.BytesOut - r.last.BytesOut,
		Dropped: c.Dropped - r.last.Dropped, Connected: c.Connected,
	}}
	r.last = c
	if len(r.samples) >= ratesKept {
		r.samples = slices.Delete(r.samples, 0, 1)
	}
	r.samples = append(r.samples, s)
}

// told are the samples with their ages.
func (r *rates) told(now time.Time) []admin.Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]admin.Sample, len(r.samples))
	for i, s := range r.samples {
		out[i] = s.Sample
		out[i].Age = now.Sub(s.at).Milliseconds()
	}
	return out
}

func (n *Node) serveRates(context.Context, string, none) ([]admin.Sample, error) {
	return n.rates.told(time.Now()), nil
}

// History implements admin.Observer. A member that does not answer is left out.
func (b backend) History(ctx context.Context) (admin.History, error) {
	answers := askAll(ctx, b.n, pathRates, none{}, b.n.serveRates)
	h := admin.History{Step: rateStep.Milliseconds(), Nodes: []admin.NodeHistory{}}
	for _, a := range answers {
		if a.err == nil {
			h.Nodes = append(h.Nodes, admin.NodeHistory{Node: a.node, Samples: a.out})
		}
	}
	return h, nil
}

// answered is what a member answered.
type answered[Out any] struct {
	node string
	out  Out
	err  error
}

// askAll asks every member the same, this node among them, each for two seconds at
// most. The answers are by node id.
func askAll[In, Out any](ctx context.Context, n *Node, path string, in In, own func(context.Context, string, In) (Out, error)) []answered[Out] {
	members := n.store.Members()
	out := make([]answered[Out], len(members))
	ctx, cancel := context.WithTimeout(ctx, membersTime)
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range members {
		a := &out[i]
		a.node = m.Node
		if m.Node == n.cfg.Node.ID {
			a.out, a.err = own(ctx, "", in)
			continue
		}
		wg.Go(func() { a.err = n.call(ctx, a.node, path, in, &a.out) })
	}
	wg.Wait()
	return out
}

// askOne asks a member that is up, or this node.
func askOne[In, Out any](ctx context.Context, n *Node, member, path string, in In, own func(context.Context, string, In) (Out, error)) (out Out, err error) {
	err = callMember(ctx, n, member, path, in, &out, func(ctx context.Context, in In) (Out, error) { return own(ctx, "", in) })
	return out, err
}
