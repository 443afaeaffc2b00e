package listener

import (
	"crypto/tls"
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection was refused, as the label of the metric.
const (
	reasonBanned     = "banned"
	reasonRate       = "rate"
	reasonMax        = "max_connections"
	reasonNodeMax    = "node_max_connections"
	reasonMemory     = "memory"
	reasonBudget     = "budget"
	reasonTooMuch    = "too_much"
	reasonTimeout    = "timeout"
	reasonProxy      = "proxy"
	reasonTLS        = "tls"
	reasonWebSocket  = "websocket"
	reasonShutdown   = "shutdown"
	reasonConnection = "connection"
)

// metrics are those of one listener.
type metrics struct {
	open         prometheus.Gauge
	accepted     prometheus.Counter
	refused      *prometheus.CounterVec
	acceptErrors prometheus.Counter
	handshake    prometheus.Observer
	tls          *prometheus.CounterVec
	panics       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, name string) (*metrics, error) {
	open := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mqcluster_listener_connections", Help: "Connections that are open, handshakes included.",
	}, []string{"listener"})
	accepted := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_listener_accepted_total", Help: "Connections handed to the engine.",
	}, []string{"listener"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_listener_refused_total", Help: "Connections closed by the listener, by reason.",
	}, []string{"listener", "reason"})
	acceptErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_listener_accept_errors_total", Help: "Failed accepts, such as for want of file descriptors.",
	}, []string{"listener"})
	handshake := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "mqcluster_listener_handshake_seconds", Help: "Time from accept to the end of the handshakes.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"listener"})
	shaken := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_listener_tls_handshakes_total", Help: "TLS handshakes that ended well, by version and whether an earlier session was resumed.",
	}, []string{"listener", "version", "resumed"})
	panics := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_listener_panics_total", Help: "Connections that ended in a panic.",
	}, []string{"listener"})
	err := errors.Join(register(reg, &open), register(reg, &accepted), register(reg, &refused),
		register(reg, &acceptErrors), register(reg, &handshake), register(reg, &shaken), register(reg, &panics))
	if err != nil {
		return nil, err
	}
	// They are there before anybody is refused, so that an alert on them can be told from
	// one on a name that does not exist.
	for _, reason := range []string{
		reasonRate, reasonMax, reasonNodeMax, reasonMemory, reasonBudget, reasonTooMuch, reasonTimeout,
		reasonProxy, reasonTLS, reasonWebSocket, reasonShutdown, reasonConnection,
	} {
		refused.WithLabelValues(name, reason)
	}
	return &metrics{
		open:         open.WithLabelValues(name),
		accepted:     accepted.WithLabelValues(name),
		refused:      refused.MustCurryWith(prometheus.Labels{"listener": name}),
		acceptErrors: acceptErrors.WithLabelValues(name),
		handshake:    handshake.WithLabelValues(name),
		tls:          shaken.MustCurryWith(prometheus.Labels{"listener": name}),
		panics:       panics.WithLabelValues(name),
	}, nil
}

// shaken counts a handshake.
func (m *metrics) shaken(s tls.ConnectionState) {
	m.tls.WithLabelValues(tls.VersionName(s.Version), strconv.FormatBool(s.DidResume)).Inc()
}

// register registers *c, or puts into *c what another listener of the node has
// registered before.
func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	if reg == nil {
		return nil
	}
	err := reg.Register(*c)
	if prior, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		*c, ok = prior.ExistingCollector.(C)
		if ok {
			return nil
		}
	}
	return err
}
