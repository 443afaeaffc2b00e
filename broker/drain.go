package broker

import (
	"context"
	"errors"
	"time"
)

// drainPause is the longest pause between two clients that are sent away.
const drainPause = 2 * time.Millisecond

// Announce tells that clients will be sent away soon, with Drain; forGood, that the
// node does not come back, which those of MQTT 5 are told. It serves on and accepts
// CONNECTs. But a balancer may cut connections when it sees that the node goes: their
// clients are given the time of Config.DrainGrace as if they had been sent away. Undrain
// ends it.
func (b *Broker) Announce(forGood bool) {
	b.moved.Store(forGood)
	b.leaving.Store(true)
}

// Drain sends all clients away, rate of them a second or, if that is 0, spread over
// the time until ctx's deadline, and waits until they have gone or ctx has ended.
// Whom there was no time for at that rate stays, and so does everybody who was not
// sent away yet when ctx is cancelled. From its start no CONNECT is
// accepted. Wills do not fire, and sessions do not end, before
// Config.DrainGrace has passed in the log: clients that come back to another
// node in time are missed by nobody. Undrain ends it.
func (b *Broker) Drain(ctx context.Context, rate int) error {
	b.draining.Store(true)
	all := b.holders()
	pause := time.Duration(0)
	if d, ok := ctx.Deadline(); ok && len(all) > 0 {
		// At most half of the time for sending them away, half for their goodbyes;
		// few clients need no spreading.
		pause = min(time.Until(d)/2/time.Duration(len(all)), drainPause)
	}
	if rate > 0 {
		pause = time.Second / time.Duration(rate)
	}
	next := time.Now()
	for _, c := range all {
		if err := ctx.Err(); err != nil && (rate > 0 || errors.Is(err, context.Canceled)) {
			return err
		}
		c.retire(b.sendAway())
		next = next.Add(pause)
		// Pauses too short to sleep are gathered.
		if wait := time.Until(next); wait >= 5*time.Millisecond {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}
	for _, c := range all {
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Undrain ends what Announce and Drain began: clients are accepted again.
func (b *Broker) Undrain() {
	b.leaving.Store(false)
	b.moved.Store(false)
	b.draining.Store(false)
}
