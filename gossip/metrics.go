package gossip

import (
	"log/slog"
	"strings"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	alive                            prometheus.Gauge
	sent, received, dropped, refused prometheus.Counter
	sentBytes, rejoins               prometheus.Counter

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
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "mqcluster_gossip_" + name, Help: help})
		add(c)
		return c
	}
	m.alive = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mqcluster_gossip_alive_peers", Help: "Other nodes that gossip has alive.",
	})
	add(m.alive)
	m.sent = counter("sent_packets_total", "Packets sent.")
	m.sentBytes = counter("sent_bytes_total", "Bytes sent, packets and streams, before TLS.")
	m.received = counter("received_packets_total", "Packets received.")
	m.dropped = counter("dropped_packets_total", "Packets that met a full queue or no connection.")
	m.refused = counter("refused_total", "Packets, connections and claims of nodes that are no members or not who they say.")
	m.rejoins = counter("contacts_total", "Attempts to contact a member that is not alive.")
	if err != nil {
		m.unregister()
		return nil, err
	}
	return m, nil
}

// watch adds what memberlist tells of itself.
func (m *metrics) watch(list *memberlist.Memberlist) error {
	if m.reg == nil {
		return nil
	}
	health := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mqcluster_gossip_health_score", Help: "0 if this node answers and hears answers in time, more the worse it does.",
	}, func() float64 { return float64(list.GetHealthScore()) })
	if err := m.reg.Register(health); err != nil {
		return err
	}
	m.all = append(m.all, health)
	return nil
}

// unregister makes room for another Open with the same Registerer.
func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
	m.all = nil
}

// debugWriter turns the lines of memberlist's logger into debug records.
type debugWriter struct{ log *slog.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug("gossip: " + strings.TrimSpace(string(p)))
	return len(p), nil
}
