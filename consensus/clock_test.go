package consensus

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClock(t *testing.T) {
	start := time.UnixMilli(1_000_000_000)
	type reading struct{ mono, wall time.Duration } // since start
	tests := []struct {
		name  string
		stamp int64
		at    []reading
		want  []int64 // ms since start
	}{
		{
			"first entry is wall time", 0,
			[]reading{{0, 0}, {time.Second, time.Second}},
			[]int64{0, 1000},
		},
		{
			"continues the last stamp", start.UnixMilli() + 5,
			[]reading{{0, 5 * time.Millisecond}, {10 * time.Millisecond, 15 * time.Millisecond}},
			[]int64{5, 15},
		},
		{
			"behind wall time: a hundredth faster", start.UnixMilli() - 50_000,
			[]reading{{10 * time.Second, 10 * time.Second}, {20 * time.Second, 20 * time.Second}},
			[]int64{-50_000 + 10_100, -50_000 + 20_200},
		},
		{
			"ahead of wall time: a hundredth slower, never back", start.UnixMilli() + 60_000,
			[]reading{{10 * time.Second, 10 * time.Second}, {10 * time.Second, 0}, {20 * time.Second, 20 * time.Second}},
			[]int64{60_000 + 9_900, 60_000 + 9_900, 60_000 + 19_800},
		},
		{
			"a small gap is closed and not overshot", start.UnixMilli() - 100,
			[]reading{{10 * time.Second, 10 * time.Second}, {11 * time.Second, 11 * time.Second}},
			[]int64{10_000, 11_000},
		},
		{
			"wall time far off is ignored", start.UnixMilli(),
			[]reading{{10 * time.Second, 10*time.Second + 2*time.Hour}, {20 * time.Second, -2 * time.Hour}},
			[]int64{10_000, 20_000},
		},
		{
			"a small step of wall time is followed slowly", start.UnixMilli(),
			[]reading{{time.Second, time.Second}, {2 * time.Second, 2*time.Second + 30*time.Second}},
			[]int64{1000, 2010},
		},
		{
			"a large one is not", start.UnixMilli(),
			[]reading{{time.Second, time.Second}, {2 * time.Second, 2*time.Second + 2*time.Minute}, {time.Minute, time.Minute - time.Hour}},
			[]int64{1000, 2000, 60_000},
		},
		{
			"time that nobody counted is not made up for", start.UnixMilli() - (30 * time.Minute).Milliseconds(),
			[]reading{{time.Minute, time.Minute}, {time.Hour, time.Hour}},
			[]int64{(-29 * time.Minute).Milliseconds(), (30 * time.Minute).Milliseconds()},
		},
		{
			"monotonic time that stands still or goes back", start.UnixMilli(),
			[]reading{{time.Second, time.Second}, {time.Second, time.Hour / 2}, {0, 0}, {2 * time.Second, 2 * time.Second}},
			[]int64{1000, 1000, 1000, 2000},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewClock(tt.stamp, 0, start)
			var got []int64
			for _, r := range tt.at {
				got = append(got, c.Stamp(r.mono, start.Add(r.wall))-start.UnixMilli())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestClockKeepsFractions(t *testing.T) {
	start := time.UnixMilli(1_000_000_000)
	c := NewClock(start.UnixMilli()-1000, 0, start)
	var got int64
	for i := range 1_000_000 { // 100 s in steps of 0.1 ms
		d := time.Duration(i+1) * 100 * time.Microsecond
		got = c.Stamp(d, start.Add(d))
	}
	if want := start.UnixMilli() + 100_000; got != want {
		t.Errorf("after many small steps %d ms off", got-want)
	}
}

func TestClockSteps(t *testing.T) {
	start := time.UnixMilli(1_000_000_000)
	c := NewClock(start.UnixMilli(), 0, start)
	if gap := c.Gap(time.Minute, start.Add(time.Hour)); gap != 59*time.Minute {
		t.Errorf("gap %v", gap)
	}
	c.Step(time.Minute, start) // back: no
	if got := c.Stamp(time.Minute, start.Add(time.Hour)) - start.UnixMilli(); got != time.Minute.Milliseconds() {
		t.Errorf("a step back made it %d", got)
	}
	c.Step(2*time.Minute, start.Add(time.Hour))
	if got := c.Stamp(3*time.Minute, start.Add(time.Hour+time.Minute)) - start.UnixMilli(); got != (61 * time.Minute).Milliseconds() {
		t.Errorf("after a step forward it is %d", got)
	}
	if gap := c.Gap(3*time.Minute, start.Add(time.Hour+time.Minute)); gap != 0 {
		t.Errorf("gap %v after the step", gap)
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct{ in, want []time.Duration }{
		{nil, []time.Duration{0}},
		{[]time.Duration{5}, []time.Duration{5}},
		{[]time.Duration{time.Hour, 0, -3}, []time.Duration{0}},
		{[]time.Duration{4, 2}, []time.Duration{2}},
	} {
		if got := median(tt.in); got != tt.want[0] {
			t.Errorf("median(%v) = %v", tt.in, got)
		}
	}
}

func TestBoottimeAdvances(t *testing.T) {
	if a, b := boottime(), boottime(); b < a || a == 0 {
		t.Errorf("boottime %v then %v", a, b)
	}
}
