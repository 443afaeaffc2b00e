package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// driver is a client that works in a goroutine of its own until it is stopped.
type driver struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// drive starts work, which ends soon after its context.
func drive(ctx context.Context, name string, work func(ctx context.Context)) driver {
	ctx, cancel := context.WithCancel(ctx)
	d := driver{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		work(ctx)
	}()
	return d
}

// Stop ends it in good order and waits for that until ctx ends. What is under way
// may take Endpoint.Timeout to end.
func (d driver) Stop(ctx context.Context) error {
	d.cancel()
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not stop: %w", d.name, context.Cause(ctx))
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// about is between half of d and one and a half, by name and number of the
// connection.
func (c *client) about(d time.Duration) time.Duration {
	return d/2 + time.Duration(sum(fmt.Appendf(nil, "%s away %d", c.name, c.conn))%1024)*d/1024
}

// lostError says that a connection ended, with the reason of its DISCONNECT.
type lostError struct {
	reason byte
	err    error
}

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// hangUpFor records why a connection is lost.
func (c *client) hangUpFor(err error) (reason byte) {
	if lost, ok := errors.AsType[*lostError](err); ok {
		reason = lost.reason
	}
	return c.hangUp(reason, err)
}

// idle keeps the connection for d, or until ctx ends, which is no error.
func (c *client) idle(ctx context.Context, d time.Duration) error {
	_, err := c.until(ctx, d, func(*rawmqtt.Packet) bool { return false })
	return err
}

// errSilent: the broker did not answer in time.
var errSilent = errors.New("no answer in time")

// exchange waits for the answer to what was sent.
func (c *client) exchange(kind byte, id uint16) (*rawmqtt.Packet, error) {
	p, err := c.until(context.Background(), c.at.Timeout, func(p *rawmqtt.Packet) bool { return p.Type == kind && p.ID == id })
	if p == nil && err == nil {
		err = errSilent
	}
	return p, err
}

// until handles packets, and pings, until one is what is looked for, which it
// returns, or the time is over.
func (c *client) until(ctx context.Context, d time.Duration, is func(*rawmqtt.Packet) bool) (*rawmqtt.Packet, error) {
	limit := time.NewTimer(d)
	defer limit.Stop()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case p, ok := <-c.packets:
			if !ok {
				return nil, c.readErr
			}
			if err := c.serve(p); err != nil {
				return nil, err
			}
			if is(p) {
				return p, nil
			}
		case <-ping.C:
			if err := c.ping(); err != nil {
				return nil, err
			}
		case <-limit.C:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// serve does what every packet asks of every client.
func (c *client) serve(p *rawmqtt.Packet) error {
	switch p.Type {
	case rawmqtt.DISCONNECT:
		return &lostError{p.Reason, errDisconnected}
	case rawmqtt.PINGRESP:
		c.pinged = time.Time{}
	case rawmqtt.PUBLISH, rawmqtt.PUBREL:
		_, err := c.receive(p)
		return err
	}
	return nil
}

// receive records and acknowledges a PUBLISH or PUBREL.
func (c *client) receive(p *rawmqtt.Packet) (Event, error) {
	e := Event{Kind: Released, PacketID: p.ID}
	if p.Type == rawmqtt.PUBLISH {
		e = received(p)
	}
	e = c.add(e)
	if err := c.raw.Ack(p); err != nil {
		return e, err
	}
	if p.Type == rawmqtt.PUBREL || p.QoS > 0 {
		c.add(Event{Kind: ReceiveAcked, PacketID: p.ID, Message: e.Message})
	}
	return e, nil
}

// publish sends a message and takes it to its end. An error means that the
// connection is lost; whether the message was taken is not known then.
func (c *client) publish(e Event, p rawmqtt.Publish) (acked bool, err error) {
	e.Kind, e.Topic, e.QoS, e.Retain, e.PacketID = PublishSent, p.Topic, p.QoS, p.Retain, p.ID
	e.Sum, e.Clear = sum(p.Payload), len(p.Payload) == 0
	c.add(e)
	if err := c.raw.Publish(p); err != nil || p.QoS == 0 {
		return false, err
	}
	kind := rawmqtt.PUBACK
	if p.QoS == 2 {
		kind = rawmqtt.PUBREC
	}
	ack, err := c.exchange(kind, p.ID)
	if err != nil {
		return false, err
	}
	c.add(Event{Kind: PublishAcked, Message: e.Message, Seq: e.Seq, PacketID: p.ID, Reason: ack.Reason})
	acked = ack.Reason < 0x80
	if p.QoS < 2 || !acked {
		return acked, nil
	}
	if err := c.raw.Ack(ack); err != nil {
		return acked, err
	}
	if _, err := c.exchange(rawmqtt.PUBCOMP, p.ID); err != nil {
		return acked, err
	}
	c.add(Event{Kind: PublishCompleted, Message: e.Message, Seq: e.Seq, PacketID: p.ID})
	return acked, nil
}
