package history

import (
	"context"
	"time"
)

// End is how a WillBearer ends a connection.
type End int

// The ways to end a connection.
const (
	EndClean    End = iota // DISCONNECT: the will does not fire
	EndWithWill            // DISCONNECT 0x04: it does [MQTT-3.14.2.1]; before MQTT 5 like EndCut
	EndCut                 // closes the socket
	EndTakeover            // connects again with the same client id first
	EndWait                // stays until something else ends it
)

// WillBearerConfig says what a WillBearer bears.
type WillBearerConfig struct {
	Endpoint
	// Name is that of the history and the client id; connections that take over
	// have a history of Name and "~".
	Name   string
	Topic  string
	QoS    byte
	Retain bool
	// Delay is that of the will and Expiry that of the session, in seconds.
	Delay, Expiry uint32
	// Stay is about how long a connection lasts; 0 means 2 s.
	Stay time.Duration
	// Ends are taken in turn; none means all.
	Ends []End
}

// WillBearer is a recorded client whose every connection has a will of its own.
type WillBearer struct {
	driver
	cfg  WillBearerConfig
	self *client // of the current connection
	twin *client // of the one before or after a takeover
}

// StartWillBearer starts a goroutine that connects and ends its connections until
// Stop, which leaves with a DISCONNECT, or the end of ctx.
func StartWillBearer(ctx context.Context, rec *Recorder, cfg WillBearerConfig) *WillBearer {
	if cfg.Stay == 0 {
		cfg.Stay = 2 * time.Second
	}
	if len(cfg.Ends) == 0 {
		cfg.Ends = []End{EndClean, EndWithWill, EndCut, EndTakeover, EndWait}
	}
	b := &WillBearer{cfg: cfg, self: newClient(rec, cfg.Endpoint, cfg.Name, "", cfg.Expiry),
		twin: newClient(rec, cfg.Endpoint, cfg.Name+"~", cfg.Name, cfg.Expiry)}
	for _, c := range []*client{b.self, b.twin} {
		c.will = &will{topic: cfg.Topic, qos: cfg.QoS, retain: cfg.Retain, delay: cfg.Delay}
		if c.at.Version < 5 {
			c.will.delay = 0
		}
	}
	b.driver = drive(ctx, cfg.Name, b.run)
	return b
}

func (b *WillBearer) run(ctx context.Context) {
	up := false
	for n := 0; ; n++ {
		if !up {
			if _, err := b.self.connect(ctx); err != nil {
				return
			}
		}
		end := b.cfg.Ends[n%len(b.cfg.Ends)]
		err := b.self.idle(ctx, b.stay(end))
		switch {
		case err != nil:
			b.self.hangUpFor(err)
			up = false
			continue
		case ctx.Err() != nil:
			b.self.leave()
			return
		}
		if up = b.end(ctx, end); !up {
			pause(ctx, b.away(end, n))
		}
	}
}

// stay is how long a connection lasts that is to end in that way.
func (b *WillBearer) stay(end End) time.Duration {
	if end == EndWait {
		return 10 * b.cfg.Stay // and then like EndClean
	}
	return b.self.about(b.cfg.Stay)
}

// end ends the connection and tells whether there is another one already.
func (b *WillBearer) end(ctx context.Context, end End) (up bool) {
	switch {
	case end == EndClean, end == EndWait:
		b.self.leave()
	case end == EndWithWill && b.self.at.Version >= 5:
		b.self.leaveWith(withWill)
	case end == EndTakeover:
		return b.takeOver(ctx)
	default:
		b.self.cut()
	}
	return false
}

// takeOver connects a second time, and waits for the end of the first connection.
func (b *WillBearer) takeOver(ctx context.Context) (up bool) {
	_, failed := b.twin.connect(ctx)
	if failed != nil {
		b.self.leave() // stopped meanwhile
		return false
	}
	if err := b.self.idle(context.Background(), b.self.at.Timeout); err != nil {
		b.self.hangUpFor(err)
	} else {
		b.self.cut() // it lived on, as the history shows
	}
	b.self, b.twin = b.twin, b.self
	return true
}

// away is how long to stay away: now less than the will's delay and now more.
func (b *WillBearer) away(end End, n int) time.Duration {
	delay := time.Duration(b.self.will.delay) * time.Second
	switch {
	case end == EndClean || delay == 0:
		return b.self.about(b.cfg.Stay / 4)
	case (n/len(b.cfg.Ends))%2 == 0:
		return delay / 4
	}
	return delay + delay/2 + time.Second
}
