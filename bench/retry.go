package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

// How a device comes back to a broker that has no room for it just now: soon at
// first, then more and more slowly, and not in step with the others.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// connackError is a CONNACK that says no.
type connackError byte

func (e connackError) Error() string {
	return fmt.Sprintf("the broker refused the connection with code 0x%02x: check --username, --password-file and the client certificate", byte(e))
}

// later tells whether a connection failed for want of room or time at the broker,
// so that a device would try again, and not for who the client is. An address at
// which nobody listens is a mistake, which is better told at once.
func later(err error) bool {
	var code connackError
	if errors.As(err, &code) {
		switch code {
		case 3, 0x88, 0x89, 0x97, 0x9f: // unavailable (MQTT 3), unavailable, busy, quota, rate
			return true
		}
		return false
	}
	var timeout net.Error
	for _, cause := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return errors.As(err, &timeout) && timeout.Timeout()
}

// insist calls connect until it succeeds, fails for good, or has been refused for
// dialTimeout. It counts the refusals in the run.
func (r *run) insist(ctx context.Context, connect func() error) error {
	from, wait := time.Now(), firstBackoff
	for {
		err := connect()
		if err == nil || !later(err) {
			return err
		}
		r.refusals.Add(1)
		if time.Since(from) > dialTimeout {
			return fmt.Errorf("refused for %v, the last time: %w", dialTimeout, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, lastBackoff)
	}
}
