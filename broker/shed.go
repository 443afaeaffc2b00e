package broker

import (
	"context"
	"time"
)

// shedPause lies between two clients that Shed sends away: each costs another
// node a handshake.
const shedPause = 5 * time.Millisecond

// Shed sends n clients away, or all if there are fewer, one after the other, and
// returns how many when that is done or ctx has ended. The node serves on: the
// clients are expected on another one only because a balancer sends them there.
// Wills and sessions wait for them as after Drain.
func (b *Broker) Shed(ctx context.Context, n int) int {
	all := b.holders()
	all = all[:min(n, len(all))]
	s := b.sendAway()
	s.reason = reasonUseAnother
	tick := time.NewTicker(shedPause)
	defer tick.Stop()
	for i, c := range all {
		c.retire(s)
		select {
		case <-ctx.Done():
			return i + 1
		case <-tick.C:
		}
	}
	return len(all)
}
