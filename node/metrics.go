package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strconv"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/prometheus/client_golang/prometheus"
)

// The series of this file are of the node as a whole and of what it knows of the
// cluster. Nothing of it has a label per client or topic: a scrape must cost the same
// with ten clients and with 100,000.

// openMetrics registers them, when everything that they read is there.
func (n *Node) openMetrics(context.Context) error {
	all := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mqcluster_node_info", Help: "1; the labels say which version runs.",
			ConstLabels: prometheus.Labels{"node": n.cfg.Node.ID, "version": n.deps.Version, "feature_level": strconv.Itoa(fsm.Level)},
		}, func() float64 { return 1 }),
		&certDays{n: n, days: prometheus.NewDesc("mqcluster_tls_certificate_days_left",
			"Days until a certificate ends: of the node, of the CA, of each listener.", []string{"certificate"}, nil)},
		n.issued.vec(),
	}
	for _, g := range n.gauges() {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mqcluster_" + g.name, Help: g.help, ConstLabels: g.labels}, g.value))
	}
	for _, c := range all {
		if err := n.reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

type gauge struct {
	name, help string
	labels     prometheus.Labels
	value      func() float64
}

func (n *Node) gauges() []gauge {
	counts := func(of func(*fsm.Counts) int) func() float64 {
		return func() float64 {
			if c := n.counts.Load(); c != nil {
				return float64(of(c))
			}
			return 0
		}
	}
	members := func(is func(up, voter bool) bool) func() float64 {
		return func() float64 {
			k := 0
			for _, m := range n.store.Members() {
				if is(m.Incarnation != 0, m.Voter) {
					k++
				}
			}
			return float64(k)
		}
	}
	limit := func(of func(fsm.Limits) uint64) func() float64 {
		return func() float64 { return float64(of(n.store.Limits())) }
	}
	const quota = "What the cluster's settings allow to wait: max_messages and max_bytes for one session, total_messages and total_bytes for all."
	const membersHelp = "Members of the cluster, by whether the log says that they are up and by whether they vote."
	out := []gauge{
		{"node_ready", "1 if this node serves clients: what /readyz says.", nil, func() float64 { return boolMetric(n.Ready().Ready()) }},
		{"node_draining", "1 while this node is drained.", nil, func() float64 { return boolMetric(n.away.phase() != "") }},
		{"node_max_connections", "limits.max_connections; 0 is no limit.", nil, func() float64 { return float64(n.cfg.Limits.MaxConnections) }},
		{"cluster_sessions", "Sessions in the log, as of some seconds ago.", nil, counts(func(c *fsm.Counts) int { return c.Sessions })},
		{"cluster_connected_sessions", "Sessions with a connection on any node, as of some seconds ago.", nil, counts(func(c *fsm.Counts) int { return c.Connected })},
		{"cluster_subscriptions", "Subscriptions in the log, as of some seconds ago.", nil, counts(func(c *fsm.Counts) int { return c.Subscriptions })},
		{"cluster_filters", "Distinct filters in the log, as of some seconds ago.", nil, counts(func(c *fsm.Counts) int { return c.Filters })},
		{"cluster_shared_groups", "Groups of shared subscriptions, as of some seconds ago.", nil, counts(func(c *fsm.Counts) int { return c.Groups })},
		{"queue_limit", quota, prometheus.Labels{"limit": "max_messages"}, limit(func(l fsm.Limits) uint64 { return l.MaxMessages })},
		{"queue_limit", quota, prometheus.Labels{"limit": "max_bytes"}, limit(func(l fsm.Limits) uint64 { return l.MaxBytes })},
		{"queue_limit", quota, prometheus.Labels{"limit": "total_messages"}, limit(func(l fsm.Limits) uint64 { return l.TotalMessages })},
		{"queue_limit", quota, prometheus.Labels{"limit": "total_bytes"}, limit(func(l fsm.Limits) uint64 { return l.TotalBytes })},
	}
	for _, up := range []bool{true, false} {
		for _, votes := range []bool{true, false} {
			state, votesText := "down", strconv.FormatBool(votes)
			if up {
				state = "up"
			}
			out = append(out, gauge{"cluster_members", membersHelp, prometheus.Labels{"state": state, "voter": votesText},
				members(func(isUp, isVoter bool) bool { return isUp == up && isVoter == votes })})
		}
	}
	return out
}

// certDays tells how long certificates are still good.
type certDays struct {
	n    *Node
	days *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *certDays) Describe(ch chan<- *prometheus.Desc) { ch <- c.days }

// Collect implements prometheus.Collector.
func (c *certDays) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	tell := func(name string, until time.Time) {
		ch <- prometheus.MustNewConstMetric(c.days, prometheus.GaugeValue, until.Sub(now).Hours()/24, name)
	}
	tell("node", c.n.identity.NotAfter())
	if until := firstEnd(c.n.identity.Material().CA); !until.IsZero() {
		tell("ca", until)
	}
	for name, t := range c.n.listenerTLS() {
		if leaf := t.Leaf(); leaf != nil {
			tell("listener:"+name, leaf.NotAfter)
		}
	}
}

// firstEnd is when the first of the certificates in a PEM file ends; zero if there is
// none.
func firstEnd(text []byte) (first time.Time) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}

// issuedCerts counts the certificates of the cluster's CA that clients have.
type issuedCerts struct{ by *prometheus.GaugeVec }

// expiringIn is how long before its end a client's certificate counts as expiring.
const expiringIn = 30 * 24 * time.Hour

func (i *issuedCerts) vec() *prometheus.GaugeVec {
	if i.by == nil {
		i.by = prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mqcluster_tls_issued_certificates",
			Help: "Client certificates of the cluster's CA: good, expiring within 30 days, expired or revoked; counted once a minute.",
		}, []string{"state"})
		for _, s := range []string{"good", "expiring", "expired", "revoked"} {
			i.by.WithLabelValues(s)
		}
	}
	return i.by
}

// countCerts is a chore.
func (n *Node) countCerts(context.Context) {
	now := time.Now()
	by := map[string]int{"good": 0, "expiring": 0, "expired": 0, "revoked": 0}
	for _, c := range n.store.Certs() {
		until := time.Unix(c.NotAfter, 0)
		switch {
		case c.Kind != "client":
		case c.Revoked:
			by["revoked"]++
		case until.Before(now):
			by["expired"]++
		case until.Before(now.Add(expiringIn)):
			by["expiring"]++
		default:
			by["good"]++
		}
	}
	for state, k := range by {
		n.issued.by.WithLabelValues(state).Set(float64(k))
	}
}
