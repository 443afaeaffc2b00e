package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// PublisherConfig says what a Publisher sends.
type PublisherConfig struct {
	Endpoint
	// Name is that of the history and part of every message; ClientID is Name if
	// empty.
	Name, ClientID string
	Topics         []string // in turn
	QoS            byte
	// Count is how many messages to send; 0 means until Stop.
	Count int
	// Rate is messages per second; 0 means as fast as Window allows.
	Rate float64
	// Window is how many may be unacknowledged; 0 means 20.
	Window int
	// IDs is how many packet ids are in use, from 1, the lowest free one next; 0
	// means all of them, in turn. It bounds Window.
	IDs    uint16
	Size   int // of payloads at least
	Retain bool
	// Expiry is how long the session outlives a connection, in seconds. With a
	// session what is unacknowledged is sent again with DUP; without one, or when
	// the broker has lost it, it is recorded as unknown and not sent again.
	Expiry uint32

	base uint16        // ids are above it
	rest time.Duration // after a takeover
}

// Publisher is a recorded client that publishes. It reconnects on its own.
type Publisher struct {
	client *client
	cfg    PublisherConfig
	cancel context.CancelFunc
	halt   chan struct{}
	once   sync.Once
	done   chan struct{}
	err    error
	acked  atomic.Int64

	// What follows belongs to the goroutine.
	sent     int
	started  time.Time
	begun    time.Duration // the same on the recorder's clock
	inFlight []*outgoing   // oldest first
	nextID   uint16
}

// outgoing is a message without its last acknowledgement.
type outgoing struct {
	id       uint16
	message  string
	publish  rawmqtt.Publish
	seq      int
	received bool // PUBREC came
}

// StartPublisher starts a goroutine that publishes until Count, Stop or the end
// of ctx.
func StartPublisher(ctx context.Context, rec *Recorder, cfg PublisherConfig) *Publisher {
	if cfg.Window == 0 {
		cfg.Window = 20
	}
	if cfg.IDs > 0 {
		cfg.Window = min(cfg.Window, int(cfg.IDs))
	}
	p := &Publisher{client: newClient(rec, cfg.Endpoint, cfg.Name, cfg.ClientID, cfg.Expiry), cfg: cfg,
		halt: make(chan struct{}), done: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	go p.run(ctx)
	return p
}

// Acked is how many messages were acknowledged so far.
func (p *Publisher) Acked() int { return int(p.acked.Load()) }

// Wait waits until everything was sent and acknowledged.
func (p *Publisher) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s has %d messages acknowledged: %w", p.cfg.Name, p.Acked(), context.Cause(ctx))
	}
}

// Stop sends nothing more and waits for what is under way, until ctx ends, and
// then closes.
func (p *Publisher) Stop(ctx context.Context) error {
	p.once.Do(func() { close(p.halt) })
	err := p.Wait(ctx)
	p.cancel()
	<-p.done
	return err
}

func (p *Publisher) run(ctx context.Context) {
	defer close(p.done)
	defer p.cancel()
	defer p.miss()
	p.started, p.begun = time.Now(), p.client.rec.now()
	for !p.finished() {
		present, err := p.client.connect(ctx)
		if err != nil {
			p.err = err
			return
		}
		reason, err := p.serve(ctx, present)
		if err == nil {
			p.client.leave()
			return
		}
		reason = p.client.hangUp(reason, err)
		if reason == TakenOver && p.cfg.rest > 0 {
			p.restAfter(ctx)
		}
		if ctx.Err() != nil {
			p.err = fmt.Errorf("%s has %d messages unacknowledged: %w", p.cfg.Name, len(p.inFlight), context.Cause(ctx))
			return
		}
	}
}

// due is when message number n, from 1, is to be sent, since the start.
func (p *Publisher) due(n int) time.Duration {
	return time.Duration(float64(n-1) / p.cfg.Rate * float64(time.Second))
}

// miss records what was to be sent by now and was not.
func (p *Publisher) miss() {
	if p.cfg.Rate == 0 || p.cfg.rest > 0 {
		return
	}
	n := int(time.Since(p.started).Seconds()*p.cfg.Rate) + 1
	if p.cfg.Count > 0 {
		n = min(n, p.cfg.Count)
	}
	// One more or less is a matter of when Stop came.
	if n > p.sent+1 {
		p.client.add(Event{Kind: Missed, QoS: p.cfg.QoS, Seq: p.sent, Count: n - p.sent, Due: p.begun + p.due(p.sent+1)})
	}
}

// finished tells whether nothing is left to send or to wait for.
func (p *Publisher) finished() bool { return p.sentAll() && len(p.inFlight) == 0 }

func (p *Publisher) sentAll() bool {
	select {
	case <-p.halt:
		return true
	default:
		return p.cfg.Count > 0 && p.sent >= p.cfg.Count
	}
}

