package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines makes events of "action package test output".
func lines(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		f := append(strings.SplitN(e, " ", 4), "", "", "")
		b.WriteString(`{"Action":"` + f[0] + `","Package":"` + f[1] + `"`)
		if f[2] != "" {
			b.WriteString(`,"Test":"` + f[2] + `"`)
		}
		if f[3] != "" {
			b.WriteString(`,"Output":"` + f[3] + `\n"`)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		name    string
		runs    []string
		closing string
		details string
		fails   bool
	}{
		{
			name:    "passed and skipped",
			runs:    []string{lines("start p", "run p A", "pass p A", "run p B", "output p B === RUN", "output p B b_test.go:3: no disk", "skip p B", "pass p")},
			closing: "1 passed, 0 failed, 1 skipped",
			details: "skipped: p B: b_test.go:3: no disk\n",
		},
		{
			name:    "failed",
			runs:    []string{lines("start p", "run p A", "output p A want 1", "fail p A", "fail p")},
			closing: "0 passed, 1 failed, 0 skipped",
			details: "failed: p A\nwant 1\n",
			fails:   true,
		},
		{
			name: "two runs of the same tests, the worst counts",
			runs: []string{
				lines("start p", "run p A", "pass p A", "run p B", "skip p B", "run p C", "pass p C", "pass p"),
				lines("start p", "run p A", "output p A race", "fail p A", "run p B", "pass p B", "run p C", "skip p C", "fail p"),
			},
			closing: "2 passed, 1 failed, 0 skipped",
			details: "failed: p A\nrace\n",
			fails:   true,
		},
		{
			name: "does not build",
			runs: []string{`{"ImportPath":"p","Action":"build-output","Output":"a.go:1: no\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
` + lines("start q", "run q A", "pass q A", "pass q")},
			closing: "1 passed, 1 failed, 0 skipped",
			details: "does not build: p\na.go:1: no\nfailed: p \nFAIL\tp [build failed]\n",
			fails:   true,
		},
		{
			name:    "the process of a test was ended",
			runs:    []string{lines("start p", "run p A", "output p A panic: no", "fail p")},
			closing: "0 passed, 1 failed, 0 skipped",
			fails:   true,
		},
		{
			name:    "the run was ended",
			runs:    []string{lines("start p", "run p A")},
			closing: "0 passed, 1 failed, 0 skipped",
			fails:   true,
		},
		{name: "nothing ran", runs: []string{lines("start p", "skip p")}, closing: "0 passed, 0 failed, 0 skipped", fails: true},
		{name: "text beside the events", runs: []string{"go: downloading\n" + lines("start p", "run p A", "pass p A", "pass p")}, closing: "1 passed, 0 failed, 0 skipped"},
		{
			name: "a package that ends badly", runs: []string{lines("start p", "run p A", "pass p A", "output p  leak found", "fail p")},
			closing: "1 passed, 1 failed, 0 skipped", details: "failed: p \nleak found\n", fails: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSummary()
			for _, r := range tt.runs {
				if err := s.read(strings.NewReader(r)); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.closing(); got != tt.closing {
				t.Errorf("closing: %q, want %q", got, tt.closing)
			}
			if err := s.verdict(); (err != nil) != tt.fails {
				t.Errorf("verdict: %v, want failure %v", err, tt.fails)
			}
			if tt.details == "" {
				return
			}
			var b strings.Builder
			s.details(&b)
			if diff := cmp.Diff(tt.details, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBrokenReport(t *testing.T) {
	if err := newSummary().read(strings.NewReader("{\"Action\":\n")); err == nil {
		t.Error("half an event was taken")
	}
}

func TestSlow(t *testing.T) {
	s := newSummary()
	run := `{"Action":"pass","Package":"p","Test":"A","Elapsed":1.25}
{"Action":"pass","Package":"p","Test":"B/sub","Elapsed":9}
{"Action":"pass","Package":"p","Test":"B","Elapsed":10.5}
{"Action":"fail","Package":"q","Test":"C","Elapsed":2}
{"Action":"pass","Package":"q","Elapsed":20}
`
	if err := s.read(strings.NewReader(run)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s.slow(&out, 2)
	if d := cmp.Diff("   10.5 s p B\n    2.0 s q C\n", out.String()); d != "" {
		t.Error(d)
	}
}
