package mesh

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	handshakes      *prometheus.CounterVec
	conns           *prometheus.GaugeVec
	panics          *prometheus.CounterVec
	unauthenticated prometheus.Gauge
	evicted         prometheus.Counter
	reg             prometheus.Registerer
	all             []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reg: reg,
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mqcluster_mesh_handshakes_total",
			Help: "Connections set up or refused, by direction and result.",
		}, []string{"direction", "result"}),
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mqcluster_mesh_connections",
			Help: "Open connections, by protocol and direction.",
		}, []string{"protocol", "direction"}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mqcluster_mesh_panics_total",
			Help: "Panics caught in handlers, by protocol.",
		}, []string{"protocol"}),
		unauthenticated: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mqcluster_mesh_unauthenticated",
			Help: "Connections that have not proved a node id.",
		}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mqcluster_mesh_unauthenticated_evicted_total",
			Help: "Connections closed because too many had not proved a node id.",
		}),
	}
	// They are there before anybody has been refused, so that an alert on them can be told
	// from a name that does not exist.
	m.handshakes.WithLabelValues("in", "ok")
	m.handshakes.WithLabelValues("in", "refused")
	m.handshakes.WithLabelValues("out", "ok")
	m.handshakes.WithLabelValues("out", "failed")
	for _, proto := range []string{ProtoRaft, ProtoGossip, ProtoForward, ProtoControl, ProtoPack, ProtoJoin} {
		m.panics.WithLabelValues(proto)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.handshakes, m.conns, m.panics, m.unauthenticated, m.evicted} {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return nil, err
		}
		m.all = append(m.all, c)
	}
	return m, nil
}

// unregister makes room for another Open with the same Registerer.
func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
	m.all = nil
}
