package bench

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a run of the scenario that takes a moment.
func small(scenario string, qos, version byte) Config {
	c := Config{Scenario: scenario, Addrs: []string{NullAddress}, QoS: qos, Version: version, Clients: 5, Count: 300,
		Members: 3, Window: 20, Rate: 0, PIDs: []int{os.Getpid()}, Wait: 5 * time.Second}
	if scenario == Rate {
		c.Rate = 20000
	}
	if scenario == Idle {
		c.Wait = 10 * time.Millisecond
	}
	return c
}

func TestRunCountsEverything(t *testing.T) {
	receivers := map[string]int64{FanIn: 1500, FanOut: 1500, Pairs: 1500, Rate: 1500, Shared: 1500, Wildcards: 4500}
	for scenario, want := range receivers {
		for _, version := range []byte{3, 4, 5} {
			for qos := range byte(3) {
				c := small(scenario, qos, version)
				r, err := Run(t.Context(), c)
				if err != nil {
					t.Fatalf("%s QoS %d version %d: %v\n%s", scenario, qos, version, err, r.Table())
				}
				if r.Delivered != want || r.Expected != want || r.Lost+r.Duplicates+r.Disorder+r.Misrouted+r.Unexpected != 0 {
					t.Errorf("%s QoS %d version %d: want %d deliveries and no faults:\n%s", scenario, qos, version, want, r.Table())
				}
				if qos > 0 && r.Acknowledged != r.Sent {
					t.Errorf("%s QoS %d: %d of %d acknowledged", scenario, qos, r.Acknowledged, r.Sent)
				}
			}
		}
	}
}

// Every scenario with messages goes at a rate as well, and pairs have more topics
// than one and wildcards that match nothing.
func TestRunVariants(t *testing.T) {
	for _, tt := range []struct {
		name, scenario string
		set            func(*Config)
		want           int64
	}{
		{"paced fan-in", FanIn, func(c *Config) { c.Rate = 20000 }, 1500},
		{"paced fan-out", FanOut, func(c *Config) { c.Rate = 20000 }, 1500},
		{"paced shared", Shared, func(c *Config) { c.Rate = 20000 }, 1500},
		{"topics", Pairs, func(c *Config) { c.Topics = 250 }, 1500},
		{"paced topics", Rate, func(c *Config) { c.Topics = 7 }, 1500},
		{"fillers", Pairs, func(c *Config) { c.Fillers = 1001 }, 1500},
		{"both", Pairs, func(c *Config) { c.Fillers, c.Topics = 3, 3 }, 1500},
	} {
		for qos := range byte(3) {
			c := small(tt.scenario, qos, 5)
			tt.set(&c)
			r, err := Run(t.Context(), c)
			if err != nil || r.Delivered != tt.want || r.Lost+r.Duplicates+r.Disorder+r.Misrouted != 0 || (r.SendLag != nil) != (c.Rate > 0) {
				t.Errorf("%s QoS %d: want %d deliveries: %v\n%s", tt.name, qos, tt.want, err, r.Table())
			}
		}
	}
}

func TestFilters(t *testing.T) {
	for _, version := range []byte{4, 5} {
		c := small(Filters, 0, version)
		c.Count = 2503
		between := false
		c.Between = func(context.Context) error { between = true; return nil }
		r, err := Run(t.Context(), c)
		if err != nil || !between || r.Delivered != maxProbes || r.Lost != 0 || len(r.Figures) != 4 || r.Phases[0].Messages != 2503 {
			t.Errorf("version %d: %v\n%s", version, err, r.Table())
		}
	}
}

// A broker that does not know a filter though it said so is found out.
func TestFiltersAreLost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		copies func(seq int) int
		lost   int64
		fails  bool
	}{
		{"for a while", func(seq int) int { return min(1, seq%10+seq/maxProbes) }, 100, false},
		{"for ever", func(seq int) int { return min(1, seq%10) }, 100, true},
	} {
		null := openNull(t, NullConfig{})
		null.copies = func(payload []byte) int {
			h, _ := parseHeader(payload)
			return tt.copies(int(h.seq))
		}
		c := small(Filters, 0, 4)
		c.Count, c.Addrs, c.Wait = 2000, []string{null.Addr()}, time.Second
		r, err := Run(t.Context(), c)
		if r.Lost != tt.lost || (err != nil) != tt.fails {
			t.Errorf("%s: want %d lost, failure %t: %v\n%s", tt.name, tt.lost, tt.fails, err, r.Table())
		}
	}
}

func TestRunWithoutMessages(t *testing.T) {
	r, err := Run(t.Context(), small(Connects, 0, 5))
	if err != nil || r.Connections.Made != 300 || r.Connections.Handshake.Count != 300 {
		t.Errorf("connect: %v\n%s", err, r.Table())
	}
	r, err = Run(t.Context(), small(Idle, 0, 4))
	if err != nil || r.Connections.Made != 5 {
		t.Errorf("idle: %v\n%s", err, r.Table())
	}
}

// With many topics CPU time counts from when each was used once: the report has the
// whole, and the duration begins after it.
func TestRunWarmsUp(t *testing.T) {
	c := small(Pairs, 0, 4)
	c.Count, c.Duration, c.Topics = 0, 50*time.Millisecond, 2000
	r, err := Run(t.Context(), c)
	if err != nil || r.Delivered < 10_000 || r.Seconds < .05 {
		t.Errorf("want each of 10,000 topics used: %v\n%s", err, r.Table())
	}
}