// serve publishes over one connection until finished, which is no error, or the
// connection's end.
func (p *Publisher) serve(ctx context.Context, present bool) (reason byte, err error) {
	if err := p.again(present); err != nil {
		return 0, err
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	halt := p.halt
	for {
		wait, err := p.send()
		if err != nil {
			return 0, err
		}
		if p.finished() {
			return 0, nil
		}
		pace.Reset(wait)
		select {
		case packet, ok := <-p.client.packets:
			if !ok {
				return 0, p.client.readErr
			}
			if reason, err := p.handle(packet); err != nil {
				return reason, err
			}
		case <-pace.C:
		case <-halt:
			halt = nil
		case <-ping.C:
			if err := p.client.ping(); err != nil {
				return 0, err
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// again sends what is unacknowledged once more, or gives it up.
func (p *Publisher) again(present bool) error {
	if !present {
		for _, o := range p.inFlight {
			p.client.add(Event{Kind: PublishUnknown, Message: o.message, Seq: o.seq})
		}
		p.inFlight = nil
		return nil
	}
	for _, o := range p.inFlight {
		if o.received {
			if err := p.client.raw.Send(rawmqtt.AckPacket(p.client.at.Version, rawmqtt.PUBREL, o.id, 0)); err != nil {
				return err
			}
			continue
		}
		o.publish.Dup = true
		if err := p.write(o); err != nil {
			return err
		}
	}
	return nil
}

// send sends what window and rate allow and returns how long to wait for more.
func (p *Publisher) send() (wait time.Duration, err error) {
	for !p.sentAll() && len(p.inFlight) < min(p.cfg.Window, p.client.window) {
		if p.cfg.Rate > 0 {
			if wait := time.Until(p.started.Add(p.due(p.sent + 1))); wait > 0 {
				return wait, nil
			}
		}
		p.sent++
		o := &outgoing{seq: p.sent, message: fmt.Sprintf("%s/%d", p.cfg.Name, p.sent)}
		o.publish = rawmqtt.Publish{Topic: p.cfg.Topics[(p.sent-1)%len(p.cfg.Topics)], QoS: p.cfg.QoS, Retain: p.cfg.Retain,
			Payload: payload(o.message, p.cfg.Size)}
		if p.cfg.QoS > 0 {
			o.id = p.freeID()
			o.publish.ID = o.id
			p.inFlight = append(p.inFlight, o)
		}
		if err := p.write(o); err != nil {
			return 0, err
		}
	}
	return time.Hour, nil
}

func (p *Publisher) write(o *outgoing) error {
	e := Event{Kind: PublishSent, Message: o.message, Seq: o.seq, Topic: o.publish.Topic, QoS: o.publish.QoS,
		PacketID: o.id, Dup: o.publish.Dup, Retain: o.publish.Retain, Sum: sum(o.publish.Payload)}
	if p.cfg.Rate > 0 {
		e.Due = p.begun + p.due(o.seq)
	}
	p.client.add(e)
	return p.client.raw.Publish(o.publish)
}

// freeID returns a packet id that nothing under way has.
func (p *Publisher) freeID() uint16 {
	if p.cfg.IDs > 0 {
		p.nextID = p.cfg.base
	}
next:
	for {
		if p.nextID++; p.nextID == 0 {
			continue
		}
		for _, o := range p.inFlight {
			if o.id == p.nextID {
				continue next
			}
		}
		return p.nextID
	}
}

var errDisconnected = errors.New("the broker disconnected")

// handle does what a packet asks for; reason is that of a DISCONNECT.
func (p *Publisher) handle(packet *rawmqtt.Packet) (reason byte, err error) {
	switch packet.Type {
	case rawmqtt.DISCONNECT:
		return packet.Reason, errDisconnected
	case rawmqtt.PINGRESP:
		p.client.pinged = time.Time{}
		return 0, nil
	case rawmqtt.PUBACK, rawmqtt.PUBREC, rawmqtt.PUBCOMP:
	default:
		return 0, nil
	}
	for i, o := range p.inFlight {
		if o.id != packet.ID {
			continue
		}
		e := Event{Message: o.message, Seq: o.seq, PacketID: o.id, Reason: packet.Reason}
		switch last := packet.Type != rawmqtt.PUBREC || packet.Reason >= 0x80; {
		case packet.Type == rawmqtt.PUBCOMP:
			e.Kind = PublishCompleted
			p.inFlight = append(p.inFlight[:i], p.inFlight[i+1:]...)
		case last:
			e.Kind = PublishAcked
			p.inFlight = append(p.inFlight[:i], p.inFlight[i+1:]...)
		default:
			e.Kind = PublishAcked
			o.received = true
		}
		p.client.add(e)
		if e.Kind == PublishAcked && e.Reason < 0x80 {
			p.acked.Add(1)
		}
		break
	}
	return 0, p.client.raw.Ack(packet)
}
