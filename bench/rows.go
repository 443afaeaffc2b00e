package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Row is one case against one target, or one phase of it ("replay/queue"):
// medians of all rounds. Ratios are to the case's base, 0 where they cannot be
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
	Figures   []Figure `json:"figures,omitempty"`
	Errors    []string `json:"errors,omitempty"`
	Reports   []Report `json:"reports"`
}

// Compared is the result of a comparison.
type Compared struct {
	Schema int   `json:"schema"`
	Rows   []Row `json:"rows"`
}

// phaseRows returns a row for each phase of the rows' reports. A phase that a
// failed run did not come to counts as 0.
func phaseRows(rows []Row, base int) []Row {
	var out []Row
	if len(rows) == 0 {
		return nil
	}
	var phases []Phase // of the run that came furthest
	for _, r := range rows {
		for i := range r.Reports {
			if len(r.Reports[i].Phases) > len(phases) {
				phases = r.Reports[i].Phases
			}
		}
	}
	for i, p := range phases {
		at := len(out)
		for _, r := range rows {
			row := Row{Case: r.Case + "/" + p.Name, Target: r.Target}
			row.CPU = r.pick(func(p *Report) float64 { return p.phaseAt(i).CPUPerMessage })
			row.Rate = r.pick(func(p *Report) float64 { return p.phaseAt(i).Rate })
			row.P99 = r.pick(func(p *Report) float64 { return p.phaseAt(i).P99 })
			out = append(out, row)
		}
		for j := range rows {
			out[at+j].compare(&out[at+base])
		}
	}
	return out
}

// sum fills the row's figures from its reports.
func (r *Row) sum() {
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
	r.Figures = r.Figures[:0]
	var names []Figure // of the run that came furthest
	for i := range r.Reports {
		if len(r.Reports[i].Figures) > len(names) {
			names = r.Reports[i].Figures
		}
	}
	for i, f := range names {
		f.Value = r.pick(func(p *Report) float64 { return p.figureAt(i) })
		r.Figures = append(r.Figures, f)
	}
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
	for i := range min(len(r.Figures), len(first.Figures)) {
		if v := first.Figures[i].Value; v > 0 {
			r.Figures[i].Ratio = r.Figures[i].Value / v
		}
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
	for _, r := range c.Rows {
		if r.CPU == 0 && r.Rate == 0 && len(r.Figures) > 0 {
			continue // all it measures is in its figures
		}
		if b.Len() == 0 {
			b.WriteString("| case | target | CPU µs/message | ratio | messages/s | ratio | p50 ms | p99 ms | lost | other faults |\n")
			b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
		}
		fmt.Fprintf(&b, "| %s | %s | %.2f | %.2f | %s | %.2f | %.2f | %.2f | %s | %s |\n", r.Case, r.Target, r.CPU, r.CPURatio,
			thousands(int64(r.Rate)), r.RateRatio, r.P50, r.P99, thousands(r.Lost), thousands(r.Faults))
	}
	if figures := c.figures(); figures != "" {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(figures)
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

// figures returns those that only some cases have, as a table of their own.
func (c *Compared) figures() string {
	var b strings.Builder
	for _, r := range c.Rows {
		for _, f := range r.Figures {
			if b.Len() == 0 {
				b.WriteString("| case | target | figure | value | unit | ratio |\n|---|---|---|---:|---|---:|\n")
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %s | %.2f |\n", r.Case, r.Target, f.Name, f.Value, f.Unit, f.Ratio)
		}
	}
	return b.String()
}
