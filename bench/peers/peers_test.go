package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/bench"
)

func TestParseBound(t *testing.T) {
	for text, want := range map[string]bench.Bound{
		"S1:one:0.4":        {Case: "S1", Target: "one", Ratio: .4},
		"S1:one:1.5*nats":   {Case: "S1", Target: "one", Ratio: 1.5, Of: "nats"},
		"S1:three:3us":      {Case: "S1", Target: "three", CPU: 3},
		"S3:three:20000/s":  {Case: "S3", Target: "three", Rate: 20000},
		"S8:three:10ms":     {Case: "S8", Target: "three", P99: 10},
		"idle.memory:one:9": {Case: "idle", Target: "one", Figure: "memory", Most: 9},
	} {
		got, err := parseBound(text)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", text, err, d)
		}
	}
	for _, text := range []string{"", "S1:one", "S1:one:x", "S1:one:0", "S1:one:-1ms"} {
		if b, err := parseBound(text); err == nil {
			t.Errorf("%q: %+v", text, b)
		}
	}
}

// Every aim can be parsed, and names a case of the plan and a target that runs it.
func TestAimsAreMeasured(t *testing.T) {
	runs := map[string]string{}
	for _, s := range plan() {
		for name := range strings.SplitSeq(s.suite, ",") {
			runs[name] += s.targets + " "
			if _, err := bench.Cases([]string{name}, time.Second); err != nil {
				t.Error(err)
			}
		}
	}
	for _, text := range aims {
		b, err := parseBound(text)
		if err != nil {
			t.Error(err)
		}
		for _, target := range []string{b.Target, b.Of} {
			if target != "" && !strings.Contains(runs[b.Case], target) {
				t.Errorf("%s: not in the plan", b)
			}
		}
	}
}

// wellFormed fails if a picture is no XML.
func wellFormed(t *testing.T, picture string) {
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
	}
}

func TestDocument(t *testing.T) {
	rows := []bench.Row{
		{Case: "S1", Target: "mosquitto", CPU: 8.125, CPURatio: 1}, {Case: "S1", Target: "a<b", CPU: .6789}, {Case: "S8", Target: "one", P99: 12.34},
		{Case: "idle", Target: "one", Figures: []bench.Figure{{Name: "memory", Unit: "KiB/connection", Value: 9.9}}},
		{Case: "growth", Target: "one", Reports: []bench.Report{{Schema: 1}}}, {Case: "growth/100 clients", Target: "one", CPU: 3}, {Case: "growth/1,000 clients", Target: "one", CPU: 4.25},
		{Case: "growth/100 topics", Target: "one"},
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "b.md")
	d := document{Machine: machine{Date: "2026-01-02", CPU: "Z80", Cores: 2, Versions: map[string]string{"mosquitto": "2.0.11"}, Command: "make it"},
		Sections: []section{{Title: "All", Text: "Text.", Result: bench.Compared{Rows: rows}}}, Aims: []aim{{Aim: "S1 fast", Found: "2.00", Met: true}, {Aim: "S2 fast"}}}
	if err := d.write(path, dir, bench.Compared{Rows: rows}); err != nil {
		t.Fatal(err)
	}
	for file, parts := range map[string][]string{
		"b.md":               {"Z80, 2 cores", "mosquitto 2.0.11, ", "    make it\n", "## All", "Text.", "/cpu.svg)", "| S1 | mosquitto | 8.12 |", "| S1 fast | 2.00 | reached |", "**missed**"},
		"results.json":       {`"case": "S1"`, `"cpu": "Z80"`},
		"cpu.svg":            {"8.12", "0.68", "a&lt;b"},
		"latency.svg":        {"12.3"},
		"idle.svg":           {"9.9"},
		"growth-clients.svg": {"1,000 clients", "4.25"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s lacks %q:\n%s", file, part, text)
			}
		}
		if strings.HasSuffix(file, ".svg") {
			wellFormed(t, string(text))
		}
		if strings.Contains(string(text), `"reports": [`) {
			t.Errorf("%s has the reports of all runs", file)
		}
	}
}

func TestAxis(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		log    bool
		want   []float64
	}{
		{[]float64{.3, 400}, true, []float64{.1, 1, 10, 100}},
		{[]float64{0, 30, 80}, false, []float64{0, 10, 20, 30, 40, 50, 60, 70, 80}},
		{[]float64{12}, false, []float64{0, 2.5, 5, 7.5, 10}},
		{nil, false, []float64{0, .25, .5, .75, 1}},
	} {
		a := newAxis(tt.values, tt.log)
		if d := cmp.Diff(tt.want, a.ticks(), cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })); d != "" {
			t.Errorf("%v: %s", tt.values, d)
		}
		for _, v := range tt.values {
			if at := a.at(v); at < 0 || at > 1 {
				t.Errorf("%v of %v is at %v", v, tt.values, at)
			}
		}
	}
}
