package consensus

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// fakeFSM applies packs by the rules of package fsm and keeps what it applied.
type fakeFSM struct {
	node    string
	observe func(fsm.Event)
	discard atomic.Bool  // items are applied and not kept, for benchmarks
	stall   sync.RWMutex // held by a test that stops apply

	mu sync.Mutex
	fakeState
	events []fsm.Event
}

type fakeState struct {
	Applied uint64
	LogTime int64
	Nodes   map[string]*logpb.Member
	Items   []string // client and payload of what was applied, in order
	Ticks   int
}

func newFakeFSM(node string) *fakeFSM {
	return &fakeFSM{node: node, fakeState: fakeState{Nodes: map[string]*logpb.Member{}}}
}

func (f *fakeFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *fakeFSM) ApplyBatch(logs []*raft.Log) []any {
	f.stall.RLock()
	defer f.stall.RUnlock()
	f.mu.Lock()
	for _, l := range logs {
		if l.Index <= f.Applied {
			continue
		}
		if l.Type == raft.LogCommand {
			f.entry(l.Index, l.Data)
		}
		f.Applied = l.Index
	}
	events := f.events
	f.events = nil
	f.mu.Unlock()
	for _, e := range events {
		f.observe(e)
	}
	return make([]any, len(logs))
}

func (f *fakeFSM) entry(index uint64, data []byte) {
	var e logpb.Entry
	if err := proto.Unmarshal(data, &e); err != nil {
		panic(err)
	}
	f.LogTime = max(f.LogTime, e.Stamp)
	switch c := e.Command.(type) {
	case *logpb.Entry_Pack:
		f.pack(index, c.Pack)
	case *logpb.Entry_Tick:
		f.Ticks++
	case *logpb.Entry_NodeUp:
		up := c.NodeUp
		if m := f.Nodes[up.Node]; m != nil && m.Incarnation != 0 && m.Nonce == up.Nonce {
			return
		}
		f.down(up.Node)
		inc := session.At(index, 0)
		f.Nodes[up.Node] = &logpb.Member{Node: up.Node, Store: up.Store, Nonce: up.Nonce, Incarnation: uint64(inc), NextPack: 1}
		f.tell(up.Node, fsm.Event{Kind: fsm.EventNode, Pos: inc})
	case *logpb.Entry_NodeDown:
		if m := f.Nodes[c.NodeDown.Node]; m != nil && m.Incarnation == c.NodeDown.Incarnation {
			f.down(c.NodeDown.Node)
		}
	}
}

func (f *fakeFSM) down(node string) {
	if m := f.Nodes[node]; m != nil && m.Incarnation != 0 {
		m = proto.CloneOf(m)
		m.Incarnation = 0
		f.Nodes[node] = m
		f.tell(node, fsm.Event{Kind: fsm.EventNode})
	}
}

func (f *fakeFSM) tell(node string, e fsm.Event) {
	if node == f.node {
		f.events = append(f.events, e)
	}
}

func (f *fakeFSM) pack(index uint64, p *logpb.Pack) {
	m := f.Nodes[p.Node]
	if m == nil || m.Incarnation == 0 || m.Incarnation != p.Incarnation || p.Number < m.NextPack {
		return
	}
	if p.Number > m.NextPack {
		f.tell(p.Node, fsm.Event{Kind: fsm.EventPackGap, Number: m.NextPack})
		return
	}
	m = proto.CloneOf(m)
	m.NextPack++
	f.Nodes[p.Node] = m
	for i, it := range p.Items {
		pub := it.GetPublish()
		if !f.discard.Load() {
			f.Items = append(f.Items, fmt.Sprintf("%s %s", pub.Client, pub.Payload))
		}
		f.tell(p.Node, fsm.Event{
			Kind: fsm.EventResult, Number: p.Number, Item: i,
			Result: fsm.Result{Pos: session.At(index, i)},
		})
	}
}

// moment is a state with its index.
type moment struct {
	index uint64
	items []string
}

func (f *fakeFSM) moment() moment {
	f.mu.Lock()
	defer f.mu.Unlock()
	return moment{f.Applied, slices.Clone(f.Items)}
}

func (f *fakeFSM) AppliedIndex() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Applied
}

func (f *fakeFSM) Stamp() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.LogTime
}

func (f *fakeFSM) Members() []*logpb.Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*logpb.Member
	for _, m := range f.Nodes {
		out = append(out, m)
	}
	return out
}

func (f *fakeFSM) items() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.Items)
}

func (f *fakeFSM) ticks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Ticks
}

func (f *fakeFSM) incarnation(node string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.Nodes[node]; m != nil {
		return m.Incarnation
	}
	return 0
}

func (f *fakeFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := json.Marshal(f.fakeState)
	return fakeSnapshot(b), err
}

func (f *fakeFSM) Restore(r io.ReadCloser) error {
	var st fakeState
	if err := json.NewDecoder(r).Decode(&st); err != nil {
		return err
	}
	f.mu.Lock()
	f.fakeState = st
	f.mu.Unlock()
	f.observe(fsm.Event{Kind: fsm.EventRestored})
	return nil
}

type fakeSnapshot []byte

func (s fakeSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return err
	}
	return sink.Close()
}

func (s fakeSnapshot) Release() {}
