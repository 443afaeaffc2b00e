package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// clientHost is the machine that the clients run on.
const clientHost = "clients"

// load is who is there and what they do.
type load struct {
	publishers  []history.PublisherConfig
	subscribers []history.SubscriberConfig
	acts        []act // of the subscriber with the same number
	inflight    int
	progress    time.Duration
}

// act is what a subscriber does besides receiving.
type act int

const (
	stays act = iota
	roams     // disconnects and comes back elsewhere
	taken     // another connection takes its client id over, again and again
)

func (a act) String() string { return [...]string{"stays", "roams", "is taken over"}[a] }

func (l load) String() string {
	var b strings.Builder
	for _, p := range l.publishers {
		fmt.Fprintf(&b, "  %s: v%d QoS %d to %v, %.0f a second, window %d, expiry %d\n", p.Name, p.Version, p.QoS, p.Topics, p.Rate, p.Window, p.Expiry)
	}
	for i, s := range l.subscribers {
		fmt.Fprintf(&b, "  %s: v%d to %s, expiry %d, %v\n", s.Name, s.Version, filters(s.Subscriptions), s.Expiry, l.acts[i])
	}
	return b.String()
}

func filters(subs []rawmqtt.Subscription) string {
	var all []string
	for _, s := range subs {
		all = append(all, fmt.Sprintf("%s (%d)", s.Filter, s.Options&3))
	}
	return strings.Join(all, ", ")
}

func drawLoad(r *rand.Rand) load {
	l := load{inflight: []int{1, 5, 1000}[r.IntN(3)], progress: []time.Duration{5, 75}[r.IntN(2)] * time.Millisecond}
	// MQTT 3.1 does not tell whether there was a session, which the judge must know.
	version := func() byte { return []byte{4, 5, 5}[r.IntN(3)] }
	endpoint := func() history.Endpoint {
		at := history.Endpoint{Version: version(), Timeout: 2 * time.Second}
		for _, k := range r.Perm(5) {
			at.Addresses = append(at.Addresses, nodes()[k])
		}
		return at
	}
	for i := range 2 + r.IntN(3) {
		p := history.PublisherConfig{
			Endpoint: endpoint(), Name: fmt.Sprintf("p%d", i), QoS: byte(1 + r.IntN(2)), Rate: float64(5 + r.IntN(30)),
			Window: []int{1, 5, 50}[r.IntN(3)], Size: 16, Expiry: []uint32{0, 3600, 3600}[r.IntN(3)],
		}
		for range 1 + r.IntN(2) {
			p.Topics = append(p.Topics, fmt.Sprintf("t/%d", r.IntN(3)))
		}
		l.publishers = append(l.publishers, p)
	}
	plain := []string{"t/0", "t/1", "t/#", "t/+", "#"}
	for i := range 2 + r.IntN(3) {
		s := history.SubscriberConfig{
			Endpoint: endpoint(), Name: fmt.Sprintf("s%d", i), Expiry: []uint32{3600, 3600, 3600, 0}[r.IntN(4)],
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub(plain[r.IntN(len(plain))], byte(1+r.IntN(2)))},
		}
		a := stays
		if s.Expiry > 0 {
			a = act(r.IntN(3))
		}
		l.subscribers, l.acts = append(l.subscribers, s), append(l.acts, a)
	}
	if r.IntN(2) == 0 {
		qos := byte(1 + r.IntN(2))
		for i := range 2 + r.IntN(2) {
			l.subscribers = append(l.subscribers, history.SubscriberConfig{
				Endpoint: endpoint(), Name: fmt.Sprintf("g%d", i), Expiry: 3600,
				Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("$share/g/t/#", qos)},
			})
			l.acts = append(l.acts, act(r.IntN(2)))
		}
	}
	return l
}

// dial opens a client's connection to a node.
func (c *cluster) dial(ctx context.Context, node string) (net.Conn, error) {
	return c.net.dial(ctx, clientHost, node, protoMQTT)
}

