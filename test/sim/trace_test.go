package sim

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// trace is what the nodes have applied, by index. All of them must apply the
// same: any difference is the worst of all faults.
type trace struct {
	mu      sync.Mutex
	entries map[uint64]applied
}

// applied is an entry, and the first node that applied it.
type applied struct {
	by   string
	kind raft.LogType
	term uint64
	data []byte
}

// nothing stands for an entry that the state does not see: a leader's first of
// its term, or a barrier.
const nothing = raft.LogNoop

func newTrace() *trace { return &trace{entries: map[uint64]applied{}} }

// record notes that a node applies logs after those up to last, and returns what
// is wrong with that. last is 0 where that is not known.
func (t *trace) record(node string, last uint64, logs []*raft.Log) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range logs {
		if last != 0 {
			for i := last + 1; i < l.Index; i++ {
				if err := t.one(i, applied{by: node, kind: nothing}); err != nil {
					return err
				}
			}
		}
		if err := t.one(l.Index, applied{by: node, kind: l.Type, term: l.Term, data: l.Data}); err != nil {
			return err
		}
		last = l.Index
	}
	return nil
}

func (t *trace) one(index uint64, a applied) error {
	was, ok := t.entries[index]
	if !ok {
		t.entries[index] = a
		return nil
	}
	if was.kind != a.kind || was.term != a.term || !bytes.Equal(was.data, a.data) {
		return fmt.Errorf("the logs diverge at index %d: %s applied %s, %s applied %s", index, was.by, was, a.by, a)
	}
	return nil
}

func (a applied) String() string {
	if a.kind == nothing {
		return "an entry of raft's own"
	}
	return fmt.Sprintf("%v of term %d, %d bytes", a.kind, a.term, len(a.data))
}

// upTo returns the entries after one index and up to another that the state
// sees.
func (t *trace) upTo(after, index uint64) []*raft.Log {
	t.mu.Lock()
	defer t.mu.Unlock()
	var logs []*raft.Log
	for i := after + 1; i <= index; i++ {
		if a, ok := t.entries[i]; ok && a.kind != nothing {
			logs = append(logs, &raft.Log{Index: i, Term: a.term, Type: a.kind, Data: a.data})
		}
	}
	return logs
}

// extent tells how many entries were applied, and how many leaders they are of.
func (t *trace) extent() (entries, leaders int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	terms := map[uint64]bool{}
	for _, a := range t.entries {
		if a.kind != nothing {
			terms[a.term] = true
		}
	}
	return len(t.entries), len(terms)
}

// tracedFSM is a node's state as its raft sees it.
type tracedFSM struct {
	p    *process
	last uint64
}

// Apply implements raft.FSM.
func (f *tracedFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM.
func (f *tracedFSM) ApplyBatch(logs []*raft.Log) []any {
	if !f.p.dead.Load() {
		if err := f.p.c.trace.record(f.p.name, f.last, logs); err != nil {
			f.p.c.fail("%v", err)
		}
	}
	f.last = logs[len(logs)-1].Index
	return f.p.store.ApplyBatch(logs)
}

// Snapshot implements raft.FSM.
func (f *tracedFSM) Snapshot() (raft.FSMSnapshot, error) { return f.p.store.Snapshot() }

// Restore implements raft.FSM.
func (f *tracedFSM) Restore(r io.ReadCloser) error {
	f.last = 0
	f.p.c.note("%s restores a snapshot", f.p.name)
	return f.p.store.Restore(r)
}
