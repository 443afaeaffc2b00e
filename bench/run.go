package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxErrors is how many errors a report lists; all are counted.
const maxErrors = 10

// openers is how many connections a run opens at a time before it measures.
const openers = 32

// run is one run of a scenario with messages.
type run struct {
	cfg  Config
	name string // random, part of topics and client ids
	pubs []*publisher
	subs []*subscriber
	// groups are the shared subscriptions.
	groups   []*group
	turn     atomic.Uint64 // addresses of a storm of connections
	readSize int
	stall    time.Duration // after which gates give up

	start       time.Time
	ownCPU      time.Duration // of the generator at the start
	refusals    atomic.Int64  // of connections that were tried again
	delivered   atomic.Int64  // distinct messages at their receivers
	acked       atomic.Int64
	lastArrival atomic.Int64

	from    atomic.Int64 // since when the publishers' time runs
	stopped atomic.Bool  // publishers shall end
	stop    chan struct{}
	closing atomic.Bool // links end by our own doing

	cancel  context.CancelFunc // ends the keep-alives
	workers sync.WaitGroup     // publishers, receivers, keep-alives
	filled  []usage            // before the first message of a fillPhase

	mu     sync.Mutex
	there  []*link // subscribers that a readPhase has opened
	errs   []error
	nerrs  int
	report Report
}

// Run runs the scenario that cfg names against brokers that are there already.
// It blocks until everything expected has arrived, nothing has for cfg.Wait, or
// ctx ends. The report is filled as far as the run came, also with an error; a
// run that lost messages is an error only at QoS 1 and 2.
func Run(ctx context.Context, cfg Config) (Report, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Report{}, err
	}
	if cfg.PubAddrs[0] == NullAddress || cfg.SubAddrs[0] == NullAddress {
		null, err := OpenNull(ctx, NullConfig{Address: "127.0.0.1:0"})
		if err != nil {
			return Report{}, err
		}
		defer null.Close()
		cfg.PubAddrs = []string{null.Addr()}
		cfg.SubAddrs = cfg.PubAddrs
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		if len(cfg.Curves) > 0 {
			cfg.TLS.CurvePreferences = cfg.Curves
		}
		if cfg.MaxTLS != 0 {
			cfg.TLS.MinVersion, cfg.TLS.MaxVersion = min(cfg.TLS.MinVersion, cfg.MaxTLS), cfg.MaxTLS
		}
		if cfg.Resume {
			cfg.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(64)
		}
	}
	var id [2]byte
	rand.Read(id[:])
	r := &run{cfg: cfg, name: hex.EncodeToString(id[:]), stop: make(chan struct{}), start: time.Now(),
		stall: min(stallAfter, cfg.Wait/4)}
	r.report = newReport(&cfg, r.start)
	ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	switch cfg.Scenario {
	case Connects:
		err = r.connects(ctx)
	case Idle:
		err = r.idle(ctx)
	case Offline, Broadcast:
		err = r.offline(ctx)
	case Retained:
		err = r.retained(ctx)
	case Filters:
		err = r.filters(ctx)
	default:
		err = r.messages(ctx)
	}
	return r.report, err
}

// now is nanoseconds since the start.
func (r *run) now() int64 { return int64(time.Since(r.start)) }

// fail notes an error and lets the publishers end.
func (r *run) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nerrs++; r.nerrs <= maxErrors {
		r.errs = append(r.errs, err)
	}
	if !r.stopped.Swap(true) {
		close(r.stop)
	}
}

// firstError is the first that was noted, nil if none was.
func (r *run) firstError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) == 0 {
		return nil
	}
	return r.errs[0]
}

// messages runs a scenario in which publishers and subscribers are there at the
// same time.
func (r *run) messages(ctx context.Context) error {
	r.layout()
	defer r.close()
	if err := r.openSubscribers(ctx); err != nil {
		return err
	}
	if err := r.openPublishers(ctx); err != nil {
		return err
	}
	before, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	r.begin()
	r.receiveAll()
	r.workers.Go(func() { keepAlives(ctx, r.links) })
	warm := r.warmUp()
	if warm > 0 {
		r.from.Store(math.MaxInt64)
	}
	r.publishAll(ctx)
	if warm > 0 {
		r.watch(ctx, func() bool { return r.published() || r.delivered.Load() >= warm })
		if before, err = sample(r.cfg.PIDs); err != nil {
			return err
		}
		warm = r.delivered.Load()
		r.from.Store(r.now())
	}
	r.watch(ctx, func() bool { return r.published() && r.delivered.Load() >= r.expected() })
	after, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	elapsed := time.Duration(r.lastArrival.Load())
	r.close()
	r.report.spent(before, after, r.delivered.Load()-warm)
	r.count(elapsed)
	r.forget()
	return r.verdict(ctx)
}

