package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Target is one broker, or cluster, of a comparison.
type Target struct {
	Name                      string
	Addrs, PubAddrs, SubAddrs []string
	PIDs                      []int
	// TLSAddrs and TLS, where given, are for cases that resume TLS sessions.
	TLSAddrs []string
	TLS      *tls.Config
}

// ParseTarget reads name=addr[,addr…][,pub=addr…][,sub=addr…][,pid=N…].
func ParseTarget(text string) (Target, error) {
	var t Target
	name, rest, ok := strings.Cut(text, "=")
	if !ok || name == "" || rest == "" {
		return t, fmt.Errorf("target %q is not name=host:port[,pub=host:port][,sub=host:port][,pid=N]", text)
	}
	t.Name = name
	for part := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case !ok:
			t.Addrs = append(t.Addrs, part)
		case key == "pub":
			t.PubAddrs = append(t.PubAddrs, value)
		case key == "sub":
			t.SubAddrs = append(t.SubAddrs, value)
		case key == "pid":
			pid, err := strconv.Atoi(value)
			if err != nil {
				return t, fmt.Errorf("the process id %q of target %s is no number", value, name)
			}
			t.PIDs = append(t.PIDs, pid)
		default:
			return t, fmt.Errorf("target %s has an unknown part %q: use pub=, sub= and pid=", name, key)
		}
	}
	return t, nil
}

// Case is a run of a comparison under the name it has in docs/benchmarks.md.
type Case struct {
	Name string
	Config
	// Own, if set, takes the place of Run.
	Own func(context.Context, Target, Config) (Report, error)
}

// durable makes a case with persistent sessions on another node than the publishers.
func durable(name string, c Config) Case {
	c.Size, c.Persistent, c.Strict = 64, true, true
	if c.QoS == 0 {
		c.QoS = 1
	}
	return Case{Name: name, Config: c}
}

// returning makes a case of devices that come back to their persistent sessions
// over resumed TLS. They offer X25519, as devices do.
func returning(name string, c Config) Case {
	c.Scenario, c.Resume, c.Curves = Connects, true, []tls.CurveID{tls.X25519}
	return durable(name, c)
}

// Suite returns the named cases.
func Suite() []Case {
	return []Case{
		{Name: "S1", Config: Config{Scenario: FanIn, Clients: 50, Size: 16}},
		{Name: "S1L", Config: Config{Scenario: FanIn, Clients: 50, Size: 256}},
		{Name: "S2", Config: Config{Scenario: FanOut, Clients: 500, Size: 64}},
		{Name: "S3", Config: Config{Scenario: Pairs, Clients: 100, QoS: 1, Window: 100, Size: 64}},
		{Name: "S4", Config: Config{Scenario: Pairs, Clients: 100, QoS: 2, Window: 100, Size: 64}},
		{Name: "S8", Config: Config{Scenario: Rate, Clients: 100, QoS: 1, Rate: 5000, Size: 64}},
		{Name: "S8L", Config: Config{Scenario: Rate, Clients: 100, QoS: 1, Rate: 1000, Size: 64}},
		durable("R1", Config{Scenario: Pairs, Clients: 1, Window: 100}),
		durable("R3", Config{Scenario: Pairs, Clients: 100, Window: 100}),
		durable("R4", Config{Scenario: Pairs, Clients: 100, QoS: 2, Window: 100}),
		durable("R8", Config{Scenario: Rate, Clients: 100, Rate: 5000}),
		durable("R8L", Config{Scenario: Rate, Clients: 100, Rate: 10, Count: 2}),
		durable("R10k", Config{Scenario: Broadcast, Clients: 10_000, Count: 30}),
		durable("replay", Config{Scenario: Offline, Clients: 100, Count: 5000}),
		returning("connect", Config{Clients: 5000, Count: 10_000, Window: 64}),
		// Older devices: a TLS 1.2 session resumes without a key exchange.
		returning("connect12", Config{Clients: 5000, Count: 10_000, Window: 64, MaxTLS: tls.VersionTLS12}),
		// Everybody at once, as after a balancer's restart.
		returning("storm", Config{Clients: 5000, Count: 5000, Window: 5000}),
		{Name: "shared", Config: Config{Scenario: Shared, Clients: 50, Members: 10, QoS: 1, Version: 5, Size: 64}},
		{Name: "wildcards", Config: Config{Scenario: Wildcards, Clients: 50, QoS: 0, Size: 64}},
		{Name: "offline", Config: Config{Scenario: Offline, Clients: 10, Count: 2000, QoS: 1, Size: 64}},
		{Name: "retained", Config: Config{Scenario: Retained, Clients: 10, Count: 2000, QoS: 1, Size: 64}},
	}
}

