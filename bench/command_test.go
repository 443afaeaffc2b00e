package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func execute(t *testing.T, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := Command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors = true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestCommand(t *testing.T) {
	out, err := execute(t, "--addr", "null", "--scenario", "pairs", "--qos", "1", "--clients", "3", "--count", "50", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Delivered != 150 || r.Schema != SchemaVersion {
		t.Errorf("%v: %s", err, out)
	}
	out, err = execute(t, "null", "--scenario", "fanin", "--clients", "3", "--count", "50")
	if err != nil || !strings.Contains(out, "150 of 150") {
		t.Errorf("%v: %s", err, out)
	}
}

// The names of the JSON form are what scripts rely on.
func TestReportSchema(t *testing.T) {
	out, err := execute(t, "--addr", "null", "--scenario", "rate", "--qos", "1", "--clients", "3", "--count", "5", "--rate", "9999", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	for key := range strings.FieldsSeq(`schema scenario started setup seconds sent acknowledged refused expected delivered lost duplicates disorder
		misrouted unexpected_acks stalls delivery_rate latency ack_latency send_lag generator_cpu_seconds error_count`) {
		if _, ok := r[key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	var quantiles []string
	for key := range strings.FieldsSeq("count mean_ms p50_ms p90_ms p99_ms p999_ms max_ms") {
		if _, ok := r["latency"].(map[string]any)[key]; !ok {
			quantiles = append(quantiles, key)
		}
	}
	if len(quantiles) > 0 {
		t.Errorf("latency lacks %v", quantiles)
	}
}

func TestCommandErrors(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"", "no broker address"},
		{"--addr x:1 --scenario fanfare", `no scenario "fanfare"`},
		{"--addr x:1 --qos 3", "QoS 3 is none of"},
		{"--addr x:1 --version 6", "version 6"},
		{"--addr x:1 --size 8", "too small"},
		{"--addr x:1 --qos 1 --window -1", "window of -1"},
		{"--addr x:1 --scenario offline", "at QoS 0"},
		{"--addr x:1 --scenario offline --qos 1 --duration 1s", "needs a --count"},
		{"--addr x:1 --resume", "only TLS sessions"},
		{"--addr x:1 -o xml", "neither table nor json"},
		{"--addr x:1 --cert c --key k", "needs TLS"},
		{"--addr x:1 --tls --cert c", "both --cert and --key"},
		{"--addr x:1 --cafile " + empty, "no certificate in PEM form"},
		{"--addr x:1 --password-file " + empty, "a password needs a user"},
		{"--addr x:1 -u ada --password-file " + empty + ".no", "read the password"},
		{"--addr null --pid 999999999", "usage of process 999999999"},
		{"compare", "at least one --target"},
		{"compare --target a", "is not name=host:port"},
		{"compare --target a=x:1,pid=z", "no number"},
		{"compare --target a=x:1,color=red", `unknown part "color"`},
		{"compare --target a=x:1 --suite S99", `no case "S99"`},
	} {
		if out, err := execute(t, strings.Fields(tt.args)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v\n%s", tt.args, err, out)
		}
	}
}

func TestCompare(t *testing.T) {
	a, b := openNull(t, NullConfig{}), openNull(t, NullConfig{})
	b.copies = func(payload []byte) int { // loses every second message
		h, _ := parseHeader(payload)
		return int(h.seq) % 2
	}
	c := Comparison{Rounds: 3, Cases: []Case{{Name: "x", Config: small(Pairs, 1, 4)}},
		Targets: []Target{{Name: "a", Addrs: []string{a.Addr()}}, {Name: "b", Addrs: []string{b.Addr()}}}}
	c.Cases[0].Wait = 300 * time.Millisecond
	got, err := Compare(t.Context(), c)
	if err == nil || len(got.Rows) != 2 {
		t.Fatalf("%v: %s", err, got.Markdown())
	}
	if r := got.Rows[0]; r.Lost != 0 || r.RateRatio != 1 || len(r.Reports) != 3 || len(r.Errors) != 0 {
		t.Errorf("a: %s", got.Markdown())
	}
	if r := got.Rows[1]; r.Lost != 3*750 || len(r.Errors) != 3 {
		t.Errorf("b: %s", got.Markdown())
	}
	if err := got.Check([]Bound{{Case: "x", Target: "a", Rate: 1}}); err != nil {
		t.Error(err)
	}
	if err := got.Check([]Bound{{Case: "x", Target: "a", Rate: 1e12}, {Case: "x", Target: "b", Ratio: .1}, {Case: "y", Target: "a"}}); err == nil ||
		strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three broken bounds: %v", err)
	}
}

func TestParseTarget(t *testing.T) {
	got, err := ParseTarget("x=h:1,h:2,pub=p:1,sub=s:1,pid=7,pid=8")
	want := Target{Name: "x", Addrs: []string{"h:1", "h:2"}, PubAddrs: []string{"p:1"}, SubAddrs: []string{"s:1"}, PIDs: []int{7, 8}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
}

func TestParseStat(t *testing.T) {
	u, err := parseStat([]byte("12 (a (b) c) S 1 12 12 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 2 3"))
	if err != nil || u.name != "a (b) c" || u.cpu != 2*time.Second {
		t.Errorf("%+v, %v", u, err)
	}
	for _, bad := range []string{"", "1 a", "1 (a) S 1"} {
		if u, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, u)
		}
	}
	if got := statusBytes([]byte("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n"), "VmRSS"); got != 12<<10 {
		t.Errorf("VmRSS %d", got)
	}
}