// crowd is the clients of a run.
type crowd struct {
	c    *cluster
	pubs []*history.Publisher
	subs []*history.Subscriber
	acts sync.WaitGroup
	quit context.CancelFunc
}

// patience is how long anything may take in a cluster that is whole.
const patience = 20 * time.Second

// gather lets the subscribers come, and then the publishers.
func (c *cluster) gather() (*crowd, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w := &crowd{c: c}
	l := &c.plan.load
	run, quit := context.WithCancel(context.Background())
	w.quit = quit
	var subs []*history.Subscriber
	for _, cfg := range l.subscribers {
		cfg.Dial = c.dial
		s, err := history.StartSubscriber(ctx, c.rec, cfg)
		if err != nil {
			w.leave()
			return nil, err
		}
		subs = append(subs, s)
	}
	w.subs = subs
	for i, cfg := range l.subscribers {
		cfg.Dial = c.dial
		switch l.acts[i] {
		case roams:
			w.acts.Go(func() { w.roam(run, subs[i], uint64(i)) })
		case taken:
			w.acts.Go(func() { w.takeOver(run, i, cfg) })
		}
	}
	for _, cfg := range l.publishers {
		cfg.Dial = c.dial
		w.pubs = append(w.pubs, history.StartPublisher(context.Background(), c.rec, cfg))
	}
	return w, nil
}

// rest waits or reports that the acts are to end.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (w *crowd) roam(ctx context.Context, s *history.Subscriber, n uint64) {
	r := rand.New(rand.NewPCG(w.c.plan.seed, 100+n))
	for rest(ctx, between(r, 100*time.Millisecond, time.Second)) {
		s.Disconnect()
		rest(ctx, between(r, time.Millisecond, 500*time.Millisecond))
		_ = s.Resume(ctx) // it goes on trying
	}
}

// takeOver lets other connections claim the client id of a subscriber. What the
// last of them holds in the end is judged.
func (w *crowd) takeOver(ctx context.Context, i int, cfg history.SubscriberConfig) {
	r := rand.New(rand.NewPCG(w.c.plan.seed, 200+uint64(i)))
	cfg.ClientID = cfg.Name
	for n := 1; rest(ctx, between(r, 100*time.Millisecond, time.Second)); n++ {
		cfg.Name = fmt.Sprintf("%s.%d", cfg.ClientID, n)
		cfg.Addresses = append(cfg.Addresses[1:len(cfg.Addresses):len(cfg.Addresses)], cfg.Addresses[0])
		// One that cannot come in time leaves the id to the one before.
		wait, cancel := context.WithTimeout(context.Background(), patience)
		s, err := history.StartSubscriber(wait, w.c.rec, cfg)
		cancel()
		if err != nil {
			continue
		}
		w.subs[i].Disconnect()
		w.subs[i] = s
	}
	// A CONNECT of one that has gone may still win: not for longer than a node waits
	// for the outcome of a claim.
	time.Sleep(2 * time.Second)
	cfg.Name = cfg.ClientID + ".last"
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := history.StartSubscriber(ctx, w.c.rec, cfg)
	if err != nil {
		w.c.fail("nobody holds the client id in the end: %v", err)
		return
	}
	w.subs[i].Disconnect()
	w.subs[i] = s
}

// finish lets the publishers have everything acknowledged and the subscribers
// receive it, in a cluster that is whole, and sends all of them home.
func (w *crowd) finish() error {
	w.quit()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for _, p := range w.pubs {
		if err := p.Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("a publisher gets no answer: %w", err))
		}
	}
	w.acts.Wait()
	for _, s := range w.subs {
		if err := s.AwaitQuiet(ctx, time.Second); err != nil {
			errs = append(errs, fmt.Errorf("a subscriber does not come to rest: %w", err))
		}
	}
	for _, s := range w.subs {
		s.Stop()
	}
	return errors.Join(errs...)
}

// leave is the end where there was no beginning.
func (w *crowd) leave() {
	w.quit()
	for _, s := range w.subs {
		s.Disconnect()
	}
}
