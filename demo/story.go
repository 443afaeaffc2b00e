package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// How long the parts of the story are that only wait.
const (
	flowTime   = 4 * time.Second // before the kill
	withoutOne = 3 * time.Second // with a node dead
	wholeTime  = 2 * time.Second // after its return
	settleTime = 10 * time.Second
)

// story is what the demo does, in its order.
type story struct {
	*board
	cluster  *cluster
	balancer *balancer
	probe    *probe
	once     bool

	traffic *traffic // nil until the nodes are up
	ready   func(*traffic)
	killed  *node
}

// errLost says that the demo has not kept what it promises.
var errLost = errors.New("the cluster has not kept its word")

// tell tells it to the end. An error is that of a step that did not happen, or
// wraps errLost.
func (s *story) tell(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.rise, s.populate, s.kill, s.restart, s.comeBack, s.compareRetained, s.judge,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause lets time pass in which nothing may break.
func (s *story) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return s.cluster.died()
	}
}

// rise starts the nodes.
func (s *story) rise(ctx context.Context) error {
	c := s.cluster
	s.now("starting the nodes")
	token, err := c.found(ctx)
	if err != nil {
		return err
	}
	first := c.nodes[0]
	if err := c.await(ctx, "the start of the first node", first.ready.Load); err != nil {
		return err
	}
	s.say(plainMark, "%s has made the cluster and its CA", first.name)
	for _, n := range c.nodes[1:] {
		if err := c.join(ctx, n, token); err != nil {
			return err
		}
		s.say(plainMark, "%s has joined with a token, over mutual TLS", n.name)
	}
	err = c.await(ctx, "the promotion of the nodes to voters", func() bool {
		for _, n := range c.nodes {
			if !n.ready.Load() {
				return false
			}
		}
		status, err := c.status(ctx)
		return err == nil && voters(status) == len(c.nodes) && status.Leader != ""
	})
	if err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	s.say(plainMark, "all %d nodes are ready and vote; user and client certificate are made", len(c.nodes))
	return nil
}

// populate connects the devices. Subscribers come first: from then on they are
// owed every message.
func (s *story) populate(ctx context.Context) error {
	s.now("connecting the devices")
	t := newTraffic(access{
		address: s.balancer.listener.Addr().String(), tls: s.cluster.tls, user: user, password: s.cluster.password,
	}, s.balancer)
	s.traffic = t
	s.ready(t)
	t.watch()
	if err := s.await(ctx, "the connection of the control room", &t.control.client); err != nil {
		return err
	}
	t.online()
	if err := s.await(ctx, "the connection of the laptop", &t.laptop.client); err != nil {
		return err
	}
	at := t.where(&t.laptop.client)
	t.offline()
	s.say(plainMark, "the laptop has subscribed %s and gone offline: its queue grows", at)
	t.flow()
	begin := time.Now()
	if err := s.cluster.await(ctx, "the connection of the devices", func() bool { return t.backSince(begin) }); err != nil {
		return s.because(err)
	}
	s.say(plainMark, "%d devices publish, %s; control room %s", len(t.publishers), s.spread(), t.where(&t.control.client))
	s.now("messages flow; the leader will be killed")
	return s.pause(ctx, flowTime)
}

// await waits for a client's connection.
func (s *story) await(ctx context.Context, what string, c *client) error {
	err := s.cluster.await(ctx, what, func() bool { return c.state().up })
	if cause := c.state().err; err != nil && cause != nil {
		return fmt.Errorf("%w; the last attempt: %w", err, cause)
	}
	return err
}

// because adds why a device is not connected, if one is not.
func (s *story) because(err error) error {
	for _, p := range s.traffic.publishers {
		if state := p.state(); !state.up && state.err != nil {
			return fmt.Errorf("%w; %s: %w", err, p.id, state.err)
		}
	}
	return err
}

// spread says how many clients each node has.
func (s *story) spread() string {
	var parts []string
	for _, n := range s.cluster.nodes {
		parts = append(parts, fmt.Sprintf("%s %d", n.name, n.open.Load()))
	}
	return strings.Join(parts, ", ")
}

// kill kills the leader and measures how long that is felt.
func (s *story) kill(ctx context.Context) error {
	leader := s.cluster.leader(ctx, s.probe.client, nil)
	if leader == nil {
		return errors.New("no node leads although all are ready: look into their logs")
	}
	s.killed = leader
	clients, control := leader.open.Load(), ""
	if s.traffic.where(&s.traffic.control.client) == "at "+leader.name {
		control = ", the control room too"
	}
	leader.kill()
	at := time.Now()
	s.say(badMark, "kill -9 of %s, the leader, with %d clients%s", leader.name, clients, control)
	s.now("%s is dead", leader.name)
	var next *node
	err := s.cluster.await(ctx, "the election of a new leader", func() bool {
		next = s.cluster.leader(ctx, s.probe.client, leader)
		return next != nil
	})
	if err != nil {
		return err
	}
	s.say(goodMark, "%s leads after %s", next.name, milliseconds(time.Since(at)))
	if err := s.cluster.await(ctx, "the return of all clients", func() bool { return s.traffic.backSince(at) }); err != nil {
		return s.because(err)
	}
	s.say(goodMark, "all clients work again after %s; the control room is %s",
		milliseconds(time.Since(at)), s.traffic.where(&s.traffic.control.client))
	return s.pause(ctx, withoutOne)
}

