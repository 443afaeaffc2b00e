package bench

import (
	"context"
	"fmt"
	"slices"
)

// point is one of the sizes at which a case measures the same thing.
type point struct {
	name string
	n    int
	set  func(*Config)
}

// growthRate is messages per second where the number of clients grows. Each is
// written by itself, so that what a message costs does not depend on how many happen
// to share a read.
const growthRate = 5000

// growth makes a case that measures the CPU time of a message at 100, 1,000 and
// 10,000 clients, half of them publishers, at a fixed rate; and with 100 pairs and
// 1,000, 10,000 and 100,000 topics that are all in use, as fast as it goes.
// Each point is a phase; how much dearer the dearest is than the cheapest are
// the case's figures.
func growth(name string, c Config) Case {
	var clients, topics []point
	for _, n := range []int{100, 1000, 10_000} {
		clients = append(clients, point{thousands(int64(n)) + " clients", n, func(c *Config) {
			c.Scenario, c.Clients, c.Rate = Rate, n/2, growthRate
		}})
	}
	for _, n := range []int{1000, 10_000, 100_000} {
		topics = append(topics, point{thousands(int64(n)) + " topics", n, func(c *Config) {
			c.Scenario, c.Clients, c.Topics = Pairs, 100, n/100
		}})
	}
	// The first run of a program pays for the growth of its memory.
	warm := point{"", 0, func(c *Config) { c.Scenario, c.Clients = Pairs, 100 }}
	c.Size, c.Window = 64, 100
	return Case{Name: name, Config: c, Fresh: true, Own: func(ctx context.Context, _ Target, c Config) (Report, error) {
		s := series{config: c}
		if err := s.run(ctx, warm); err != nil {
			return s.out, err
		}
		for _, kind := range []struct {
			name   string
			points []point
		}{{"clients", clients}, {"topics", topics}} {
			cpu, err := s.all(ctx, kind.points)
			if err != nil {
				return s.out, err
			}
			s.out.figure("dearest by "+kind.name, "of the cheapest", ratio(slices.Max(cpu), slices.Min(cpu)))
		}
		return s.out, nil
	}}
}

// wildcost makes a case that compares what a delivered message costs with 100 and
// with 10,000 wildcard subscriptions, of which one matches, over 5,000 topics.
func wildcost(name string, c Config) Case {
	var points []point
	for _, n := range []int{100, 10_000} {
		points = append(points, point{thousands(int64(n)) + " wildcards", n, func(c *Config) { c.Fillers = n }})
	}
	c.Scenario, c.Clients, c.Topics, c.Size, c.Window = Pairs, 50, 100, 64, 100
	return Case{Name: name, Config: c, Fresh: true, Own: func(ctx context.Context, _ Target, c Config) (Report, error) {
		s := series{config: c}
		if err := s.run(ctx, point{}); err != nil {
			return s.out, err
		}
		cpu, err := s.all(ctx, points)
		if err != nil {
			return s.out, err
		}
		s.out.figure("10,000 wildcards", "of 100", ratio(cpu[1], cpu[0]))
		return s.out, nil
	}}
}

// series is several runs in one report.
type series struct {
	config Config
	out    Report
}

// all measures every point, and returns the CPU time of a message at each.
func (s *series) all(ctx context.Context, points []point) (cpu []float64, err error) {
	for _, p := range points {
		if err := s.run(ctx, p); err != nil {
			return nil, err
		}
		cpu = append(cpu, s.out.Phases[len(s.out.Phases)-1].CPUPerMessage)
	}
	return cpu, nil
}

// run measures one point. Without a name it is not part of the report.
func (s *series) run(ctx context.Context, p point) error {
	c := s.config
	if p.set != nil {
		p.set(&c)
	}
	r, err := Run(ctx, c)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if p.name == "" {
		return nil
	}
	o := &s.out
	o.Schema, o.Scenario, o.Setup = r.Schema, r.Scenario, r.Setup
	if o.Started.IsZero() {
		o.Started = r.Started
	}
	o.Sent += r.Sent
	o.Expected += r.Expected
	o.Delivered += r.Delivered
	o.Lost += r.Lost
	o.Duplicates += r.Duplicates
	o.Disorder += r.Disorder
	o.Misrouted += r.Misrouted
	o.Unexpected += r.Unexpected
	ph := Phase{Name: p.name, N: p.n, Messages: r.Delivered, Seconds: r.Seconds, Rate: r.DeliveryRate, CPUPerMessage: r.CPUPerMessage}
	if r.Latency != nil {
		ph.P99 = r.Latency.P99
	}
	o.Phases = append(o.Phases, ph)
	return nil
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
