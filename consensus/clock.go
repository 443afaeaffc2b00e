package consensus

import (
	"slices"
	"time"
)

// Log time follows wall time at most this much faster or slower than real time,
// and not at all once they are further apart than maxSkew: then no leader counted
// for a while, because the whole site was off, or one of the two clocks is wrong.
// Neither may expire anything; an operator can step log time (StepClock), or a
// setting can let a new leader do it. A minute is more than an election, a clock
// that drifts between two looks of NTP, and a leap second make together, and less
// than an outage that anybody would want to be made up for. While log time catches
// up, every interval is shorter than it was asked for: a tenth, as it once was, let
// a will delayed by three seconds fire 270 ms early after each election
// [MQTT-3.1.2-8].
const (
	slewDivisor = 100
	maxSkew     = time.Minute
)

// Clock is log time as a leader makes it: the last stamp it knew plus its own
// monotonic time since then, drawn slowly towards wall time, never backwards and
// never by a step. It is pure: the caller brings both readings. It is not safe
// for concurrent use.
type Clock struct {
	now  int64         // log time, ns since the Unix epoch
	mono time.Duration // reading that now belongs to
}

// NewClock starts at the last stamp of the log, in milliseconds. A log without
// one (0) starts at wall time.
func NewClock(stamp int64, mono time.Duration, wall time.Time) *Clock {
	c := &Clock{now: stamp * int64(time.Millisecond), mono: mono}
	if stamp == 0 {
		c.now = wall.UnixNano()
	}
	return c
}

// Stamp returns log time in milliseconds. It never returns less than before.
func (c *Clock) Stamp(mono time.Duration, wall time.Time) int64 {
	elapsed := mono - c.mono
	if elapsed > 0 {
		c.mono = mono
		c.now += int64(elapsed + slew(elapsed, wall.UnixNano()-c.now-int64(elapsed)))
	}
	return c.now / int64(time.Millisecond)
}

// Gap is how far wall time is ahead of log time.
func (c *Clock) Gap(mono time.Duration, wall time.Time) time.Duration {
	return time.Duration(wall.UnixNano() - c.now - int64(max(0, mono-c.mono)))
}

// Step sets log time forward to a moment; one that is past changes nothing.
func (c *Clock) Step(mono time.Duration, to time.Time) {
	if c.Gap(mono, to) > 0 {
		c.now, c.mono = to.UnixNano(), max(c.mono, mono)
	}
}

// slew is how much of the gap between wall and log time, in ns, is made up for
// in the elapsed time.
func slew(elapsed time.Duration, gap int64) time.Duration {
	if gap > int64(maxSkew) || gap < -int64(maxSkew) {
		return 0
	}
	most := elapsed / slewDivisor
	return max(-most, min(most, time.Duration(gap)))
}

// median of the offsets, 0 for none. Of an even number it is the lower one.
func median(offsets []time.Duration) time.Duration {
	if len(offsets) == 0 {
		return 0
	}
	slices.Sort(offsets)
	return offsets[(len(offsets)-1)/2]
}
