package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// refusedPause is how long a publisher waits before it offers a message again
// that the broker refused.
const refusedPause = 50 * time.Millisecond

// reading is the payload of every message.
type reading struct {
	Device string  `json:"device"`
	N      uint64  `json:"n"`
	Sent   int64   `json:"sent"` // when it was first, in Unix nanoseconds
	Value  float64 `json:"value"`
}

// publisher is a device that publishes one message after the other at QoS 1. A
// number is used until it is acknowledged, over as many connections as that
// takes, so every number is acknowledged in the end and none is skipped.
type publisher struct {
	client
	topic  string
	retain bool
	every  time.Duration
	halt   <-chan struct{} // closed: finish the message under way and end
	// owe is called when a message is acknowledged.
	owe func(n uint64, at time.Time)

	n      uint64 // of the message under way
	due    time.Time
	acked  atomic.Uint64 // the last number that was acknowledged
	begun  atomic.Int64  // when that was first sent, in Unix nanoseconds
	unsure bool          // the message under way was sent before
	first  time.Time     // when it was
}

func newPublisher(id, topic string, at access, every time.Duration, halt <-chan struct{}) *publisher {
	p := &publisher{client: client{id: id, access: at}, topic: topic, every: every, halt: halt, n: 1}
	p.client.serve = p.publish
	return p
}

// publish serves one connection; it has finished after halt, when nothing is
// under way.
func (p *publisher) publish(ctx context.Context, c *paho.Client) (finished bool) {
	for {
		if !p.unsure && !p.wait(ctx) {
			return p.halted()
		}
		if !p.one(ctx, c) {
			return false
		}
	}
}

func (p *publisher) halted() bool {
	select {
	case <-p.halt:
		return true
	default:
		return false
	}
}

// wait waits for the time of the next message. It tells whether there is one to
// be sent on this connection.
func (p *publisher) wait(ctx context.Context) bool {
	// What an outage has held up is not made up for.
	p.due = p.due.Add(p.every)
	if now := time.Now(); p.due.Before(now) {
		p.due = now
	}
	timer := time.NewTimer(time.Until(p.due))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.halt:
		return false
	case <-ctx.Done():
		return false
	}
	return !p.halted() // the time may have come at the same moment
}

// one sends the message under way and waits for its acknowledgement; it tells
// whether the connection is fit for another one.
func (p *publisher) one(ctx context.Context, c *paho.Client) bool {
	if !p.unsure {
		p.unsure, p.first = true, time.Now()
	}
	payload, err := json.Marshal(reading{p.id, p.n, p.first.UnixNano(), 20 + float64(p.n%50)/10})
	if err != nil {
		return false // not with these types
	}
	answer, err := c.Publish(ctx, &paho.Publish{Topic: p.topic, QoS: 1, Retain: p.retain, Payload: payload})
	switch {
	case err == nil:
		p.owe(p.n, time.Now())
		p.begun.Store(p.first.UnixNano())
		p.acked.Store(p.n)
		p.n++
		p.unsure = false
		return true
	case answer != nil: // refused, and so not acknowledged
		select {
		case <-time.After(refusedPause):
			return true
		case <-ctx.Done():
			return false
		}
	}
	// Lost, or hanging: whether the message was stored is unknown, so it is sent
	// again on another connection.
	return false
}

// ackedSince tells whether a message was acknowledged that was first sent after
// the time.
func (p *publisher) ackedSince(t time.Time) bool { return p.begun.Load() > t.UnixNano() }

// parse returns the content of a message of the demo; others, which a user may
// send, are none of its business.
func parse(p *paho.Publish) (r reading, ok bool) {
	if err := json.Unmarshal(p.Payload, &r); err != nil || r.N == 0 || r.Device == "" {
		return reading{}, false
	}
	return r, p.Topic == sensorTopic(r.Device) || p.Topic == stateTopic
}

// park is where all topics of the demo are.
const park = "park/"

// stateTopic has a retained message.
const stateTopic = park + "state"

func sensorTopic(id string) string { return fmt.Sprintf("%s%s/data", park, id) }
