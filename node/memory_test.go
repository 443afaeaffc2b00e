package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Memory is short from one mark on and enough only below a lower one; each is
// said once.
func TestMemoryIsShort(t *testing.T) {
	var out bytes.Buffer
	m := &memory{limit: 1000, log: slog.New(slog.NewTextHandler(&out, nil))}
	for _, step := range []struct {
		used  uint64
		short bool
	}{{700, false}, {800, false}, {801, true}, {900, true}, {760, true}, {749, false}, {790, false}, {900, true}} {
		if m.judge(step.used); m.short.Load() != step.short {
			t.Errorf("short is %v at %d of 1000, want %v", m.short.Load(), step.used, step.short)
		}
	}
	if n := strings.Count(out.String(), "memory is short"); n != 2 {
		t.Errorf("it was said %d times, want 2:\n%s", n, out.String())
	}
}

// The runtime has every figure that is asked for, and what is there can be read.
func TestMemoryInUse(t *testing.T) {
	m, err := openMemory(1<<40, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	m.sample()
	if used := m.used.Load(); used < 1<<20 || used > 1<<38 {
		t.Errorf("%d bytes are in use", used)
	}
	for _, s := range m.samples {
		if s.Value.Kind() == 0 {
			t.Errorf("the runtime does not know %s", s.Name)
		}
	}
	if available() == 0 {
		t.Error("nothing is known of the memory there is")
	}
}

// A node with little in use collects seldom, one with much holds little beside it.
func TestGarbagePercent(t *testing.T) {
	for _, tt := range []struct {
		live, limit uint64 // MiB
		want        int
	}{
		{0, 8192, mostPercent}, {4, 8192, mostPercent}, {160, 8192, 120}, {176, 8192, 100}, {220, 8192, 60}, {1024, 8192, leastPercent},
		{64, 512, 100}, {128, 512, leastPercent},
	} {
		if got := garbagePercent(tt.live<<20, tt.limit<<20); got != tt.want {
			t.Errorf("%d MiB of %d in use: %d %%, want %d", tt.live, tt.limit, got, tt.want)
		}
	}
}
