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
	writers     []history.RetainedWriterConfig
	readers     []history.RetainedReaderConfig
	bearers     []history.WillBearerConfig
	rivals      []history.RivalConfig
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
		fmt.Fprintf(&b, "  %s: v%d QoS %d to %v, %.0f of %d bytes a second, window %d, expiry %d\n",
			p.Name, p.Version, p.QoS, p.Topics, p.Rate, p.Size, p.Window, p.Expiry)
	}
	for i, s := range l.subscribers {
		fmt.Fprintf(&b, "  %s: v%d to %s, expiry %d, %v\n", s.Name, s.Version, filters(s.Subscriptions), s.Expiry, l.acts[i])
	}
	for _, w := range l.writers {
		fmt.Fprintf(&b, "  %s: v%d writes retained messages with QoS %d\n", w.Name, w.Version, w.QoS)
	}
	for _, w := range l.readers {
		fmt.Fprintf(&b, "  %s: v%d reads them with QoS %d, clean %v\n", w.Name, w.Version, w.QoS, w.Clean)
	}
	for _, w := range l.bearers {
		fmt.Fprintf(&b, "  %s: v%d bears wills of QoS %d, retained %v, delay %d, expiry %d\n", w.Name, w.Version, w.QoS, w.Retain, w.Delay, w.Expiry)
	}
	for _, w := range l.rivals {
		fmt.Fprintf(&b, "  %s: v%d fights for %s with QoS %d, expiry %d\n", w.Name, w.Version, w.ClientID, w.QoS, w.Expiry)
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

// crew draws clients.
type crew struct {
	*rand.Rand
	load load
}

func drawLoad(r *rand.Rand) load {
	w := crew{Rand: r}
	w.load.inflight = []int{1, 5, 1000}[r.IntN(3)]
	w.load.progress = []time.Duration{5, 75}[r.IntN(2)] * time.Millisecond
	for i := range 2 + r.IntN(2) {
		w.publisher(i)
	}
	for i := range 2 + r.IntN(2) {
		w.subscriber(i)
	}
	// Each of these is in some of the schedules.
	if r.IntN(3) == 0 {
		w.group()
	}
	if r.IntN(3) == 0 {
		w.retained()
	}
	if r.IntN(3) == 0 {
		w.wills()
	}
	if r.IntN(5) == 0 {
		w.fight()
	}
	return w.load
}

func (w *crew) endpoint() history.Endpoint {
	// MQTT 3.1 does not tell whether there was a session, which the judge must know.
	at := history.Endpoint{Version: []byte{4, 5, 5}[w.IntN(3)], Timeout: 2 * time.Second}
	for _, k := range w.Perm(5) {
		at.Addresses = append(at.Addresses, nodes()[k])
	}
	return at
}

func (w *crew) qos() byte { return byte(1 + w.IntN(2)) }

func (w *crew) publisher(i int) {
	p := history.PublisherConfig{
		Endpoint: w.endpoint(), Name: fmt.Sprintf("p%d", i), QoS: w.qos(), Rate: float64(5 + w.IntN(30)),
		Window: []int{1, 5, 50}[w.IntN(3)], Size: 16, Expiry: []uint32{0, 3600, 3600}[w.IntN(3)],
	}
	if w.IntN(4) == 0 {
		// Large ones fill packs, and a node has many full packs under way.
		p.Size, p.Window, p.Rate = 6_500, 150, 100
	}
	for range 1 + w.IntN(2) {
		p.Topics = append(p.Topics, fmt.Sprintf("t/%d", w.IntN(3)))
	}
	w.load.publishers = append(w.load.publishers, p)
}

func (w *crew) subscriber(i int) {
	filters := []string{"t/#", "t/+", "#", "t/0", "t/1"}
	if i == 0 {
		filters = filters[:3] // somebody gets everything, whatever becomes of his node
	}
	s := history.SubscriberConfig{
		Endpoint: w.endpoint(), Name: fmt.Sprintf("s%d", i), Expiry: []uint32{3600, 3600, 3600, 0}[w.IntN(4)],
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub(filters[w.IntN(len(filters))], w.qos())},
	}
	if i == 0 {
		s.Expiry = 3600
	}
	a := stays
	if s.Expiry > 0 {
		a = act(w.IntN(3))
	}
	w.listen(s, a)
}

func (w *crew) listen(s history.SubscriberConfig, a act) {
	w.load.subscribers, w.load.acts = append(w.load.subscribers, s), append(w.load.acts, a)
}

