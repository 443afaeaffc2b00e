package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// SchemaVersion is the version of the report's JSON form. Fields are added
// without raising it; what exists keeps its name, unit and meaning.
const SchemaVersion = 1

// Report is what a run has found. Rates are per second, of the time between the
// first message sent and the last one that arrived.
type Report struct {
	Schema   int       `json:"schema"`
	Scenario string    `json:"scenario"`
	Started  time.Time `json:"started"`
	Setup    Setup     `json:"setup"`

	Seconds      float64 `json:"seconds"`
	Sent         int64   `json:"sent"`
	Acknowledged int64   `json:"acknowledged"` // PUBACK or PUBCOMP came
	Refused      int64   `json:"refused"`      // by reason code
	Expected     int64   `json:"expected"`     // deliveries
	Delivered    int64   `json:"delivered"`    // each message once per receiver
	Lost         int64   `json:"lost"`
	Duplicates   int64   `json:"duplicates"` // deliveries beyond the first
	Disorder     int64   `json:"disorder"`   // first deliveries after a later message of the same publisher
	Misrouted    int64   `json:"misrouted"`  // messages a subscriber has no business with
	// Unexpected counts acknowledgements of nothing that was under way.
	Unexpected int64 `json:"unexpected_acks"`
	// Stalls counts how often a QoS 0 publisher gave its window up for lost.
	Stalls int64 `json:"stalls"`
	// Losses names the first flows that lost messages.
	Losses []Loss `json:"losses,omitempty"`

	DeliveryRate float64    `json:"delivery_rate"`
	Latency      *Quantiles `json:"latency,omitempty"`     // written to read by the subscriber
	AckLatency   *Quantiles `json:"ack_latency,omitempty"` // written to acknowledged
	SendLag      *Quantiles `json:"send_lag,omitempty"`    // due to written

	Connections *Connections `json:"connections,omitempty"`
	Phases      []Phase      `json:"phases,omitempty"`

	Processes []Process `json:"processes,omitempty"`
	// CPUPerMessage is the CPU time of all measured processes per delivered
	// message (Connects: per connection), in microseconds.
	CPUPerMessage float64 `json:"cpu_us_per_message,omitempty"`
	GeneratorCPU  float64 `json:"generator_cpu_seconds"`

	// Figures are what only some scenarios and cases measure.
	Figures []Figure `json:"figures,omitempty"`

	// Notes are what a case has to say beyond figures that all have.
	Notes []string `json:"notes,omitempty"`

	Errors     []string `json:"errors,omitempty"`
	ErrorCount int      `json:"error_count"`
}

// Setup repeats what the run was asked to do, defaults filled in.
type Setup struct {
	Version    int     `json:"version"`
	QoS        int     `json:"qos"`
	Size       int     `json:"size"`
	Clients    int     `json:"clients"`
	Members    int     `json:"members,omitempty"`
	Count      int     `json:"count,omitempty"`
	Duration   float64 `json:"duration_seconds,omitempty"`
	Window     int     `json:"window"`
	Rate       float64 `json:"rate,omitempty"`
	Topics     int     `json:"topics,omitempty"`
	Fillers    int     `json:"fillers,omitempty"`
	Batch      int     `json:"batch"`
	Persistent bool    `json:"persistent"`
	TLS        bool    `json:"tls"`
	Resume     bool    `json:"resume,omitempty"`
	Handshake  bool    `json:"handshake_only,omitempty"`
}

