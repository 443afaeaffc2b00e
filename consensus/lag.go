package consensus

import "github.com/prometheus/client_golang/prometheus"

// lag tells, on the leader, how the other members come along. A cluster has few
// members, so that each may have a label.
type lag struct {
	c                     *Consensus
	entries, lease, clock *prometheus.Desc
}

func newLag(c *Consensus) lag {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(metricName(name), help+"; on the leader only.", []string{"member"}, nil)
	}
	return lag{
		c:       c,
		entries: desc("member_lag_entries", "Entries that a member has not applied yet, as its last request for a lease told the leader"),
		lease:   desc("member_lease_age_seconds", "Time since the leader granted a member its lease, or since it leads if it has granted none"),
		clock:   desc("member_clock_offset_seconds", "How far a member's wall clock is ahead of the leader's, the way of the request included"),
	}
}

// Describe implements prometheus.Collector.
func (l lag) Describe(ch chan<- *prometheus.Desc) {
	ch <- l.entries
	ch <- l.lease
	ch <- l.clock
}

// Collect implements prometheus.Collector.
func (l lag) Collect(ch chan<- prometheus.Metric) {
	s := l.c.Status()
	for _, m := range s.Leases {
		behind := s.CommitIndex - min(s.CommitIndex, m.AppliedIndex)
		ch <- prometheus.MustNewConstMetric(l.entries, prometheus.GaugeValue, float64(behind), m.Node)
		ch <- prometheus.MustNewConstMetric(l.lease, prometheus.GaugeValue, m.Age.Seconds(), m.Node)
		ch <- prometheus.MustNewConstMetric(l.clock, prometheus.GaugeValue, m.ClockOffset.Seconds(), m.Node)
	}
}