// warmUp is how many deliveries do not count for the CPU time of a message nor for
// the duration: with many topics, as many as use each of them once.
func (r *run) warmUp() int64 {
	if c := &r.cfg; c.Topics > 1 && !c.paced() && c.Duration > 0 {
		return int64(c.Topics) * int64(c.Clients)
	}
	return 0
}

func (r *run) openSubscribers(ctx context.Context) error {
	return forEach(ctx, len(r.subs), openers, func(ctx context.Context, i int) error { return r.subs[i].open(ctx) })
}

func (r *run) openPublishers(ctx context.Context) error {
	return forEach(ctx, len(r.pubs), openers, func(ctx context.Context, i int) error { return r.pubs[i].open(ctx) })
}

// begin starts the clock. Nothing that looks at it may run yet.
func (r *run) begin() {
	r.start = time.Now()
	if own, err := sample([]int{os.Getpid()}); err == nil {
		r.ownCPU = own[0].cpu
	}
}

func (r *run) receiveAll() {
	for _, s := range r.subs {
		r.workers.Go(func() { r.fail(s.receive()) })
	}
}

func (r *run) publishAll(ctx context.Context) {
	paced := r.cfg.paced()
	for _, p := range r.pubs {
		if p.acked != nil {
			r.workers.Go(func() { r.fail(p.acked.run()) })
			continue
		}
		r.workers.Go(func() { r.fail(p.drain()) })
		if !paced {
			r.workers.Go(func() { r.fail(p.flood()) })
		}
	}
	if paced {
		r.workers.Go(func() { r.fail(r.pace(ctx)) })
	}
}

// links calls yield for every open connection.
func (r *run) links(yield func(*link) bool) {
	for _, s := range r.subs {
		if s.link != nil && !yield(s.link) {
			return
		}
	}
	for _, p := range r.pubs {
		if p.link != nil && !yield(p.link) {
			return
		}
	}
}

// published tells whether all publishers are done.
func (r *run) published() bool {
	for _, p := range r.pubs {
		select {
		case <-p.done:
		default:
			return false
		}
	}
	return true
}

// expected is how many deliveries are due for what was sent so far.
func (r *run) expected() (n int64) {
	for _, p := range r.pubs {
		n += int64(p.sent.Load()) * int64(p.receivers)
	}
	return n
}

// watch waits until done, or until nothing has moved for the configured wait.
func (r *run) watch(ctx context.Context, done func() bool) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var progress int64 = -1
	var since time.Time
	for !done() {
		select {
		case <-ctx.Done():
			r.fail(fmt.Errorf("the run was stopped: %w", context.Cause(ctx)))
			return
		case <-tick.C:
		}
		if p := r.delivered.Load() + r.acked.Load() + r.expected(); p != progress {
			progress, since = p, time.Now()
		} else if time.Since(since) > r.cfg.Wait {
			return
		}
	}
}

// close ends all connections and waits for the goroutines. It is idempotent.
func (r *run) close() {
	r.closing.Store(true)
	if !r.stopped.Swap(true) {
		close(r.stop)
	}
	deadline := time.Now().Add(time.Second)
	for l := range r.links {
		l.SetWriteDeadline(deadline) // also ends writes that are stuck
	}
	for l := range r.links {
		l.Write([]byte{packetDisconnect << 4, 0})
		l.Close()
	}
	r.cancel()
	r.workers.Wait()
}

// forget removes the persistent sessions that the run has left behind.
func (r *run) forget() {
	if !r.cfg.Persistent {
		return
	}
	ctx := context.Background() // also when the run was stopped
	err := forEach(ctx, len(r.subs), openers, func(ctx context.Context, i int) error {
		s := r.subs[i]
		l, err := connect(ctx, &r.cfg, s.addr, connectPacket(&r.cfg, s.id, true, false))
		if err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		r.fail(fmt.Errorf("remove the persistent sessions of the run: %w", err))
	}
}
