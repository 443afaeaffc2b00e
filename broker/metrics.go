package broker

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Why messages are dropped: values of the label reason.
const (
	dropQueueFull     = "queue_full"
	dropExpired       = "expired"
	dropDenied        = "receive_denied"
	dropPublishDenied = "publish_denied"
	dropTooLarge      = "too_large"
	dropUnproposed    = "not_proposed"
	dropScarce        = "disk_full"
	dropMoved         = "client_moved"
)

type metrics struct {
	reg            prometheus.Registerer
	all            []prometheus.Collector
	drops          atomic.Int64
	dropsBy        map[string]prometheus.Counter
	refusals       map[string]prometheus.Counter
	protocolErrors prometheus.Counter
	panics         prometheus.Counter
	authFailed     prometheus.Counter
	stalled        prometheus.Counter
	silent         prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, b *Broker, more ...prometheus.Collector) (*metrics, error) {
	m := &metrics{reg: reg, all: more, dropsBy: map[string]prometheus.Counter{}, refusals: map[string]prometheus.Counter{}}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "mqcluster_broker_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	m.protocolErrors = counter("protocol_errors_total", "Connections closed for what their client sent.")
	m.panics = counter("panics_total", "Connections closed because their goroutine panicked.")
	m.authFailed = counter("refused_credentials_total", "CONNECTs refused for credentials or rights.")
	m.stalled = counter("stalled_total", "Connections closed because their socket stayed full.")
	m.silent = counter("keepalive_timeouts_total", "Connections closed because their client was silent.")
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_broker_dropped_messages_total", Help: "Messages that were not delivered, by reason.",
	}, []string{"reason"})
	m.all = append(m.all, drops)
	for _, r := range []string{dropQueueFull, dropExpired, dropDenied, dropPublishDenied, dropTooLarge, dropUnproposed, dropScarce, dropMoved} {
		m.dropsBy[r] = drops.WithLabelValues(r)
	}
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_broker_refusals_total", Help: "What was refused to clients, by reason. Messages that wait for message_rate and byte_rate are not lost.",
	}, []string{"reason"})
	m.all = append(m.all, refusals)
	for _, r := range refusedReasons() {
		m.refusals[r] = refusals.WithLabelValues(r)
	}
	m.funcs(b)
	if reg == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, err
		}
	}
	return m, nil
}

// funcs adds what the broker counts anyhow.
func (m *metrics) funcs(b *Broker) {
	value := func(name, help string, v *atomic.Int64, labels prometheus.Labels) {
		m.all = append(m.all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mqcluster_broker_" + name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, f func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mqcluster_broker_" + name, Help: help}, f))
	}
	n := &b.n
	value("retained_sent_total", "Retained messages queued for new subscriptions.", &n.retained, nil)
	value("connects_total", "Accepted CONNECTs.", &n.connects, nil)
	value("refused_connects_total", "CONNECTs that were refused.", &n.refused, nil)
	value("takeovers_total", "Connections that lost their client id to a newer one.", &n.takenOver, nil)
	value("kicked_total", "Connections closed by an operator's word.", &n.kicked, nil)
	value("received_bytes_total", "Bytes read from clients.", &n.bytesIn, nil)
	value("sent_bytes_total", "Bytes written to clients.", &n.bytesOut, nil)
	for q := range 3 {
		l := prometheus.Labels{"qos": strconv.Itoa(q)}
		value("received_messages_total", "PUBLISH packets from clients.", &n.in[q], l)
		value("sent_messages_total", "PUBLISH packets to clients.", &n.out[q], l)
	}
	gauge("connections", "Connected clients.", func() float64 { return float64(n.connected.Load()) })
	gauge("subscriptions", "Subscriptions of connected clients.", func() float64 { return float64(n.subscriptions.Load()) })
	gauge("queued_messages", "Messages in memory for connected clients.", func() float64 { q, _ := b.queued(); return float64(q) })
	gauge("queued_bytes", "Bytes in memory for connected clients.", func() float64 { _, n := b.queued(); return float64(n) })
}

// queued adds up what waits in memory.
func (b *Broker) queued() (messages, bytes int) {
	for _, c := range b.holders() {
		c.mu.Lock()
		messages += c.out.zeroCount + c.out.queued()
		bytes += c.out.zeroBytes + c.out.queueBytes
		c.mu.Unlock()
	}
	return messages, bytes
}

func (m *metrics) dropped(reason string, n int) {
	m.drops.Add(int64(n))
	m.dropsBy[reason].Add(float64(n))
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
