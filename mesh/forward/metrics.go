package forward

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sent, full, down           prometheus.Counter
	received, holdExpired      prometheus.Counter
	resyncs, snapshots         prometheus.Counter
	syncTimeouts               prometheus.Counter
	held, local, remote, peers prometheus.Gauge
	wait                       prometheus.Histogram

	reg prometheus.Registerer
	all []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{reg: reg}
	var err error
	add := func(c prometheus.Collector) {
		if reg == nil || err != nil {
			return
		}
		if err = reg.Register(c); err == nil {
			m.all = append(m.all, c)
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "mqcluster_forward_" + name, Help: help})
		add(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "mqcluster_forward_" + name, Help: help})
		add(g)
		return g
	}
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_forward_dropped_messages_total",
		Help: "QoS 0 messages that were not forwarded, by reason.",
	}, []string{"reason"})
	add(dropped)
	m.full, m.down = dropped.WithLabelValues(whyFull), dropped.WithLabelValues(whyDown)
	m.wait = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "mqcluster_forward_wait_seconds",
		Help:    "Time of the oldest message of each write to a peer, from its queueing to the end of the write: the stage forward of QoS 0 messages for other nodes.",
		Buckets: prometheus.ExponentialBuckets(0.00005, 4, 10),
	})
	add(m.wait)
	m.sent = counter("sent_messages_total", "QoS 0 messages queued for peers.")
	m.received = counter("received_messages_total", "QoS 0 messages received from peers.")
	m.holdExpired = counter("hold_expired_total", "Messages delivered before the log index that they were to wait for.")
	m.resyncs = counter("resyncs_total", "Snapshots of the routes that peers asked for.")
	m.snapshots = counter("snapshots_total", "Snapshots of the routes sent.")
	m.syncTimeouts = counter("sync_timeouts_total", "Times that a subscriber did not wait any longer for the peers to know its filter.")
	m.held = gauge("held_messages", "Messages that wait for the log.")
	m.local = gauge("local_routes", "Distinct filters that this node wants.")
	m.remote = gauge("remote_routes", "Distinct filters that peers want.")
	m.peers = gauge("connected_peers", "Peers with a stream to them.")
	if err != nil {
		m.unregister()
		return nil, err
	}
	return m, nil
}

// queued counts messages that were queued, met a full queue, or met none.
func (m *metrics) queued(sent, full, down int) {
	if sent > 0 {
		m.sent.Add(float64(sent))
	}
	if full > 0 {
		m.full.Add(float64(full))
	}
	if down > 0 {
		m.down.Add(float64(down))
	}
}

// unregister makes room for another Open with the same Registerer.
func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
	m.all = nil
}
