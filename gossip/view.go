package gossip

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Peer is what gossip knows of another node.
type Peer struct {
	Node   string
	Alive  bool
	Digest Digest
}

// view is what is known, and the difference to what was told. memberlist calls
// its delegates with its lock held; so here is only written down, and another
// goroutine tells.
type view struct {
	node    string
	deps    Deps
	metrics *metrics
	news    chan struct{} // capacity 1

	mu    sync.Mutex
	nodes map[string]*entry
}

type entry struct {
	Peer
	told Peer
	// dirty: there is something to tell.
	dirty bool
}

func newView(node string, deps Deps, met *metrics) *view {
	return &view{
		node: node, deps: deps, metrics: met,
		news: make(chan struct{}, 1), nodes: map[string]*entry{},
	}
}

// note writes down the state of a node.
func (v *view) note(n *memberlist.Node, alive bool) {
	if n.Name == v.node {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.nodes[n.Name]
	if e == nil {
		e = &entry{Peer: Peer{Node: n.Name}, told: Peer{Node: n.Name}}
		v.nodes[n.Name] = e
	}
	e.Alive = alive
	if alive {
		if d, err := decodeDigest(n.Meta); err == nil {
			e.Digest = d
		}
	}
	e.dirty = true
	v.count()
	select {
	case v.news <- struct{}{}:
	default:
	}
}

func (v *view) count() {
	n := 0
	for _, e := range v.nodes {
		if e.Alive {
			n++
		}
	}
	v.metrics.alive.Set(float64(n))
}

// run tells the node what has changed.
func (v *view) run(ctx context.Context) {
	for {
		select {
		case <-v.news:
		case <-ctx.Done():
			return
		}
		for _, ch := range v.changes() {
			if ctx.Err() != nil {
				return
			}
			if ch.now.Alive != ch.before.Alive && v.deps.OnChange != nil {
				v.deps.OnChange(Event{Node: ch.now.Node, Alive: ch.now.Alive})
			}
			if ch.now.Alive && ch.now.Digest != ch.before.Digest && v.deps.OnDigest != nil {
				v.deps.OnDigest(ch.now.Node, ch.now.Digest)
			}
		}
	}
}

type difference struct{ before, now Peer }

func (v *view) changes() []difference {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []difference
	for _, e := range v.nodes {
		if e.dirty {
			out = append(out, difference{e.told, e.Peer})
			e.told, e.dirty = e.Peer, false
		}
	}
	slices.SortFunc(out, func(a, b difference) int { return cmp.Compare(a.now.Node, b.now.Node) })
	return out
}

func (v *view) alive(node string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.nodes[node]
	return e != nil && e.Alive
}

// keep forgets dead nodes that are no members.
func (v *view) keep(members map[string]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, e := range v.nodes {
		if _, ok := members[id]; !ok && !e.Alive && !e.dirty {
			delete(v.nodes, id)
		}
	}
}

func (v *view) peers() []Peer {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]Peer, 0, len(v.nodes))
	for _, e := range v.nodes {
		out = append(out, e.Peer)
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// events is the view as memberlist wants it.
type events struct{ v *view }

var _ memberlist.EventDelegate = events{}

func (e events) NotifyJoin(n *memberlist.Node)   { e.v.note(n, true) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.v.note(n, true) }
func (e events) NotifyLeave(n *memberlist.Node)  { e.v.note(n, false) }
