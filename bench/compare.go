package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Target is one broker, or cluster, of a comparison.
type Target struct {
	Name                      string
	Addrs, PubAddrs, SubAddrs []string
	PIDs                      []int
	// TLSAddrs and TLS, where given, are for cases that resume TLS sessions.
	TLSAddrs []string
	TLS      *tls.Config
	// MutualAddrs want a client certificate, which Mutual has.
	MutualAddrs []string
	Mutual      *tls.Config
	// NoQoS2 says that the broker does not know QoS 2.
	NoQoS2 bool
	// Metrics are addresses (host:port) that answer /metrics in Prometheus' form,
	// one for each process.
	Metrics []string
	// Renew, if set, starts the target anew, without what earlier cases left in its
	// memory, and ends the one that was there.
	Renew func(context.Context) (Target, error)
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

// Compare runs each case against the targets in turn, A B A B …, so that what
// the machine does meanwhile meets all of them. A target that a case does not fit
// has no row of it. A run that fails is in its row's errors; the error tells that
// some did.
func Compare(ctx context.Context, c Comparison) (Compared, error) {
	out := Compared{Schema: SchemaVersion}
	failed := 0
	for _, k := range c.Cases {
		rows, err := c.compare(ctx, k)
		if err != nil {
			return out, err
		}
		for i := range rows {
			failed += len(rows[i].Errors)
		}
		out.Rows = append(out.Rows, rows...)
		out.Rows = append(out.Rows, phaseRows(rows, k.base(rows))...)
	}
	if failed > 0 {
		return out, fmt.Errorf("%d runs failed, see the errors of their rows", failed)
	}
	return out, nil
}

// compare runs one case. Only what ends the comparison is an error.
func (c *Comparison) compare(ctx context.Context, k Case) ([]Row, error) {
	var rows []Row
	var at []int // the target of each row
	for i, t := range c.Targets {
		if k.fits(t, c.Access) {
			rows, at = append(rows, Row{Case: k.Name, Target: t.Name}), append(at, i)
		}
	}
	rounds := max(c.Rounds, 1)
	if k.Rounds > 0 {
		rounds = min(rounds, k.Rounds)
	}
	for round := range rounds {
		for i := range rows {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			t := &c.Targets[at[i]]
			if k.Fresh && t.Renew != nil {
				again, err := t.Renew(ctx)
				if err != nil {
					return nil, fmt.Errorf("start %s anew for %s: %w", t.Name, k.Name, err)
				}
				*t = again
			}
			report, err := k.run(ctx, *t, k.against(*t, c.Access))
			if err != nil {
				rows[i].Errors = append(rows[i].Errors, err.Error())
			}
			rows[i].Reports = append(rows[i].Reports, report)
			c.progress(fmt.Sprintf("%-13s %d/%d %-10s", k.Name, round+1, rounds, t.Name), &report, err)
		}
	}
	for i := range rows {
		rows[i].sum()
	}
	for i := range rows {
		rows[i].compare(&rows[k.base(rows)])
	}
	return rows, nil
}

// progress writes what one run has found.
func (c *Comparison) progress(what string, p *Report, err error) {
	if c.Progress == nil {
		return
	}
	rate, _ := p.headline()
	fmt.Fprintf(c.Progress, "%s %8.2f µs %11s/s ", what, p.CPUPerMessage, thousands(int64(rate)))
	for _, f := range p.Figures {
		fmt.Fprintf(c.Progress, " %s", f)
	}
	if err != nil {
		fmt.Fprintf(c.Progress, " %v", err)
	}
	fmt.Fprintln(c.Progress)
}

// fits tells whether the case can be run against the target.
func (k Case) fits(t Target, access Config) bool {
	return (!k.Mutual || t.Mutual != nil) && (k.QoS < 2 || !t.NoQoS2) && (!k.Resume || t.TLS != nil || access.TLS != nil)
}

// base is the row that ratios are to.
func (k Case) base(rows []Row) int {
	return max(0, slices.IndexFunc(rows, func(r Row) bool { return r.Target == k.Base }))
}

func (k Case) run(ctx context.Context, t Target, c Config) (Report, error) {
	if k.Own != nil {
		return k.Own(ctx, t, c)
	}
	return Run(ctx, c)
}

// against is the case's configuration for one target.
func (k Case) against(t Target, access Config) Config {
	c := k.Config
	c.Addrs, c.PubAddrs, c.SubAddrs, c.PIDs = t.Addrs, t.PubAddrs, t.SubAddrs, t.PIDs
	c.TLS, c.Username, c.Password = access.TLS, access.Username, access.Password
	if c.Resume && t.TLS != nil {
		c.Addrs, c.PubAddrs, c.SubAddrs, c.TLS = t.TLSAddrs, nil, nil, t.TLS
	}
	if k.Mutual && t.Mutual != nil {
		c.Addrs, c.PubAddrs, c.SubAddrs, c.TLS = t.MutualAddrs, nil, nil, t.Mutual
	}
	if access.Duration > 0 && c.Count == 0 {
		c.Duration = access.Duration
	}
	return c
}
