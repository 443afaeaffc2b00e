package broker

import (
	"sync/atomic"
	"time"
)

// logClock is this node's idea of log time: the stamp of the last entry that was
// applied here and what has passed since on the monotonic clock. Wall clocks have
// no part in it: after a power loss they are hours beyond log time, in which no
// message has come nearer to its expiry.
//
// An entry that nobody asked about at once is noticed by the sweeper, so log time
// may be taken for up to sweepInterval earlier than it is: a message may go out
// that much after its expiry, but is never dropped before.
type logClock struct {
	stamp func() int64 // nil: the wall clock is log time
	last  atomic.Pointer[reading]
}

// reading is when a stamp was first seen.
type reading struct {
	stamp int64
	at    time.Time
}

// millis returns log time in milliseconds.
func (l *logClock) millis() int64 {
	now := time.Now()
	if l.stamp == nil {
		return now.UnixMilli()
	}
	s := l.stamp()
	if s == 0 {
		return now.UnixMilli() // as the first leader will begin
	}
	r := l.last.Load()
	if r == nil || r.stamp != s {
		r = &reading{s, now}
		l.last.Store(r)
	}
	return r.stamp + now.Sub(r.at).Milliseconds()
}
