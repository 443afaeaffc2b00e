package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// SubscriberConfig says what a Subscriber asks for.
type SubscriberConfig struct {
	Endpoint
	// Name is that of the history; ClientID is Name if empty.
	Name, ClientID string
	Subscriptions  []rawmqtt.Subscription
	// Expiry is how long the session outlives a connection, in seconds; 0 makes
	// every connection a clean one.
	Expiry uint32
	// Up and Away, if both are set, have it leave with DISCONNECT after about Up and
	// come back after about Away, until Stay: half of it to one and a half.
	Up, Away time.Duration
}

// Subscriber is a recorded client that subscribes and acknowledges what it gets.
// It reconnects on its own unless another client took it over, and subscribes again where
// its session is gone.
type Subscriber struct {
	client *client
	cfg    SubscriberConfig

	mu      sync.Mutex
	got     map[string]int // by message, how often
	changed chan struct{}  // closed and replaced when got, ready or err changes
	last    time.Time      // of the newest message
	ready   bool           // connected, and subscribed
	err     error
	stay    chan struct{} // closed by Stay
	once    sync.Once

	subscribed bool // the session has the subscriptions; the goroutine's

	cancel context.CancelFunc // of the goroutine; nil while away
	done   chan struct{}
}

var (
	// errLeave is how Disconnect and Stop end the goroutine.
	errLeave = errors.New("leave")
	// errAway ends a connection that has had its time.
	errAway = errors.New("go away for a while")
)

// StartSubscriber connects and subscribes and returns when the SUBACK has come.
func StartSubscriber(ctx context.Context, rec *Recorder, cfg SubscriberConfig) (*Subscriber, error) {
	s := &Subscriber{client: newClient(rec, cfg.Endpoint, cfg.Name, cfg.ClientID, cfg.Expiry), cfg: cfg,
		got: map[string]int{}, changed: make(chan struct{}), stay: make(chan struct{})}
	if err := s.Resume(ctx); err != nil {
		s.Disconnect()
		return nil, err
	}
	return s, nil
}

// Resume connects again after Disconnect and returns when that is done. After an
// error it goes on trying until Disconnect.
func (s *Subscriber) Resume(ctx context.Context) error {
	run, cancel := context.WithCancelCause(context.Background()) // Disconnect ends it, not ctx
	s.cancel = func() { cancel(errLeave) }
	s.done = make(chan struct{})
	go s.run(run)
	return s.wait(ctx, "be subscribed", func() bool { return s.ready })
}

// Stay has it come back, if it is away, and go away no more; it returns when that
// is done.
func (s *Subscriber) Stay(ctx context.Context) error {
	s.once.Do(func() { close(s.stay) })
	return s.wait(ctx, "come back", func() bool { return s.ready })
}

// Disconnect leaves in good order; a session with an Expiry stays.
func (s *Subscriber) Disconnect() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	<-s.done
	s.cancel = nil
}

// Stop records that everything owed must have come (Drained), and then leaves.
func (s *Subscriber) Stop() {
	s.client.add(Event{Kind: Drained})
	s.Disconnect()
}

// Count is how many different messages were received.
func (s *Subscriber) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// AwaitCount waits until that many different messages were received.
func (s *Subscriber) AwaitCount(ctx context.Context, n int) error {
	return s.wait(ctx, fmt.Sprintf("have received %d messages", n), func() bool { return len(s.got) >= n })
}

// AwaitQuiet waits until the subscriber is connected and nothing has come for d.
func (s *Subscriber) AwaitQuiet(ctx context.Context, d time.Duration) error {
	tick := time.NewTicker(d / 4)
	defer tick.Stop()
	for {
		s.mu.Lock()
		quiet := s.ready && time.Since(s.last) >= d
		s.mu.Unlock()
		if quiet {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s still receives: %w", s.cfg.Name, context.Cause(ctx))
		}
	}
}

// Err says why the subscriber ended on its own (it was taken over, or refused).
func (s *Subscriber) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// wait waits for a condition, which is asked under the lock.
func (s *Subscriber) wait(ctx context.Context, what string, is func() bool) error {
	for {
		s.mu.Lock()
		ok, changed, err, n := is(), s.changed, s.err, len(s.got)
		s.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s (with %d messages so far) shall %s: %w", s.cfg.Name, n, what, context.Cause(ctx))
		}
	}
}

