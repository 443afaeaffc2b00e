package broker

import (
	"sync/atomic"
	"time"
)

// logClock is this node's idea of log time.
//
// Log time follows the voters' wall clocks, so this node's wall clock is a fair
// guess; but it may be behind. An entry stamped T was stamped before it was
// applied, so log time is at least T plus what has passed since on the monotonic
// clock. The larger of the two is taken: a message is never held longer than the
// log allows, and one that comes from the log is never of the future. A node
// whose wall clock runs ahead expires messages early; where that matters, Deps.Now
// is to be given.
type logClock struct {
	now   func() int64
	ahead atomic.Int64 // how far log time is known to be before the wall clock, ms
}

// observe notes that an entry with this stamp was applied now.
func (l *logClock) observe(stamp int64) {
	if l.now != nil {
		return
	}
	if d := stamp - time.Now().UnixMilli(); d > l.ahead.Load() {
		l.ahead.Store(d)
	}
}

// millis returns log time in milliseconds.
func (l *logClock) millis() int64 {
	if l.now != nil {
		return l.now()
	}
	return time.Now().UnixMilli() + l.ahead.Load()
}
