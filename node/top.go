package node

import (
	"cmp"
	"context"
	"net/http"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

const pathTop = "/v1/top"

// topIdle is after how long without a look the counting of clients and topics ends.
const topIdle = 15 * time.Second

// topNames is how many clients and topics a node tells of.
const topNames = 1000

// topping ends the counting when nobody looks any more.
type topping struct {
	mu   sync.Mutex
	stop *time.Timer
}

// Top implements admin.Topper.
func (b backend) Top(ctx context.Context) (admin.Top, error) {
	n := b.n
	leader, _ := n.consensus.Leader()
	members := n.store.Members()
	out := admin.Top{Nodes: make([]admin.TopNode, len(members))}
	var all sync.WaitGroup
	for i, m := range members {
		all.Go(func() {
			t := &out.Nodes[i]
			asked, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			if err := callMember(asked, n, m.Node, pathTop, none{}, t, n.top); err != nil {
				t.Error = err.Error()
			}
			t.Node, t.Role = m.Node, admin.RoleNonVoter
			switch {
			case m.Node == leader:
				t.Role = admin.RoleLeader
			case m.Voter:
				t.Role = admin.RoleVoter
			}
		})
	}
	all.Wait()
	return out, nil
}

func (n *Node) top(context.Context, none) (admin.TopNode, error) {
	n.broker.Count(true)
	n.topping.mu.Lock()
	if n.topping.stop == nil {
		n.topping.stop = time.AfterFunc(topIdle, func() { n.broker.Count(false) })
	} else {
		n.topping.stop.Reset(topIdle)
	}
	n.topping.mu.Unlock()
	st := n.broker.Stats()
	clients, topics := n.broker.Counted()
	return admin.TopNode{
		At: time.Now(), Started: n.started, Clients: int(st.Connected), Applied: n.store.AppliedIndex(), Memory: memoryInUse(),
		In: sum(st.MessagesIn), Out: sum(st.MessagesOut), Dropped: st.Dropped,
		ByClient: busiest(clients), ByTopic: busiest(topics),
	}, nil
}

func busiest(of map[string]int64) map[string]int64 {
	if len(of) <= topNames {
		return of
	}
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(of[b], of[a]) })
	out := map[string]int64{}
	for _, name := range names[:topNames] {
		out[name] = of[name]
	}
	return out
}

// memoryInUse is what the process holds of the machine's memory, by the runtime.
func memoryInUse() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// serveTop registers the call.
func (n *Node) serveTop(control *http.ServeMux) {
	serve(control, pathTop, func(ctx context.Context, _ string, r none) (admin.TopNode, error) { return n.top(ctx, r) })
}
