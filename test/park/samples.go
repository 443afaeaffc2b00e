package main

import (
	"slices"
	"time"
)

// kind is what a sample measures.
type kind byte

const (
	// delivered is from a publisher's write to the subscriber's read.
	delivered kind = iota
	// acknowledged is from a publisher's write to its PUBACK.
	acknowledged
	// lag is how late a generator was with a message.
	lag
	// inStorm marks what a client of the storm took part in.
	inStorm kind = 0x80
)

func (k kind) String() string { return [...]string{"delivery", "acknowledgement", "lag"}[k] }

// samples are measured durations, as three slices that belong together.
type samples struct {
	Sent []int64 // in Unix microseconds
	Took []uint32
	Kind []kind
}

func (s *samples) add(k kind, sent int64, took time.Duration) {
	s.Sent = append(s.Sent, sent/1000)
	s.Took = append(s.Took, uint32(min(max(took.Microseconds(), 0), 1<<32-1)))
	s.Kind = append(s.Kind, k)
}

func (s *samples) merge(o samples) {
	s.Sent = append(s.Sent, o.Sent...)
	s.Took = append(s.Took, o.Took...)
	s.Kind = append(s.Kind, o.Kind...)
}

// span is a time in which something happened.
type span struct{ from, to time.Time }

// touches tells whether a message was under way in the span.
func (w span) touches(sent int64, took uint32) bool {
	return sent <= w.to.UnixMicro() && sent+int64(took) >= w.from.UnixMicro()
}

// pick returns the durations of a kind that were under way in one of the spans, or
// in none of the others, in ascending order. Without storm those are left out that
// a client of the storm took part in.
func (s *samples) pick(k kind, storm bool, in []span, out []span) []uint32 {
	var picked []uint32
	for i, sent := range s.Sent {
		touches := func(w span) bool { return w.touches(sent, s.Took[i]) }
		switch {
		case s.Kind[i]&^inStorm != k, !storm && s.Kind[i]&inStorm != 0:
		case in != nil && !slices.ContainsFunc(in, touches), slices.ContainsFunc(out, touches):
		default:
			picked = append(picked, s.Took[i])
		}
	}
	slices.Sort(picked)
	return picked
}

// quantile returns the duration that the share q of sorted ones does not exceed.
func quantile(sorted []uint32, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := min(int(q*float64(len(sorted))), len(sorted)-1)
	return time.Duration(sorted[i]) * time.Microsecond
}