// Loss is messages of one publisher that one receiver did not get.
type Loss struct {
	Publisher string `json:"publisher"`
	Receiver  string `json:"receiver"`
	Lost      int64  `json:"lost"`
	// First and Last are numbers of lost messages, from 0.
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

// Connections is what the scenarios without messages measure.
type Connections struct {
	Made      int64      `json:"made"`
	Resumed   int64      `json:"resumed"` // TLS sessions
	Refused   int64      `json:"refused"` // attempts that the broker had no room for, and that were tried again
	Rate      float64    `json:"rate"`
	Handshake *Quantiles `json:"handshake,omitempty"` // dial to CONNACK, of the attempt that succeeded
	// Waited is from the first attempt to the CONNACK.
	Waited *Quantiles `json:"waited,omitempty"`
	// Bytes is resident memory of the processes per idle connection.
	Bytes float64 `json:"bytes_per_connection,omitempty"`
}

// Phase is a part of a run that is measured by itself.
type Phase struct {
	Name          string  `json:"name"`
	N             int     `json:"n,omitempty"` // of what the phase's name says, where phases differ in it
	Messages      int64   `json:"messages"`
	Seconds       float64 `json:"seconds"`
	Rate          float64 `json:"rate"`
	CPUPerMessage float64 `json:"cpu_us_per_message,omitempty"`
	P99           float64 `json:"p99_ms,omitempty"` // of the latency, where it says something
}

// phaseAt is phase i, empty if the run did not come to it.
func (p *Report) phaseAt(i int) Phase {
	if i >= len(p.Phases) {
		return Phase{}
	}
	return p.Phases[i]
}

// Figure is something that was measured, with the unit that its value has. Less is
// better.
type Figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// Ratio is to the same figure of the row that ratios are to; 0: not known.
	Ratio float64 `json:"ratio,omitempty"`
}

func (f Figure) String() string { return fmt.Sprintf("%s %.2f %s", f.Name, f.Value, f.Unit) }

// figure adds one.
func (p *Report) figure(name, unit string, value float64) {
	p.Figures = append(p.Figures, Figure{Name: name, Unit: unit, Value: value})
}

// figureAt is the value of figure i, 0 if the run did not come to it.
func (p *Report) figureAt(i int) float64 {
	if i >= len(p.Figures) {
		return 0
	}
	return p.Figures[i].Value
}

// Process is what one measured process spent on the run.
type Process struct {
	PID       int     `json:"pid"`
	Name      string  `json:"name"`
	CPU       float64 `json:"cpu_seconds"`
	RSSBefore int64   `json:"rss_before_bytes"`
	RSSAfter  int64   `json:"rss_after_bytes"`
	RSSPeak   int64   `json:"rss_peak_bytes"` // of its whole life
}

func newReport(c *Config, start time.Time) Report {
	s := Setup{Version: int(c.Version), QoS: int(c.QoS), Size: c.Size, Clients: c.Clients, Count: c.Count,
		Duration: c.Duration.Seconds(), Window: c.Window, Rate: c.Rate, Topics: c.Topics, Fillers: c.Fillers, Batch: c.Batch, Persistent: c.Persistent,
		TLS: c.TLS != nil, Resume: c.Resume, Handshake: c.HandshakeOnly}
	if c.Scenario == Shared {
		s.Members = c.Members
	}
	return Report{Schema: SchemaVersion, Scenario: c.Scenario, Started: start, Setup: s}
}

// spent enters what the processes used between two samples and returns their CPU
// time per one of n.
func (p *Report) spent(before, after []usage, n int64) {
	p.Processes = p.Processes[:0]
	for i, b := range before {
		a := after[i]
		p.Processes = append(p.Processes, Process{PID: a.pid, Name: a.name, CPU: (a.cpu - b.cpu).Seconds(),
			RSSBefore: b.rss, RSSAfter: a.rss, RSSPeak: a.peak})
	}
	p.CPUPerMessage = cpuPer(before, after, n)
}

func cpuPer(before, after []usage, n int64) float64 {
	var cpu time.Duration
	for i := range before {
		cpu += after[i].cpu - before[i].cpu
	}
	if n == 0 {
		return 0
	}
	return float64(cpu.Microseconds()) / float64(n)
}

