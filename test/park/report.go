package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The bars.
const (
	backBar  = 15 * time.Second
	p99Bar   = 100 * time.Millisecond
	stormBar = 50 * time.Millisecond
)

// card collects verdicts.
type card struct {
	missed int
}

// verdict prints one bar. A bar that is only reported is never missed.
func (c *card) verdict(ok, reported bool, bar, format string, args ...any) {
	word := "ok"
	switch {
	case ok:
	case reported:
		word = "slow"
	default:
		word = "MISSED"
		c.missed++
	}
	fmt.Printf("%-7s %s: %s\n", word, bar, fmt.Sprintf(format, args...))
}

// verdicts settles the accounts and prints what came of every bar.
func (p *park) verdicts(ctx context.Context) error {
	a, j, err := p.settle(ctx)
	if err != nil {
		return err
	}
	stale, err := p.audit(ctx, a.Acked)
	if err != nil {
		return err
	}
	s, err := p.workers.status()
	if err != nil {
		return err
	}
	measured, outages, err := p.workers.samples()
	if err != nil {
		return err
	}
	fmt.Println()
	p.printUsage()
	fmt.Printf("connections: %d, of which %d resumed their TLS session; ended: %s\n", s.Connects, s.Resumed, failureText(s.Failures))
	var c card
	p.judgeAccount(&c, j, s, stale)
	kill := p.judgeOutage(&c, outages)
	p.judgeLatency(&c, &measured, kill)
	if c.missed > 0 {
		return fmt.Errorf("%w: %d", errMissed, c.missed)
	}
	return nil
}

// settle waits until nothing is missing, or for as long as it may.
func (p *park) settle(ctx context.Context) (a account, j judgement, err error) {
	err = await(ctx, settleLimit, "nothing is missing", func() (bool, error) {
		a, err = p.workers.account()
		if err != nil {
			return false, err
		}
		j = a.judge(&p.plan)
		return j.lost == 0, nil
	})
	if j.lost > 0 {
		err = nil // that is a verdict and no failure
	}
	return a, j, err
}

func (p *park) judgeAccount(c *card, j judgement, s status, stale int) {
	c.verdict(j.lost == 0 && s.Forgotten == 0 && j.published > 0, false, "nothing acknowledged is lost",
		"%d messages acknowledged, %d deliveries owed to %d persistent sessions and %d unbroken subscriptions, %d lost, %d sessions forgotten, %d duplicates",
		j.published, j.owed, j.persistent, j.unbroken, j.lost, s.Forgotten, j.duplicates)
	for _, e := range j.examples {
		fmt.Println("        ", e)
	}
	c.verdict(j.disorder == 0 && j.misrouted == 0, false, "in order, and to whom it belongs", "%d out of order, %d misrouted", j.disorder, j.misrouted)
	c.verdict(stale == 0, false, "retained states are the last acknowledged ones", "%d of %d stale or missing", stale, p.plan.sensors())
}

// judgeOutage returns the time of the outage.
func (p *park) judgeOutage(c *card, outages []outage) span {
	from, last, count := p.killed, p.killed, 0
	for _, o := range outages {
		down, up := time.Unix(0, o.Down), time.Unix(0, o.Up)
		if down.Before(p.killed) || down.After(p.killed.Add(backLimit)) || !down.Before(p.storms[0].from) {
			continue
		}
		count++
		if up.After(last) {
			last = up
		}
	}
	took := last.Sub(from)
	c.verdict(took <= backBar && count >= p.victims, false, "clients of the killed node are back within 15 s",
		"%d clients, the last after %.2f s", count, took.Seconds())
	return span{from, last}
}

func (p *park) judgeLatency(c *card, s *samples, kill span) {
	reported := p.latency == "report"
	apart := append([]span{kill}, p.storms...)
	for _, k := range []kind{delivered, acknowledged} {
		outside := s.pick(k, true, nil, apart)
		p99 := quantile(outside, .99)
		c.verdict(p99 < p99Bar && len(outside) > 0, reported, "p99 of "+k.String()+" under 100 ms outside of the outage", "%s", quantiles(outside))
	}
	for _, k := range []kind{delivered, acknowledged} {
		var p99s []time.Duration
		for i, storm := range p.storms {
			others := s.pick(k, false, []span{storm}, nil)
			p99s = append(p99s, quantile(others, .99))
			fmt.Printf("        storm %d, %.1f s: %s of the others %s\n", i+1, storm.to.Sub(storm.from).Seconds(), k, quantiles(others))
		}
		slices.Sort(p99s) // 0 first: a storm in which nobody was measured is none that was passed
		median := p99s[len(p99s)/2]
		c.verdict(p99s[0] > 0 && median < stormBar, reported, "p99 of "+k.String()+" under 50 ms for the others in a storm", "%.1f ms, the median of %d (%.1f to %.1f)",
			median.Seconds()*1e3, len(p99s), p99s[0].Seconds()*1e3, p99s[len(p99s)-1].Seconds()*1e3)
	}
	fmt.Printf("        during the outage: delivery %s\n", quantiles(s.pick(delivered, true, []span{kill}, nil)))
	fmt.Printf("        the generators were late by: outside %s; in the storms %s\n",
		quantiles(s.pick(lag, true, nil, apart)), quantiles(s.pick(lag, false, p.storms, nil)))
}

func quantiles(sorted []uint32) string {
	if len(sorted) == 0 {
		return "no samples"
	}
	ms := func(q float64) float64 { return float64(quantile(sorted, q).Microseconds()) / 1000 }
	return fmt.Sprintf("p50 %.1f, p99 %.1f, p99.9 %.1f, most %.1f ms (%d)", ms(.5), ms(.99), ms(.999), ms(1), len(sorted))
}

// printUsage tells how much of the machine the parts had in each phase.
func (p *park) printUsage() {
	for i := 1; i < len(p.usage); i++ {
		a, b := p.usage[i-1], p.usage[i]
		took := b.at.Sub(a.at).Seconds()
		// A node that was killed took its count with it.
		share := func(x, y time.Duration) string {
			if y < x {
				return "?"
			}
			return fmt.Sprintf("%.2f", (y-x).Seconds()/took)
		}
		fmt.Printf("cores in %-8s %6.1f s: nodes %s, HAProxy %s, generators %s\n", b.phase+",", took,
			share(a.nodes, b.nodes), share(a.balancers, b.balancers), share(a.generators, b.generators))
	}
}
