//go:build !race

package broker

import "testing"

// A message of QoS 0 costs no allocation on its way through a node, whether its
// topic is that of the one before or another: what is allocated is for whole reads.
// The race detector makes pools forget, and so allocate.
func TestMessagesCostNoAllocation(t *testing.T) {
	for name, f := range map[string]func(*testing.B){
		"fan-in": BenchmarkFanIn, "fan-out": BenchmarkFanOut, "topics": BenchmarkTopics,
	} {
		r := testing.Benchmark(f)
		if r.N == 0 {
			t.Fatalf("%s: the benchmark failed", name)
		}
		each := float64(r.MemAllocs) / float64(r.N)
		t.Logf("%s: %.3f allocations a message", name, each)
		if each > 0.25 {
			t.Errorf("%s: %.3f allocations a message", name, each)
		}
	}
}
