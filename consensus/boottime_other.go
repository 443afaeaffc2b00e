//go:build !linux

package consensus

import "time"

// boottime is wall time where there is no monotonic clock that counts suspend:
// leases hold as long as nobody sets the clock back.
func boottime() time.Duration { return time.Duration(time.Now().Round(0).UnixNano()) }
