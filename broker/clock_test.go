package broker

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLogClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stamp int64
		l := logClock{stamp: func() int64 { return stamp }}
		want := func(what string, ms int64) {
			t.Helper()
			if got := l.millis(); got != ms {
				t.Errorf("%s: %d, want %d", what, got, ms)
			}
		}
		want("an empty log", time.Now().UnixMilli())
		stamp = 5_000 // long before the wall clock
		want("at the entry", 5_000)
		time.Sleep(1500 * time.Millisecond)
		want("after it", 6_500)
		stamp = 6_000 // stamped 500 ms ago
		want("at the next", 6_000)
		time.Sleep(time.Hour)
		want("in a quiet cluster", 6_000+time.Hour.Milliseconds())
	})
}
