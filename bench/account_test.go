package bench

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestFlow(t *testing.T) {
	for _, tt := range []struct {
		name                         string
		seqs                         []uint32
		sent                         uint32
		unique, duplicates, disorder uint64
		lost                         []span
	}{
		{"in order", []uint32{0, 1, 2}, 3, 3, 0, 0, nil},
		{"nothing", nil, 2, 0, 0, 0, []span{{0, 1}}},
		{"gap", []uint32{0, 3}, 5, 2, 0, 0, []span{{1, 2}, {4, 4}}},
		{"twice", []uint32{0, 0, 1, 0}, 2, 2, 2, 0, nil},
		{"late", []uint32{0, 2, 1}, 3, 3, 0, 1, nil},
		{"late, twice", []uint32{0, 2, 1, 1}, 3, 3, 1, 1, nil},
		{"inside a gap", []uint32{9, 4, 4, 0, 8}, 10, 4, 1, 3, []span{{1, 3}, {5, 7}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f flow
			for _, s := range tt.seqs {
				f.arrive(s)
			}
			if f.unique != tt.unique || f.duplicates != tt.duplicates || f.disorder != tt.disorder {
				t.Errorf("%d unique, %d duplicates, %d disorder; want %d, %d, %d", f.unique, f.duplicates, f.disorder,
					tt.unique, tt.duplicates, tt.disorder)
			}
			if d := cmp.Diff(tt.lost, f.lost(tt.sent), cmp.AllowUnexported(span{}), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("lost (-want +got):\n%s", d)
			}
		})
	}
}

// A flow agrees with a map, whatever arrives in whatever order.
func TestFlowIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const sent = 40
		var f flow
		seen := map[uint32]int{}
		var duplicates, disorder uint64
		high := -1
		for _, seq := range rapid.SliceOf(rapid.Uint32Range(0, sent-1)).Draw(t, "seqs") {
			fresh := f.arrive(seq)
			if fresh != (seen[seq] == 0) {
				t.Fatalf("arrive(%d) is %t", seq, fresh)
			}
			if !fresh {
				duplicates++
			} else if int(seq) < high {
				disorder++
			}
			high = max(high, int(seq))
			seen[seq]++
		}
		lost := 0
		for _, s := range f.lost(sent) {
			for seq := s.from; seq <= s.to; seq++ {
				if seen[seq] > 0 {
					t.Fatalf("%d is lost and arrived", seq)
				}
				lost++
			}
		}
		if int(f.unique)+lost != sent || int(f.unique) != len(seen) || f.duplicates != duplicates || f.disorder != disorder {
			t.Fatalf("%+v, want %d unique, %d duplicates, %d disorder", f, len(seen), duplicates, disorder)
		}
	})
}

func TestHistogramQuantiles(t *testing.T) {
	var h, half histogram
	for _, i := range rand.Perm(100_000) {
		if i%2 == 0 {
			half.add(int64(i) * 1000)
		} else {
			h.add(int64(i) * 1000)
		}
	}
	h.merge(&half)
	for _, q := range []float64{.5, .9, .99, .999} {
		got, want := float64(h.quantile(q)), q*1e8
		if got < want*.99 || got > want*1.035 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if h.quantile(1) != 99_999_000 || h.max != 99_999_000 || h.n != 100_000 {
		t.Errorf("max %d of %d", h.max, h.n)
	}
	if q := (&histogram{}).quantiles(); q != nil {
		t.Errorf("quantiles of nothing: %v", q)
	}
}

func TestBucketsAreOrdered(t *testing.T) {
	for ns := int64(0); ns < 1<<44; ns = ns*9/8 + 1 {
		i := bucketOf(ns)
		if i < buckets-1 && (bucketTop(i) < ns || i > 0 && bucketTop(i-1) >= ns) {
			t.Fatalf("%d is in bucket %d, which ends at %d", ns, i, bucketTop(i))
		}
	}
}