// Comparison says what to compare.
type Comparison struct {
	Targets []Target
	Cases   []Case
	Rounds  int // runs of each case against each target
	// Progress, if not nil, gets a line for each run.
	Progress io.Writer
	// Access holds what it takes to be let in: TLS, Username, Password.
	Access Config
}

// Row is one case against one target, or one phase of it ("replay/queue"):
// medians of all rounds. Ratios are to the first target, 0 where they cannot be
// known. P50 and P99 are of the latency of messages; of acknowledgements where
// subscribers are away, and of connections where those are what is measured.
type Row struct {
	Case      string   `json:"case"`
	Target    string   `json:"target"`
	CPU       float64  `json:"cpu_us_per_message"`
	CPURatio  float64  `json:"cpu_ratio"`
	Rate      float64  `json:"delivery_rate"`
	RateRatio float64  `json:"rate_ratio"`
	P50       float64  `json:"p50_ms"`
	P99       float64  `json:"p99_ms"`
	Lost      int64    `json:"lost"` // in all rounds
	Faults    int64    `json:"faults"`
	Errors    []string `json:"errors,omitempty"`
	Reports   []Report `json:"reports"`
}

// Compared is the result of a comparison.
type Compared struct {
	Schema int   `json:"schema"`
	Rows   []Row `json:"rows"`
}

// Compare runs each case against the targets in turn, A B A B …, so that what
// the machine does meanwhile meets all of them. A run that fails is in its row's
// errors; the error tells that some did.
func Compare(ctx context.Context, c Comparison) (Compared, error) {
	out := Compared{Schema: SchemaVersion}
	failed := 0
	for _, k := range c.Cases {
		rows := make([]Row, len(c.Targets))
		for round := range max(c.Rounds, 1) {
			for i, t := range c.Targets {
				if ctx.Err() != nil {
					return out, context.Cause(ctx)
				}
				rows[i].Case, rows[i].Target = k.Name, t.Name
				report, err := k.run(ctx, t, k.against(t, c.Access))
				if err != nil {
					failed++
					rows[i].Errors = append(rows[i].Errors, err.Error())
				}
				rows[i].Reports = append(rows[i].Reports, report)
				if c.Progress != nil {
					rate, _ := report.headline()
					fmt.Fprintf(c.Progress, "%-9s %d/%d %-14s %8.2f µs %11s/s  %s\n", k.Name, round+1, max(c.Rounds, 1), t.Name,
						report.CPUPerMessage, thousands(int64(rate)), errText(err))
				}
			}
		}
		for i := range rows {
			rows[i].sum(&rows[0])
		}
		out.Rows = append(out.Rows, rows...)
		out.Rows = append(out.Rows, phaseRows(rows)...)
	}
	if failed > 0 {
		return out, fmt.Errorf("%d runs failed, see the errors of their rows", failed)
	}
	return out, nil
}

func (k Case) run(ctx context.Context, t Target, c Config) (Report, error) {
	if k.Own != nil {
		return k.Own(ctx, t, c)
	}
	return Run(ctx, c)
}

