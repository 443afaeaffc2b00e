package bench

import (
	"fmt"
	"strings"
)

// Table returns the report as text for people.
func (p *Report) Table() string {
	t := &table{}
	s := p.Setup
	t.row("scenario", fmt.Sprintf("%s, MQTT %s, QoS %d, %d B, %d clients, window %d, batches of %d%s", p.Scenario,
		versionName(s.Version), s.QoS, s.Size, s.Clients, s.Window, s.Batch, s.extras()))
	if p.Connections != nil {
		p.Connections.table(t)
	}
	if p.Sent > 0 {
		p.messageTable(t)
	}
	for _, ph := range p.Phases {
		t.row(ph.Name, fmt.Sprintf("%s messages in %.2f s, %s/s%s", thousands(ph.Messages), ph.Seconds,
			thousands(int64(ph.Rate)), cpuText(ph.CPUPerMessage)))
	}
	for _, f := range p.Figures {
		t.row(f.Name, fmt.Sprintf("%.2f %s", f.Value, f.Unit))
	}
	for _, q := range p.Processes {
		t.row("process", fmt.Sprintf("%s (%d): %.2f s CPU, %.1f → %.1f MiB (peak %.1f)", q.Name, q.PID, q.CPU,
			mib(q.RSSBefore), mib(q.RSSAfter), mib(q.RSSPeak)))
	}
	if p.CPUPerMessage > 0 {
		t.row("CPU", fmt.Sprintf("%.2f µs per %s", p.CPUPerMessage, p.unit()))
	}
	t.row("generator", fmt.Sprintf("%.2f s CPU", p.GeneratorCPU))
	for _, l := range p.Losses {
		t.row("lost", fmt.Sprintf("%s of %s, from %s (numbers %d to %d)", thousands(l.Lost), l.Receiver, l.Publisher, l.First, l.Last))
	}
	for _, n := range p.Notes {
		t.row("note", n)
	}
	for _, e := range p.Errors {
		t.row("error", e)
	}
	return t.String()
}

func (p *Report) unit() string {
	if p.Scenario == Connects {
		return "connection"
	}
	return "delivered message"
}

func (p *Report) messageTable(t *table) {
	t.row("sent", fmt.Sprintf("%s messages, %s acknowledged, %s refused", thousands(p.Sent), thousands(p.Acknowledged), thousands(p.Refused)))
	t.row("delivered", fmt.Sprintf("%s of %s in %.2f s, %s/s", thousands(p.Delivered), thousands(p.Expected), p.Seconds, thousands(int64(p.DeliveryRate))))
	t.row("faults", fmt.Sprintf("%s lost, %s duplicates, %s out of order, %s misrouted, %s stray acks, %s stalls", thousands(p.Lost),
		thousands(p.Duplicates), thousands(p.Disorder), thousands(p.Misrouted), thousands(p.Unexpected), thousands(p.Stalls)))
	t.quantiles("latency", p.Latency)
	t.quantiles("to ack", p.AckLatency)
	t.quantiles("send lag", p.SendLag)
}

func (c *Connections) table(t *table) {
	if c.Rate > 0 {
		t.row("connections", fmt.Sprintf("%s made, %s/s, %s TLS sessions resumed", thousands(c.Made), thousands(int64(c.Rate)), thousands(c.Resumed)))
		t.row("refused", fmt.Sprintf("%s attempts, tried again later", thousands(c.Refused)))
	} else {
		t.row("connections", thousands(c.Made)+" held")
	}
	t.quantiles("handshake", c.Handshake)
	if c.Refused > 0 {
		t.quantiles("with waits", c.Waited)
	}
	if c.Rate == 0 && c.Bytes <= 0 {
		t.row("memory", "did not grow: no --pid is given, or the broker had some to spare; measure one that was just started")
	}
}

func (s Setup) extras() (text string) {
	if s.Rate > 0 {
		text += fmt.Sprintf(", %.0f/s", s.Rate)
	}
	if s.Persistent {
		text += ", persistent"
	}
	if s.TLS {
		text += ", TLS"
	}
	return text
}

func cpuText(us float64) string {
	if us == 0 {
		return ""
	}
	return fmt.Sprintf(", %.2f µs CPU each", us)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func versionName(v int) string {
	switch v {
	case 3:
		return "3.1"
	case 4:
		return "3.1.1"
	}
	return "5"
}

// table is lines of a name and a text.
type table struct{ strings.Builder }

func (t *table) row(name, text string) { fmt.Fprintf(t, "%-12s %s\n", name, text) }

func (t *table) quantiles(name string, q *Quantiles) {
	if q != nil {
		t.row(name, fmt.Sprintf("p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms", q.P50, q.P90, q.P99, q.P999, q.Max))
	}
}

// thousands writes n with separators.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
