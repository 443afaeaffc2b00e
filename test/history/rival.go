package history

import (
	"context"
	"time"
)

// RivalConfig says for which client id a Rival fights.
type RivalConfig struct {
	Endpoint
	// Name is that of the history and part of every message; rivals have the same
	// ClientID and Expiry.
	Name, ClientID string
	Topic          string
	QoS            byte
	Expiry         uint32  // of the session, in seconds
	Rate           float64 // messages per second while it is connected; 0 means 50
	// Stay is about how long it rests after it was taken over; 0 means a second.
	Stay time.Duration
}

// Rival is a recorded publisher that takes a client id from its rivals, publishes
// until one of them takes it back, and rests before it comes again.
type Rival struct{ *Publisher }

// rivalIDs is how many packet ids a rival has. The session of rivals is one, so
// their ids must differ, or one of them would go on with a message of another.
const rivalIDs = 1000

// StartRival starts a goroutine that connects and publishes until Stop or the end
// of ctx.
func StartRival(ctx context.Context, rec *Recorder, cfg RivalConfig) *Rival {
	if cfg.Rate == 0 {
		cfg.Rate = 50
	}
	if cfg.Stay == 0 {
		cfg.Stay = time.Second
	}
	return &Rival{StartPublisher(ctx, rec, PublisherConfig{Endpoint: cfg.Endpoint, Name: cfg.Name, ClientID: cfg.ClientID,
		Topics: []string{cfg.Topic}, QoS: cfg.QoS, Rate: cfg.Rate, Expiry: cfg.Expiry, IDs: rivalIDs,
		base: uint16(sum([]byte(cfg.Name))%60) * rivalIDs, rest: cfg.Stay})}
}

// restAfter is the rest after a takeover; the messages of that time are not due.
func (p *Publisher) restAfter(ctx context.Context) {
	t := time.NewTimer(p.client.about(p.cfg.rest))
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.halt:
	case <-ctx.Done():
	}
	due := p.due(p.sent + 1)
	p.started, p.begun = time.Now().Add(-due), p.client.rec.now()-due
}
