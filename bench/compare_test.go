package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A case that some targets do not fit has no rows of them, its ratios are to its
// base, and a target is started anew before each run where the case asks for it.
func TestCompareFigures(t *testing.T) {
	renewed := 0
	var target func(name string) Target
	target = func(name string) Target {
		return Target{Name: name, Addrs: []string{"x"}, Mutual: &tls.Config{}, MutualAddrs: []string{name}, Renew: func(context.Context) (Target, error) {
			renewed++
			return target(name), nil
		}}
	}
	plain := target("plain")
	plain.Mutual = nil
	values := map[string]float64{"a": 2, "null": 4}
	old := target("old")
	old.NoQoS2 = true
	c := Comparison{Rounds: 3, Targets: []Target{plain, old, target("a"), target("null")}, Cases: []Case{{Name: "x", Base: "null", Mutual: true,
		Fresh: true, Rounds: 2, Config: Config{QoS: 2}, Own: func(_ context.Context, t Target, c Config) (Report, error) {
			if c.TLS != t.Mutual || c.TLS == nil || c.Addrs[0] != t.Name {
				return Report{}, errors.New("not over the listener that wants a certificate")
			}
			var p Report
			p.figure("memory", "KiB", values[t.Name])
			return p, nil
		}}}}
	got, err := Compare(t.Context(), c)
	if err != nil || renewed != 4 {
		t.Fatalf("%d times anew, %v", renewed, err)
	}
	var rows []string
	for _, r := range got.Rows {
		rows = append(rows, r.Target)
	}
	if d := cmp.Diff([]string{"a", "null"}, rows); d != "" {
		t.Fatal(d)
	}
	want := []Figure{{Name: "memory", Unit: "KiB", Value: 2, Ratio: .5}}
	if d := cmp.Diff(want, got.Rows[0].Figures); d != "" {
		t.Error(d)
	}
	if text := got.Markdown(); !strings.Contains(text, "| x | a | memory | 2.00 | KiB | 0.50 |") {
		t.Error(text)
	}
	if err := got.Check([]Bound{{Case: "x", Target: "a", Figure: "memory", Most: 2}}); err != nil {
		t.Error(err)
	}
	if err := got.Check([]Bound{{Case: "x", Target: "a", Figure: "memory", Most: 1.9}, {Case: "x", Target: "a", Figure: "time"}}); err == nil ||
		strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two broken bounds: %v", err)
	}
}

// A null broker with TLS is a server that handshakes are compared with: it wants
// the client's certificate.
func TestNullCommandErrors(t *testing.T) {
	if _, err := execute(t, "null", "--tls-listen", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "needs a certificate") {
		t.Error(err)
	}
	c := small(Idle, 0, 4)
	c.Wait = time.Millisecond
	r, err := Run(t.Context(), c)
	if err != nil || len(r.Figures) != 1 || r.Figures[0].Unit != "KiB/connection" {
		t.Errorf("%v: %+v", err, r.Figures)
	}
}

func TestBounds(t *testing.T) {
	c := Compared{Rows: []Row{
		{Case: "S1", Target: "mosquitto", CPU: 8, CPURatio: 1},
		{Case: "S1", Target: "nats", CPU: 1, CPURatio: .125},
		{Case: "S1", Target: "one", CPU: 2, CPURatio: .25, Rate: 1000, P99: 7},
		{Case: "S2", Target: "one", CPU: 2, CPURatio: .25, Rate: 1000, Errors: []string{"x"}},
	}}
	for _, tt := range []struct {
		Bound
		text, found string
		met         bool
	}{
		{Bound{Case: "S1", Target: "one", Ratio: .25}, "S1 of one, CPU ratio ≤ 0.25", "0.25", true},
		{Bound{Case: "S1", Target: "one", Ratio: .24}, "S1 of one, CPU ratio ≤ 0.24", "0.25", false},
		{Bound{Case: "S1", Target: "one", Ratio: 1.5, Of: "nats"}, "S1 of one, CPU ≤ 1.5 of nats's", "2.00", false},
		{Bound{Case: "S1", Target: "one", Ratio: 2, Of: "nats"}, "S1 of one, CPU ≤ 2 of nats's", "2.00", true},
		{Bound{Case: "S1", Target: "one", Ratio: 2, Of: "nobody"}, "S1 of one, CPU ≤ 2 of nobody's", "0.00", false},
		{Bound{Case: "S1", Target: "one", CPU: 3}, "S1 of one, CPU ≤ 3 µs", "2.00 µs", true},
		{Bound{Case: "S1", Target: "one", Rate: 1001}, "S1 of one ≥ 1,001/s", "1,000/s", false},
		{Bound{Case: "S1", Target: "one", P99: 10}, "S1 of one, p99 ≤ 10 ms", "7.00 ms", true},
		{Bound{Case: "S2", Target: "one", Rate: 1}, "S2 of one ≥ 1/s", "1,000/s", false},
		{Bound{Case: "S3", Target: "one", Rate: 1}, "S3 of one ≥ 1/s", "not measured", false},
	} {
		if found, met := c.Judge(tt.Bound); tt.Bound.String() != tt.text || found != tt.found || met != tt.met {
			t.Errorf("%s: %s, %t", tt.Bound, found, met)
		}
	}
}