// count sums up what publishers and subscribers counted, once they have ended.
func (r *run) count(elapsed time.Duration) {
	p := &r.report
	var latency, acks, lag histogram
	for _, b := range r.pubs {
		p.Sent += int64(b.sent.Load())
		p.Stalls += int64(b.gate.stalls)
		lag.merge(&b.lag)
		due := int64(b.sent.Load())
		if a := b.acked; a != nil {
			p.Acknowledged += int64(a.done)
			p.Refused += int64(a.refused)
			p.Unexpected += int64(a.unexpected)
			acks.merge(&a.latency)
			due -= int64(a.refused)
		}
		p.Expected += due * int64(b.receivers)
	}
	for _, s := range r.subs {
		latency.merge(&s.tally.latency)
		p.Misrouted += int64(s.tally.misrouted)
		for i := range s.tally.flows {
			p.Disorder += int64(s.tally.flows[i].disorder)
			if s.tally.group == nil {
				r.countFlow(&s.tally.flows[i], r.pubs[int(s.tally.first)+i], s.id)
			}
		}
	}
	for _, g := range r.groups {
		for i := range g.flows {
			r.countFlow(&g.flows[i], r.pubs[i], "the shared group")
		}
	}
	p.Lost = max(0, p.Expected-p.Delivered)
	p.Seconds = elapsed.Seconds()
	if p.Seconds > 0 {
		p.DeliveryRate = float64(p.Delivered) / p.Seconds
	}
	p.Latency, p.AckLatency, p.SendLag = latency.quantiles(), acks.quantiles(), lag.quantiles()
	if own, err := sample([]int{os.Getpid()}); err == nil {
		p.GeneratorCPU = (own[0].cpu - r.ownCPU).Seconds()
	}
}

func (r *run) countFlow(f *flow, from *publisher, receiver string) {
	p := &r.report
	p.Delivered += int64(f.unique)
	p.Duplicates += int64(f.duplicates)
	spans := f.lost(from.sent.Load())
	if len(spans) == 0 || len(p.Losses) == maxErrors {
		return
	}
	l := Loss{Publisher: from.id, Receiver: receiver, First: spans[0].from, Last: spans[len(spans)-1].to}
	for _, s := range spans {
		l.Lost += int64(s.to-s.from) + 1
	}
	p.Losses = append(p.Losses, l)
}

// verdict moves the errors into the report and says whether the run is one.
func (r *run) verdict(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.errs {
		r.report.Errors = append(r.report.Errors, err.Error())
	}
	r.report.ErrorCount = r.nerrs
	p := &r.report
	switch {
	case ctx.Err() != nil && len(r.errs) > 0:
		return r.errs[0]
	case r.nerrs > 0:
		return fmt.Errorf("%d errors, the first: %w", r.nerrs, r.errs[0])
	case r.cfg.QoS > 0 && p.Lost > 0:
		return fmt.Errorf("%d of %d messages were lost at QoS %d", p.Lost, p.Expected, r.cfg.QoS)
	case r.cfg.QoS == 2 && p.Duplicates > 0:
		return fmt.Errorf("%d messages were delivered twice at QoS 2", p.Duplicates)
	case r.cfg.Strict && p.faults()+p.Refused > 0:
		return fmt.Errorf("%d duplicates, %d out of order, %d misrouted, %d stray acknowledgements, %d refusals, though nothing failed",
			p.Duplicates, p.Disorder, p.Misrouted, p.Unexpected, p.Refused)
	case p.Expected > 0 && p.Delivered == 0:
		return errors.New("no message arrived: check the user's ACL, and that publishers and subscribers reach the same cluster")
	}
	return nil
}

// faults is how much went wrong without a loss.
func (p *Report) faults() int64 { return p.Duplicates + p.Disorder + p.Misrouted + p.Unexpected }

// headline is what a comparison shows of the report: a rate, and the distribution
// of latency, or of what the scenario has in its place.
func (p *Report) headline() (rate float64, q *Quantiles) {
	switch {
	case p.Connections != nil:
		return p.Connections.Rate, p.Connections.Handshake
	case p.Latency == nil:
		return p.DeliveryRate, p.AckLatency
	}
	return p.DeliveryRate, p.Latency
}
