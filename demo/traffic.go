package demo

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// Ten sensors of 20 messages a second make the 200 of the demo.
const (
	sensors     = 10
	sensorEvery = 50 * time.Millisecond
	stateEvery  = 250 * time.Millisecond
)

// watched is the sensor whose messages the laptop wants.
const watched = "sensor-01"

// subscriber is a device with a persistent session and the account of what it is
// owed.
type subscriber struct {
	client
	ledger *ledger
	newest atomic.Int64 // when the newest message that arrived was first sent, in Unix nanoseconds
}

func newSubscriber(id string, at access, filter string) *subscriber {
	s := &subscriber{client: client{id: id, access: at, filters: []string{filter}}, ledger: newLedger()}
	s.client.received = s.take
	return s
}

func (s *subscriber) take(p *paho.Publish) {
	r, ok := parse(p)
	if !ok || p.Retain {
		return
	}
	s.ledger.arrived(r.Device, r.N, time.Now())
	s.newest.Store(max(s.newest.Load(), r.Sent)) // one goroutine at a time
}

// traffic is the devices of the demo.
type traffic struct {
	balancer *balancer
	access   access

	control    *subscriber // wants everything, is always there
	laptop     *subscriber // wants one sensor's messages, goes and comes back
	publishers []*publisher
	state      *publisher // the one whose messages are retained

	halt    chan struct{} // closed: publishers finish
	halting sync.Once
	cancel  context.CancelFunc
	ctx     context.Context
	sending sync.WaitGroup // the publishers
	work    sync.WaitGroup // the subscribers
	away    func()         // takes the laptop offline
}

// newTraffic makes the devices; none is connected yet.
func newTraffic(at access, b *balancer) *traffic {
	t := &traffic{balancer: b, access: at, halt: make(chan struct{}), away: func() {}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.control = newSubscriber("control-room", at, park+"#")
	t.laptop = newSubscriber("laptop", at, sensorTopic(watched))
	for i := range sensors {
		id := fmt.Sprintf("sensor-%02d", i+1)
		t.add(newPublisher(id, sensorTopic(id), at, sensorEvery, t.halt))
	}
	t.state = newPublisher("gateway", stateTopic, at, stateEvery, t.halt)
	t.state.retain = true
	t.add(t.state)
	return t
}

func (t *traffic) add(p *publisher) {
	p.owe = func(n uint64, at time.Time) {
		t.control.ledger.acknowledged(p.id, n, at)
		if p.id == watched {
			t.laptop.ledger.acknowledged(p.id, n, at)
		}
	}
	t.publishers = append(t.publishers, p)
}

// watch connects the control room.
func (t *traffic) watch() { t.work.Go(func() { t.control.run(t.ctx) }) }

// online connects the laptop; offline ends its connection and not its session,
// and returns when that is done.
func (t *traffic) online() {
	ctx, cancel := context.WithCancel(t.ctx)
	ended := make(chan struct{})
	t.away = func() { cancel(); <-ended }
	t.work.Go(func() {
		defer close(ended)
		t.laptop.run(ctx)
	})
}

func (t *traffic) offline() { t.away() }

// flow starts the publishers.
func (t *traffic) flow() {
	for _, p := range t.publishers {
		t.sending.Go(func() { p.run(t.ctx) })
	}
}

// finish lets the publishers end what is under way, for no longer than ctx, and
// tells whether they have.
func (t *traffic) finish(ctx context.Context) bool {
	t.halting.Do(func() { close(t.halt) })
	done := make(chan struct{})
	go func() {
		t.sending.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false // Close waits for them
	}
}

// rest ends the publishers and waits for what is under way to subscribers that
// are connected, in all no longer than limit.
func (t *traffic) rest(limit time.Duration) {
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	t.finish(ctx)
	now := time.Now()
	for _, s := range []*subscriber{t.control, t.laptop} {
		s.ledger.rest()
		for s.state().up && s.ledger.owedBefore(now) > 0 && ctx.Err() == nil {
			time.Sleep(pollEvery)
		}
	}
}

// Close disconnects everybody. It is idempotent.
func (t *traffic) Close() error {
	t.halting.Do(func() { close(t.halt) })
	t.cancel()
	t.sending.Wait()
	t.work.Wait()
	return nil
}

// connected is how many publishers are.
func (t *traffic) connected() (up int) {
	for _, p := range t.publishers {
		if p.state().up {
			up++
		}
	}
	return up
}

// backSince tells whether, after the time, every publisher had a message
// acknowledged that was sent after it and the control room received one.
func (t *traffic) backSince(at time.Time) bool {
	for _, p := range t.publishers {
		if !p.ackedSince(at) {
			return false
		}
	}
	return t.control.newest.Load() > at.UnixNano()
}

// where says at which node a client is.
func (t *traffic) where(c *client) string {
	s := c.state()
	if !s.up {
		return "offline"
	}
	return "at " + t.balancer.node(s.local)
}

// view is what the screen shows of the devices.
func (t *traffic) put(v *view) {
	v.devices, v.up = len(t.publishers), t.connected()
	now := time.Now()
	v.subscribers = []subscriberView{
		{"control room", t.where(&t.control.client), t.control.ledger.sum(now), true},
		{"laptop", t.where(&t.laptop.client), t.laptop.ledger.sum(now), false},
	}
}

// retained asks one node, past the balancer, for the retained state and returns
// its number.
func (t *traffic) retained(ctx context.Context, n *node) (uint64, error) {
	at := t.access
	at.address, at.before = n.address, introduce
	got := make(chan uint64, 1)
	reader := &client{id: "reader-" + n.name, access: at}
	reader.received = func(p *paho.Publish) {
		if r, ok := parse(p); ok && p.Retain {
			select {
			case got <- r.N:
			default:
			}
		}
	}
	conn, err := reader.connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("node %s: %w", n.name, err)
	}
	defer func() {
		_ = conn.Disconnect(&paho.Disconnect{}) // it has served
		<-conn.Done()
	}()
	filter := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: stateTopic, QoS: 1}}}
	if _, err := conn.Subscribe(ctx, filter); err != nil {
		return 0, fmt.Errorf("node %s: %w", n.name, err)
	}
	select {
	case number := <-got:
		return number, nil
	case <-conn.Done():
		return 0, fmt.Errorf("node %s closed the connection", n.name)
	case <-ctx.Done():
		return 0, fmt.Errorf("node %s has no retained message: %w", n.name, ctx.Err())
	}
}

// introduce sends the PROXY header that the nodes' listeners want.
func introduce(c net.Conn) error { return writeProxy(c, c.LocalAddr(), c.RemoteAddr()) }