// restart starts the dead node again and waits until it knows what it missed.
func (s *story) restart(ctx context.Context) error {
	n, h := s.killed, s.probe.client
	missed, target := s.missed(ctx)
	if err := n.start(); err != nil {
		return err
	}
	at := time.Now()
	s.say(plainMark, "%s is started again", n.name)
	s.now("%s catches up", n.name)
	err := s.cluster.await(ctx, "the return of "+n.name, func() bool {
		m, err := n.scrape(ctx, h)
		return err == nil && m[metricApplied] >= target && n.ready.Load()
	})
	if err != nil {
		return err
	}
	s.say(goodMark, "%s has caught up with %s entries and is ready after %s",
		n.name, thousands(missed), milliseconds(time.Since(at)))
	s.now("%d nodes serve again", len(s.cluster.nodes))
	return s.pause(ctx, wholeTime)
}

// missed returns how many entries the dead node has missed, and where the log
// ends now.
func (s *story) missed(ctx context.Context) (entries int, end float64) {
	leader := s.cluster.leader(ctx, s.probe.client, s.killed)
	if leader == nil {
		return 0, 0
	}
	m, err := leader.scrape(ctx, s.probe.client)
	if err != nil {
		return 0, 0
	}
	return max(0, int(m[metricApplied])-int(s.probe.lastApplied(s.killed.name))), m[metricApplied]
}

// comeBack connects the laptop again, which gets what was queued for it.
func (s *story) comeBack(ctx context.Context) error {
	t := s.traffic
	before, at := t.laptop.ledger.sum(time.Now()), time.Now()
	t.online()
	if err := s.await(ctx, "the return of the laptop", &t.laptop.client); err != nil {
		return err
	}
	s.settle(ctx, at, t.laptop)
	after := t.laptop.ledger.sum(time.Now())
	state := t.laptop.state()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case after.lost > 0 || state.forgotten > 0:
		s.say(badMark, "the laptop is back %s and misses %s of %s queued messages", t.where(&t.laptop.client), thousands(after.lost), thousands(before.owed))
	default:
		s.say(goodMark, "the laptop is back %s with its session and %s queued messages",
			t.where(&t.laptop.client), thousands(before.owed))
	}
	return nil
}

// compareRetained asks every node for the retained message.
func (s *story) compareRetained(ctx context.Context) error {
	var names []string
	for _, n := range s.cluster.nodes {
		want := s.traffic.state.acked.Load()
		limited, cancel := context.WithTimeout(ctx, answerTimeout)
		got, err := s.traffic.retained(limited, n)
		cancel()
		if err != nil {
			return fmt.Errorf("the retained state cannot be read: %w", err)
		}
		if got < want {
			s.say(badMark, "the retained state of %s is %d, older than the acknowledged %d", n.name, got, want)
			return fmt.Errorf("%w: a retained message went back in time", errLost)
		}
		names = append(names, n.name)
	}
	s.say(goodMark, "the retained state is the newest on %s", strings.Join(names, ", "))
	return nil
}

// settle waits until a subscriber has what it was owed before the time, and
// writes off what does not come.
func (s *story) settle(ctx context.Context, before time.Time, subscribers ...*subscriber) {
	limit := time.Now().Add(settleTime)
	for _, sub := range subscribers {
		for sub.ledger.owedBefore(before) > 0 && time.Now().Before(limit) {
			if s.pause(ctx, pollEvery) != nil {
				return
			}
		}
		sub.ledger.writeOff(before)
	}
}

// judge waits for what is under way and says what was lost.
func (s *story) judge(ctx context.Context) error {
	t := s.traffic
	if s.once {
		s.now("waiting for what is under way")
		limited, cancel := context.WithTimeout(ctx, patience)
		finished := t.finish(limited)
		cancel()
		if !finished {
			return s.because(errors.New("not all publishers got their last message acknowledged"))
		}
	}
	s.settle(ctx, time.Now(), t.control, t.laptop)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := t.verdict(); err != nil {
		s.say(badMark, "%v", err)
		return err
	}
	sum := t.control.ledger.sum(time.Now())
	s.say(goodMark, "nothing is lost: %s acknowledged and delivered in order, %d twice",
		thousands(sum.acked), sum.duplicates)
	return nil
}

// verdict returns an error that wraps errLost if a promise was broken so far.
func (t *traffic) verdict() error {
	var broken []string
	for _, s := range []*subscriber{t.control, t.laptop} {
		sum, state := s.ledger.sum(time.Now()), s.state()
		if sum.lost > 0 {
			broken = append(broken, fmt.Sprintf("%s lost %s acknowledged messages", s.id, thousands(sum.lost)))
		}
		if sum.disordered > 0 {
			broken = append(broken, fmt.Sprintf("%s got %s out of order", s.id, thousands(sum.disordered)))
		}
		if state.forgotten > 0 {
			broken = append(broken, fmt.Sprintf("%s lost its session %d times", s.id, state.forgotten))
		}
	}
	if len(broken) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errLost, strings.Join(broken, ", "))
}