func (w *crew) group() {
	qos := w.qos()
	for i := range 2 + w.IntN(2) {
		w.listen(history.SubscriberConfig{
			Endpoint: w.endpoint(), Name: fmt.Sprintf("g%d", i), Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("$share/g/t/#", qos)},
		}, act(w.IntN(2)))
	}
}

func (w *crew) retained() {
	topics := []string{"r/0", "r/1"}
	for i := range 1 + w.IntN(2) {
		w.load.writers = append(w.load.writers, history.RetainedWriterConfig{
			Endpoint: w.endpoint(), Name: fmt.Sprintf("w%d", i), Topics: topics, QoS: w.qos(), Rate: 8, ClearEvery: 4,
		})
		w.load.readers = append(w.load.readers, history.RetainedReaderConfig{
			Endpoint: w.endpoint(), Name: fmt.Sprintf("r%d", i), Topics: topics, QoS: w.qos(), Rate: 5, Clean: w.IntN(2) == 0,
		})
	}
}

func (w *crew) wills() {
	for i := range 1 + w.IntN(2) {
		b := history.WillBearerConfig{
			Endpoint: w.endpoint(), Name: fmt.Sprintf("b%d", i), Topic: fmt.Sprintf("will/%d", i), QoS: w.qos(),
			Delay: uint32(w.IntN(2)), Stay: between(w.Rand, 50*time.Millisecond, 500*time.Millisecond),
		}
		b.Expiry = []uint32{0, b.Delay + 1, 3600}[w.IntN(3)]
		for range 5 {
			b.Ends = append(b.Ends, history.End(w.IntN(5)))
		}
		w.load.bearers = append(w.load.bearers, b)
	}
	w.listen(history.SubscriberConfig{
		Endpoint: w.endpoint(), Name: "heir", Expiry: 3600, Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("will/#", 2)},
	}, act(w.IntN(2)))
}

func (w *crew) fight() {
	expiry := []uint32{0, 3600}[w.IntN(2)]
	for i := range 2 {
		w.load.rivals = append(w.load.rivals, history.RivalConfig{
			Endpoint: w.endpoint(), Name: fmt.Sprintf("x%d", i), ClientID: "x", Topic: "t/x", QoS: w.qos(), Expiry: expiry,
			Rate: 20, Stay: between(w.Rand, 50*time.Millisecond, 500*time.Millisecond),
		})
	}
}

// dial opens a client's connection to a node.
func (c *cluster) dial(ctx context.Context, node string) (net.Conn, error) {
	return c.net.dial(ctx, clientHost, node, protoMQTT)
}

// crowd is the clients of a run.
type crowd struct {
	c    *cluster
	pubs []worker
	subs []*history.Subscriber
	acts sync.WaitGroup
	quit context.CancelFunc
}

// willLate is how long a will may take that is due: a node that is gone is found
// out after a lease, a claim that nobody waits for after two looks.
const willLate = 6 * time.Second

// worker is a client that works until it is stopped.
type worker interface{ Stop(context.Context) error }

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
	w.work(l)
	return w, nil
}

// work starts everybody who publishes.
func (w *crowd) work(l *load) {
	ctx, rec := context.Background(), w.c.rec
	for _, cfg := range l.publishers {
		cfg.Dial = w.c.dial
		w.pubs = append(w.pubs, history.StartPublisher(ctx, rec, cfg))
	}
	for _, cfg := range l.writers {
		cfg.Dial = w.c.dial
		w.pubs = append(w.pubs, history.StartRetainedWriter(ctx, rec, cfg))
	}
	for _, cfg := range l.readers {
		cfg.Dial = w.c.dial
		w.pubs = append(w.pubs, history.StartRetainedReader(ctx, rec, cfg))
	}
	for _, cfg := range l.bearers {
		cfg.Dial = w.c.dial
		w.pubs = append(w.pubs, history.StartWillBearer(ctx, rec, cfg))
	}
	for _, cfg := range l.rivals {
		cfg.Dial = w.c.dial
		w.pubs = append(w.pubs, history.StartRival(ctx, rec, cfg))
	}
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
	// One that got no answer to a CONNECT of its own takes the id back when it is taken
	// over; so it goes first. And a CONNECT of one that has gone may still win: not for
	// longer than a node waits for the outcome of a claim.
	w.subs[i].Disconnect()
	time.Sleep(2 * time.Second)
	cfg.Name = cfg.ClientID + ".last"
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := history.StartSubscriber(ctx, w.c.rec, cfg)
	if err != nil {
		w.c.fail("nobody holds the client id in the end: %v", err)
		return
	}
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
	if len(w.c.plan.load.bearers) > 0 {
		time.Sleep(willLate) // wills that are due
	}
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