// phaseRows returns a row for each phase of the rows' reports. A phase that a
// failed run did not come to counts as 0.
func phaseRows(rows []Row) []Row {
	var out []Row
	for i, p := range rows[0].Reports[0].Phases {
		at := len(out)
		for _, r := range rows {
			row := Row{Case: r.Case + "/" + p.Name, Target: r.Target}
			row.CPU = r.pick(func(p *Report) float64 { return p.phaseAt(i).CPUPerMessage })
			row.Rate = r.pick(func(p *Report) float64 { return p.phaseAt(i).Rate })
			out = append(out, row)
			out[len(out)-1].compare(&out[at])
		}
	}
	return out
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// against is the case's configuration for one target.
func (k Case) against(t Target, access Config) Config {
	c := k.Config
	c.Addrs, c.PubAddrs, c.SubAddrs, c.PIDs = t.Addrs, t.PubAddrs, t.SubAddrs, t.PIDs
	c.TLS, c.Username, c.Password = access.TLS, access.Username, access.Password
	if c.Resume && t.TLS != nil {
		c.Addrs, c.PubAddrs, c.SubAddrs, c.TLS = t.TLSAddrs, nil, nil, t.TLS
	}
	if access.Duration > 0 && c.Count == 0 {
		c.Duration = access.Duration
	}
	return c
}

// sum fills the row's figures from its reports; first is the row to compare with.
func (r *Row) sum(first *Row) {
	r.CPU = r.pick(func(p *Report) float64 { return p.CPUPerMessage })
	r.Rate = r.pick(func(p *Report) float64 { rate, _ := p.headline(); return rate })
	quantile := func(f func(*Quantiles) float64) float64 {
		return r.pick(func(p *Report) float64 {
			_, q := p.headline()
			if q == nil {
				return 0
			}
			return f(q)
		})
	}
	r.P50, r.P99 = quantile(func(q *Quantiles) float64 { return q.P50 }), quantile(func(q *Quantiles) float64 { return q.P99 })
	r.Lost, r.Faults = 0, 0
	for i := range r.Reports {
		r.Lost += r.Reports[i].Lost
		r.Faults += r.Reports[i].faults()
	}
	r.compare(first)
}

// pick returns the median of a figure of the row's reports.
func (r *Row) pick(f func(*Report) float64) float64 {
	var all []float64
	for i := range r.Reports {
		all = append(all, f(&r.Reports[i]))
	}
	return median(all)
}

func (r *Row) compare(first *Row) {
	if first.CPU > 0 {
		r.CPURatio = r.CPU / first.CPU
	}
	if first.Rate > 0 {
		r.RateRatio = r.Rate / first.Rate
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Markdown returns the rows as a table.
func (c *Compared) Markdown() string {
	var b strings.Builder
	b.WriteString("| case | target | CPU µs/message | ratio | messages/s | ratio | p50 ms | p99 ms | lost | other faults |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range c.Rows {
		fmt.Fprintf(&b, "| %s | %s | %.2f | %.2f | %s | %.2f | %.2f | %.2f | %s | %s |\n", r.Case, r.Target, r.CPU, r.CPURatio,
			thousands(int64(r.Rate)), r.RateRatio, r.P50, r.P99, thousands(r.Lost), thousands(r.Faults))
	}
	for _, r := range c.Rows {
		for _, p := range r.Reports {
			for _, n := range p.Notes {
				fmt.Fprintf(&b, "\n%s, %s: %s\n", r.Case, r.Target, n)
			}
		}
		for _, e := range r.Errors {
			fmt.Fprintf(&b, "\n%s, %s: %s\n", r.Case, r.Target, e)
		}
	}
	return b.String()
}

// Bound is a demand on a comparison: the target's CPU time per message is at most
// Ratio of the first target's, its rate is at least Rate, and its 99th percentile
// at most P99 milliseconds.
type Bound struct {
	Case, Target     string
	Ratio, Rate, P99 float64 // 0: none
}

// Check returns an error that names the bounds which the figures exceed, and
// those without figures.
func (c *Compared) Check(bounds []Bound) error {
	var errs []error
	for _, b := range bounds {
		i := slices.IndexFunc(c.Rows, func(r Row) bool { return r.Case == b.Case && r.Target == b.Target })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("%s of %s was not measured", b.Case, b.Target))
		case b.Ratio > 0 && (c.Rows[i].CPURatio == 0 || c.Rows[i].CPURatio > b.Ratio):
			errs = append(errs, fmt.Errorf("%s of %s takes %.2f of the CPU time, more than %.2f", b.Case, b.Target, c.Rows[i].CPURatio, b.Ratio))
		case b.Rate > 0 && c.Rows[i].Rate < b.Rate:
			errs = append(errs, fmt.Errorf("%s of %s reaches %.0f/s, less than %.0f", b.Case, b.Target, c.Rows[i].Rate, b.Rate))
		case b.P99 > 0 && (c.Rows[i].P99 == 0 || c.Rows[i].P99 > b.P99):
			errs = append(errs, fmt.Errorf("%s of %s has a 99th percentile of %.2f ms, more than %.2f", b.Case, b.Target, c.Rows[i].P99, b.P99))
		}
	}
	return errors.Join(errs...)
}

// casesByName returns the named cases of the suite, and own as the case "own" if
// no name is given.
func casesByName(names []string, own Config) ([]Case, error) {
	if len(names) == 0 {
		return []Case{{Name: cmp.Or(own.Scenario, Pairs), Config: own}}, nil
	}
	var cases []Case
	for _, name := range names {
		suite := Suite()
		i := slices.IndexFunc(suite, func(k Case) bool { return k.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no case %q: use some of %s", name, caseNames())
		}
		cases = append(cases, suite[i])
	}
	return cases, nil
}

// caseNames lists the cases of the suite.
func caseNames() string {
	var names []string
	for _, k := range Suite() {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

// Cases returns the named cases of the suite, each publishing for the duration.
func Cases(names []string, each time.Duration) ([]Case, error) {
	cases, err := casesByName(names, Config{})
	for i := range cases {
		if cases[i].Count == 0 {
			cases[i].Duration = each
		}
	}
	return cases, err
}
