package bench

import (
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
