package bench

import (
	"math/bits"
	"time"
)

// subBits sets the histogram's precision: 32 buckets to each power of two, so a
// quantile is at most 3% off.
const subBits = 5

const buckets = (42 - subBits + 1) << subBits // up to 2^42 ns, over an hour

// histogram counts durations in logarithmic buckets. It belongs to one goroutine.
type histogram struct {
	counts [buckets]uint64
	n      uint64
	sum    int64
	max    int64
}

func bucketOf(ns int64) int {
	if ns < 1<<subBits {
		return int(max(ns, 0))
	}
	exp := bits.Len64(uint64(ns)) - subBits - 1
	return min((exp+1)<<subBits+int(ns>>exp)&(1<<subBits-1), buckets-1)
}

// bucketTop is the largest duration of bucket i.
func bucketTop(i int) int64 {
	if i < 1<<subBits {
		return int64(i)
	}
	exp := i>>subBits - 1
	return (int64(1<<subBits+i&(1<<subBits-1))+1)<<exp - 1
}

func (h *histogram) add(ns int64) {
	h.counts[bucketOf(ns)]++
	h.n++
	h.sum += ns
	h.max = max(h.max, ns)
}

func (h *histogram) merge(o *histogram) {
	if o.n == 0 {
		return
	}
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// quantile returns the duration that the share q of all does not exceed.
func (h *histogram) quantile(q float64) int64 {
	rank, seen := uint64(q*float64(h.n)), uint64(0)
	for i, c := range h.counts {
		if seen += c; seen > rank {
			return min(bucketTop(i), h.max)
		}
	}
	return h.max
}

// Quantiles sums up a distribution of durations, in milliseconds.
type Quantiles struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

func (h *histogram) quantiles() *Quantiles {
	if h.n == 0 {
		return nil
	}
	ms := func(ns int64) float64 { return float64(ns) / float64(time.Millisecond) }
	return &Quantiles{Count: h.n, Mean: ms(h.sum / int64(h.n)), P50: ms(h.quantile(.5)), P90: ms(h.quantile(.9)),
		P99: ms(h.quantile(.99)), P999: ms(h.quantile(.999)), Max: ms(h.max)}
}
