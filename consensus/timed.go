package consensus

import (
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// timedFSM measures how long batches of entries take to apply, which includes that
// their messages are given to this node's connections.
type timedFSM struct {
	raft.FSM
	batches raft.BatchingFSM
	took    prometheus.Observer
	entries prometheus.Counter
}

// timed wraps fsm; one that does not apply in batches stays as it is.
func (m *metrics) timed(fsm raft.FSM) raft.FSM {
	batches, ok := fsm.(raft.BatchingFSM)
	if !ok {
		return fsm
	}
	return &timedFSM{FSM: fsm, batches: batches, took: m.apply, entries: m.entries}
}

// ApplyBatch implements raft.BatchingFSM.
func (t *timedFSM) ApplyBatch(logs []*raft.Log) []any {
	start := time.Now()
	out := t.batches.ApplyBatch(logs)
	t.took.Observe(time.Since(start).Seconds())
	t.entries.Add(float64(len(logs)))
	return out
}

var _ raft.BatchingFSM = (*timedFSM)(nil)
