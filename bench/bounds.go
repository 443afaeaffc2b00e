package bench

import (
	"errors"
	"fmt"
	"slices"
)

// Bound is a demand on a comparison: the target's CPU time per message is at most
// Ratio of that of the case's base, its rate is at least Rate, its 99th percentile
// at most P99 milliseconds, its CPU at most so many microseconds, and the named
// Figure at most Most.
type Bound struct {
	Case, Target     string
	Of               string // the target that Ratio is to, instead of the base
	Figure           string
	Most             float64
	CPU              float64 // µs per message
	Ratio, Rate, P99 float64 // 0: none
}

// Check returns an error that names the bounds which the figures exceed, and
// those without figures.
func (c *Compared) Check(bounds []Bound) error {
	var errs []error
	for _, b := range bounds {
		if found, met := c.Judge(b); !met {
			errs = append(errs, fmt.Errorf("%s: %s", b, found))
		}
	}
	return errors.Join(errs...)
}

// String says what is demanded.
func (b Bound) String() string {
	what := b.Case + " of " + b.Target
	switch {
	case b.Figure != "":
		return fmt.Sprintf("%s, %s ≤ %g", what, b.Figure, b.Most)
	case b.Ratio > 0 && b.Of != "":
		return fmt.Sprintf("%s, CPU ≤ %g of %s's", what, b.Ratio, b.Of)
	case b.Ratio > 0:
		return fmt.Sprintf("%s, CPU ratio ≤ %g", what, b.Ratio)
	case b.CPU > 0:
		return fmt.Sprintf("%s, CPU ≤ %g µs", what, b.CPU)
	case b.Rate > 0:
		return fmt.Sprintf("%s ≥ %s/s", what, thousands(int64(b.Rate)))
	case b.P99 > 0:
		return fmt.Sprintf("%s, p99 ≤ %g ms", what, b.P99)
	}
	return what + " without failed runs"
}

// Judge returns what was measured in the place of a bound, and whether it is within.
// A row with a run that failed is within none.
func (c *Compared) Judge(b Bound) (found string, met bool) {
	r, ok := c.row(b.Case, b.Target)
	if !ok {
		return "not measured", false
	}
	clean := len(r.Errors) == 0
	switch {
	case b.Figure != "":
		i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == b.Figure })
		if i < 0 {
			return "not measured", false
		}
		return fmt.Sprintf("%.2f %s", r.Figures[i].Value, r.Figures[i].Unit), clean && r.Figures[i].Value <= b.Most
	case b.Ratio > 0:
		got := r.CPURatio
		if b.Of != "" {
			of, _ := c.row(b.Case, b.Of)
			if got = 0; of.CPU > 0 {
				got = r.CPU / of.CPU
			}
		}
		return fmt.Sprintf("%.2f", got), clean && got > 0 && got <= b.Ratio
	case b.CPU > 0:
		return fmt.Sprintf("%.2f µs", r.CPU), clean && r.CPU > 0 && r.CPU <= b.CPU
	case b.Rate > 0:
		return thousands(int64(r.Rate)) + "/s", clean && r.Rate >= b.Rate
	case b.P99 > 0:
		return fmt.Sprintf("%.2f ms", r.P99), clean && r.P99 > 0 && r.P99 <= b.P99
	}
	return fmt.Sprintf("%d failed", len(r.Errors)), clean
}

func (c *Compared) row(name, target string) (Row, bool) {
	i := slices.IndexFunc(c.Rows, func(r Row) bool { return r.Case == name && r.Target == target })
	if i < 0 {
		return Row{}, false
	}
	return c.Rows[i], true
}
