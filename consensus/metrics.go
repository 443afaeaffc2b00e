package consensus

import "github.com/prometheus/client_golang/prometheus"

// metrics of a Consensus. Gauges that mirror state are read when scraped.
type metrics struct {
	packs         prometheus.Counter
	resent        prometheus.Counter
	packItems     prometheus.Histogram
	latency       prometheus.Histogram
	store         prometheus.Histogram
	drain         prometheus.Histogram
	apply         prometheus.Histogram
	entries       prometheus.Counter
	leaderChanges prometheus.Counter
	failed        *prometheus.CounterVec
	nodesDown     prometheus.Counter
	collectors    []prometheus.Collector
}

func newMetrics(c *Consensus) *metrics {
	m := &metrics{}
	counter := func(name, help string) prometheus.Counter {
		return keep(m, prometheus.NewCounter(prometheus.CounterOpts{Name: metricName(name), Help: help}))
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return keep(m, prometheus.NewHistogram(prometheus.HistogramOpts{Name: metricName(name), Help: help, Buckets: buckets}))
	}
	gauge := func(name, help string, f func() float64) {
		keep(m, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metricName(name), Help: help}, f))
	}
	times := prometheus.ExponentialBuckets(0.0001, 2, 16) // 0.1 ms to 3.3 s
	m.packs = counter("packs_total", "Packs sent to the leader, without repetitions.")
	m.resent = counter("packs_resent_total", "Packs sent again.")
	m.packItems = histogram("pack_items", "Items in a pack.", prometheus.ExponentialBuckets(1, 2, 7))
	m.latency = histogram("apply_seconds", "Time from the first Submit of a pack to its last local apply.", times)
	m.store = histogram("store_seconds", "Time of a synced write of the log store.", times)
	m.drain = histogram("drain_seconds", "Time of a write of entries from the journal to raft.db.", times)
	m.apply = histogram("apply_batch_seconds", "Time to apply a batch of entries and to give their messages to the connections of this node: the stage apply.", times)
	m.entries = counter("applied_entries_total", "Entries that were applied here.")
	m.leaderChanges = counter("leader_changes_total", "Leaders that this node has seen come.")
	m.nodesDown = counter("nodes_down_total", "Incarnations that this node ended as leader.")
	m.failed = keep(m, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricName("items_failed_total"), Help: "Items that ended without a result, by reason.",
	}, []string{"reason"}))

	gauge("leader", "1 if this node leads.", func() float64 {
		if c.IsLeader() {
			return 1
		}
		return 0
	})
	gauge("term", "Raft term.", func() float64 { return float64(c.raft.CurrentTerm()) })
	gauge("commit_index", "Raft commit index.", func() float64 { return float64(c.raft.CommitIndex()) })
	gauge("applied_index", "Index of the last entry applied.", func() float64 { return float64(c.deps.State.AppliedIndex()) })
	gauge("last_index", "Index of the newest entry in this node's log.", func() float64 { return float64(c.raft.LastIndex()) })
	gauge("snapshot_index", "Index of the last entry in the newest snapshot of this node, 0 without one.", func() float64 {
		if p := c.newest.Load(); p != nil {
			return float64(p.index)
		}
		return 0
	})
	gauge("voters", "Nodes that vote.", func() float64 {
		n := 0
		for _, s := range c.Servers() {
			if s.Voter {
				n++
			}
		}
		return float64(n)
	})
	gauge("leader_known", "1 if this node knows who leads.", func() float64 {
		if _, ok := c.Leader(); ok {
			return 1
		}
		return 0
	})
	keep(m, newLag(c))
	gauge("lease_remaining_seconds", "Time that the lease has left.", func() float64 { return c.leaseLeft().Seconds() })
	gauge("packs_in_flight", "Packs sent and not yet applied here.", func() float64 { return float64(c.proposer.load().InFlight) })
	gauge("items_queued", "Items not yet sent.", func() float64 { return float64(c.proposer.load().Items) })
	gauge("queued_bytes", "Bytes of items not yet sent.", func() float64 { return float64(c.proposer.load().Bytes) })
	return m
}

func metricName(name string) string { return "mqcluster_consensus_" + name }

func keep[C prometheus.Collector](m *metrics, c C) C {
	m.collectors = append(m.collectors, c)
	return c
}

// register is called once everything that the gauges read exists.
func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for i, c := range m.collectors {
		if err := r.Register(c); err != nil {
			for _, c := range m.collectors[:i] {
				r.Unregister(c)
			}
			return err
		}
	}
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	if r == nil {
		return
	}
	for _, c := range m.collectors {
		r.Unregister(c)
	}
}
