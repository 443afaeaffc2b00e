package main

import (
	"context"
	"crypto/x509"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// order is what a worker is told first.
type order struct {
	Plan      plan
	Worker    int // it has the clients that Plan.worker gives it
	Balancers []string
	Sources   []string // addresses that it connects from
	Openers   int      // first connections at a time
	Roots     []byte   // PEM of the cluster's CA
	Devices   authority
}

// The requests to a worker. Each has one reply.
const (
	opOpen    = "open"    // connect all
	opStart   = "start"   // publish
	opStatus  = "status"  // the reply has Status
	opStorm   = "storm"   // reconnect those that storm, and collect no garbage from now on
	opCalm    = "calm"    // the storm is over
	opHalt    = "halt"    // publish nothing new
	opAccount = "account" // the reply has Account
	opSamples = "samples" // the reply has Samples and Outages
)

// A generator collects its garbage seldom: the time for it, more than half a second of a
// core, is taken from the nodes, and what it delays is measured as if they had. In a storm
// it does not, unless it has garbageLimit bytes.
const (
	garbage      = 1000 // GOGC
	garbageLimit = 3 << 30
)

// hellosPerSecond is how many handshakes a generator begins: more than the balancers let in,
// so that nobody waits for it. All at once would take what thousands of devices compute
// each for itself out of the nodes' first seconds.
const hellosPerSecond = 1000

type request struct {
	Op    string
	Order *order
}

type reply struct {
	Error   string
	Status  status
	Account account
	Samples samples
	Outages []outage
}

// status is how the clients of a worker are, and what they did so far.
type status struct {
	Up, Downs                    int // connected now; connections that ended
	Pending, Acked, Delivered    int
	Resumed, Connects, Forgotten int
	Failures                     map[string]int // why connections ended or did not begin
}

func (s *status) add(o status) {
	s.Up, s.Downs, s.Pending, s.Acked, s.Delivered = s.Up+o.Up, s.Downs+o.Downs, s.Pending+o.Pending, s.Acked+o.Acked, s.Delivered+o.Delivered
	s.Resumed, s.Connects, s.Forgotten = s.Resumed+o.Resumed, s.Connects+o.Connects, s.Forgotten+o.Forgotten
	if s.Failures == nil {
		s.Failures = map[string]int{}
	}
	for why, n := range o.Failures {
		s.Failures[why] += n
	}
}

// outage is a time without a connection of one client.
type outage struct {
	Client   int
	Down, Up int64 // Unix nanoseconds
}

// worker runs the clients of one generator process.
type worker struct {
	order   *order
	clients []*client
	openers chan struct{}
	hellos  *rate.Limiter
	spread  func() error // ends crowd
	wg      sync.WaitGroup

	start                                         atomic.Int64 // Unix nanoseconds, 0: not yet
	halted                                        atomic.Bool
	pending, acked, delivered, resumed, forgotten atomic.Int64

	mu       sync.Mutex
	up       int
	downs    int
	connects int
	failures map[string]int
	outages  []outage
	samples  samples
}

// work serves requests until in ends.
func work(in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{failures: map[string]int{}}
	defer func() {
		cancel()
		for _, c := range w.clients {
			c.end() // it may wait in a read
		}
		w.wg.Wait()
	}()
	debug.SetGCPercent(garbage)
	debug.SetMemoryLimit(garbageLimit)
	decoder, encoder := gob.NewDecoder(in), gob.NewEncoder(out)
	for {
		var q request
		if err := decoder.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("a request is not understood: %w", err)
		}
		var r reply
		if err := w.serve(ctx, q, &r); err != nil {
			r.Error = err.Error()
		}
		if err := encoder.Encode(&r); err != nil {
			return fmt.Errorf("nobody hears a reply: %w", err)
		}
	}
}

func (w *worker) serve(ctx context.Context, q request, r *reply) error {
	switch q.Op {
	case opOpen:
		return w.open(ctx, q.Order)
	case opStart:
		w.start.Store(time.Now().UnixNano())
		w.poke()
	case opHalt:
		w.halted.Store(true)
		w.poke()
	case opStorm:
		debug.SetGCPercent(-1)
		if w.order.Worker < w.order.Plan.stormy() {
			var err error
			if w.spread, err = crowd(); err != nil {
				return err
			}
		}
		for _, c := range w.clients {
			if c.storms {
				go c.kick() // closing waits for its reader: one after the other takes seconds
			}
		}
	case opCalm:
		debug.SetGCPercent(garbage)
		if w.spread != nil {
			return w.spread()
		}
	case opStatus:
		r.Status = w.status()
	case opAccount:
		r.Account = w.account()
	case opSamples:
		w.mu.Lock()
		defer w.mu.Unlock()
		r.Samples, r.Outages = w.samples, slices.Clone(w.outages)
	default:
		return fmt.Errorf("request %q is not known", q.Op)
	}
	return nil
}