// change changes the shared state and wakes who waits for it.
func (s *Subscriber) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Subscriber) run(ctx context.Context) {
	defer close(s.done)
	defer s.change(func() { s.ready = false })
	for ctx.Err() == nil {
		present, err := s.client.connect(ctx)
		if err != nil {
			return
		}
		reason, err := s.serve(ctx, present)
		if errors.Is(err, errLeave) {
			s.client.leave()
			return
		}
		s.change(func() { s.ready = false })
		if errors.Is(err, errAway) {
			s.client.leave()
			s.rest(ctx)
			continue
		}
		reason = s.client.hangUp(reason, err)
		if reason == TakenOver && !s.client.unanswered {
			s.change(func() { s.err = fmt.Errorf("%s was taken over", s.cfg.Name) })
			return
		}
	}
}

// rest is the time away.
func (s *Subscriber) rest(ctx context.Context) {
	limit := time.NewTimer(s.client.about(s.cfg.Away))
	defer limit.Stop()
	select {
	case <-limit.C:
	case <-s.stay:
	case <-ctx.Done():
	}
}

// staying returns what tells that the time of a connection is over, and what
// stops that.
func (s *Subscriber) staying() (over <-chan time.Time, stop func() bool) {
	if s.cfg.Up == 0 || s.cfg.Away == 0 {
		return nil, func() bool { return true }
	}
	t := time.NewTimer(s.client.about(s.cfg.Up))
	return t.C, t.Stop
}

// serve receives over one connection until it ends.
func (s *Subscriber) serve(ctx context.Context, present bool) (reason byte, err error) {
	s.subscribed = s.subscribed && present
	if !s.subscribed {
		if err := s.subscribe(); err != nil {
			return 0, err
		}
	} else {
		s.becomeReady()
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	over, stop := s.staying()
	defer stop()
	for {
		select {
		case <-over:
			select {
			case <-s.stay:
			default:
				return 0, errAway
			}
		case p, ok := <-s.client.packets:
			if !ok {
				return 0, s.client.readErr
			}
			if reason, err := s.handle(p); err != nil {
				return reason, err
			}
		case <-ping.C:
			if err := s.client.ping(); err != nil {
				return 0, err
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (s *Subscriber) becomeReady() {
	s.change(func() { s.ready, s.last = true, time.Now() })
}

// subscribe sends the SUBSCRIBE; its SUBACK is handled like any packet.
func (s *Subscriber) subscribe() error {
	for _, b := range s.cfg.Subscriptions {
		s.client.add(Event{Kind: SubscribeSent, Filter: b.Filter, QoS: b.Options & 3, NoLocal: b.Options&4 != 0})
	}
	return s.client.raw.Send(rawmqtt.SubscribePacket(s.client.at.Version, 1, nil, s.cfg.Subscriptions...))
}

// handle records and answers one packet; reason is that of a DISCONNECT.
func (s *Subscriber) handle(p *rawmqtt.Packet) (reason byte, err error) {
	switch p.Type {
	case rawmqtt.DISCONNECT:
		return p.Reason, errDisconnected
	case rawmqtt.PINGRESP:
		s.client.pinged = time.Time{}
		return 0, nil
	case rawmqtt.SUBACK:
		for i, code := range p.Reasons[:min(len(p.Reasons), len(s.cfg.Subscriptions))] {
			e := Event{Kind: Subscribed, Filter: s.cfg.Subscriptions[i].Filter, QoS: code}
			if code >= 0x80 {
				e.QoS, e.Reason = 0, code
			}
			s.client.add(e)
		}
		s.subscribed = true
		s.becomeReady()
		return 0, nil
	case rawmqtt.PUBLISH, rawmqtt.PUBREL:
		e, err := s.client.receive(p)
		if p.Type == rawmqtt.PUBLISH {
			s.change(func() { s.got[e.Message]++; s.last = time.Now() })
		}
		return 0, err
	}
	return 0, nil
}
