package bench

import (
	"runtime"
	"syscall"
)

// sleeper sleeps in the kernel: the runtime's own timers wake up to a
// millisecond late, which is more than a message takes.
type sleeper struct{}

func newSleeper() sleeper {
	runtime.LockOSThread()
	return sleeper{}
}

func (sleeper) sleep(ns int64) {
	ts := syscall.NsecToTimespec(ns)
	_ = syscall.Nanosleep(&ts, nil) // waking early is harmless: the loop looks at the clock
}

func (sleeper) close() { runtime.UnlockOSThread() }