// open makes the clients and starts them.
func (w *worker) open(ctx context.Context, o *order) error {
	w.order, w.openers = o, make(chan struct{}, o.Openers)
	w.hellos = rate.NewLimiter(hellosPerSecond, hellosPerSecond/20)
	roots, err := rootsOf(o.Roots)
	if err != nil {
		return err
	}
	signer, err := o.Devices.open()
	if err != nil {
		return err
	}
	for n := range o.Plan.all() {
		if o.Plan.worker(n) != o.Worker {
			continue
		}
		c, err := w.client(n, signer, roots)
		if err != nil {
			return err
		}
		w.clients = append(w.clients, c)
	}
	for _, c := range w.clients {
		w.wg.Go(func() { c.run(ctx) })
	}
	return nil
}

func (w *worker) client(n int, signer *signer, roots *x509.CertPool) (*client, error) {
	p := &w.order.Plan
	c := &client{w: w, n: n, name: p.name(n), storms: p.storms(n), buf: make([]byte, readBuffer)}
	var err error
	if c.tls, err = signer.config(c.name, roots); err != nil {
		return nil, err
	}
	for i, s := range p.publishes(n) {
		every := p.every(s)
		c.outbound = append(c.outbound, &outbound{stream: s, topic: p.topic(s), id: uint16(i + 1), every: every, offset: rand.N(every)})
	}
	for _, s := range p.owed(n) {
		if c.inbound == nil {
			c.inbound = map[stream]*seen{}
		}
		c.inbound[s] = &seen{}
	}
	return c, nil
}

func (w *worker) poke() {
	for _, c := range w.clients {
		c.poke()
	}
}

// startedAt is when publishing began, zero if it did not.
func (w *worker) startedAt() time.Time {
	if ns := w.start.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

func (w *worker) sample(k kind, storm bool, sent int64, now time.Time) {
	if storm {
		k |= inStorm
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples.add(k, sent, time.Duration(now.UnixNano()-sent))
}

// served notes that a client is connected and subscribed. down is when its last
// connection ended.
func (w *worker) served(c *client, down time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up++
	w.connects++
	if !down.IsZero() {
		w.outages = append(w.outages, outage{c.n, down.UnixNano(), time.Now().UnixNano()})
	}
}

// ended notes that a connection ended, or did not come to serve.
func (w *worker) ended(err error, up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if up {
		w.up--
		w.downs++
	}
	w.failures[why(err)]++
}

func (w *worker) status() status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := status{Up: w.up, Downs: w.downs, Connects: w.connects, Failures: map[string]int{},
		Pending: int(w.pending.Load()), Acked: int(w.acked.Load()), Delivered: int(w.delivered.Load()),
		Resumed: int(w.resumed.Load()), Forgotten: int(w.forgotten.Load())}
	maps.Copy(s.Failures, w.failures)
	return s
}

// account copies what the clients know. Those that are still at work may know more
// the next time.
func (w *worker) account() account {
	a := account{Acked: map[stream]uint32{}}
	for _, c := range w.clients {
		c.mu.Lock()
		for _, o := range c.outbound {
			a.Acked[o.stream] = o.acked
		}
		if c.inbound != nil {
			r := received{Client: c.n, Broken: c.broken, Misrouted: c.misroute, Streams: map[stream]*seen{}}
			for s, got := range c.inbound {
				copied := *got
				copied.Bits = slices.Clone(got.Bits)
				r.Streams[s] = &copied
			}
			a.Received = append(a.Received, r)
		}
		c.mu.Unlock()
	}
	return a
}

// why sorts errors into kinds, without addresses.
func why(err error) string {
	text := err.Error()
	if op, ok := errors.AsType[*net.OpError](err); ok {
		text = strings.ReplaceAll(text, op.Error(), op.Op+": "+op.Err.Error())
	}
	return text
}
