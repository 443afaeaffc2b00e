package consensus

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime is a monotonic clock that also counts while the machine is suspended:
// a lease must not outlive a closed lid.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// It cannot fail on a kernel that Go supports.
		panic(err)
	}
	return time.Duration(ts.Nano())
}
