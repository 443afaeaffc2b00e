package listener

import (
	"runtime"
	sched "runtime/metrics"
	"slices"
	"sync"
	"time"
)

// pace bounds how many connections a second begin their TLS handshake, or end, while
// messages flow and goroutines of this process run late: of so many clients that come or
// go at once those that stay would be held up, for as long as all of them take. The bound
// follows what the machine has to spare, as a sender of TCP follows its network: it grows
// while nothing runs late, and is halved when something does. A node without traffic is
// not slowed, and one that has time is soon not.
type pace struct {
	// messages counts those of the sessions that are there; nil: nothing is bounded.
	messages func() int64
	late     func() bool
	weight   float64 // how many of what it paces cost as much as one handshake

	mu      sync.Mutex
	queue   []chan struct{} // who waits, in order
	tokens  float64         // who may begin at once
	rate    float64         // a second
	filled  time.Time       // when tokens were counted last
	running bool
	rested  time.Time // when nobody waited any more

	counted int64     // messages, when they were looked at last
	flowed  time.Time // when they were seen to flow
}

const (
	// paceTick is how often those that wait are let in, paceLook how often the bound is
	// changed: what a handshake causes takes about that long to be seen.
	paceTick = 5 * time.Millisecond
	paceLook = 50 * time.Millisecond
	// Connections a second, for each core: at least so many, whatever runs late, and so
	// many at the begin of a storm, when nothing is known of it.
	paceLeast = 75.0
	paceFirst = 100.0
	// paceMore is what paceLook without lateness adds.
	paceMore = 10.0
	// pacePeak is more than a core can do, from which the bound comes down.
	pacePeak = 4000.0
	// paceFree is a bound that bounds nothing.
	paceFree = 1e6
	// endsForOne is how many ends of connections are let through for one beginning.
	endsForOne = 2
	// paceRest is after how long without a storm nothing is known of the next one.
	paceRest = time.Second
	// paceBurst is how many seconds' worth may begin at once after a rest.
	paceBurst = 0.05
	// paceTraffic is how many messages in paceLook are worth it, and paceQuiet after how
	// long without them there is nobody to hold up: in a storm they can stand still too.
	paceTraffic = 3
	paceQuiet   = 500 * time.Millisecond
	// A goroutine runs late if it waited so long for a core, and the process if more than
	// one of lateShare did.
	lateAfter = 2e-3
	lateShare = 30
)

func newPace(messages func() int64, weight float64) *pace {
	p := &pace{messages: messages, late: lateness(), weight: weight * float64(runtime.GOMAXPROCS(0))}
	p.rate = paceFirst * p.weight
	return p
}

// wait blocks until a connection may begin its handshake, or until done is closed. It
// returns how long that took.
func (p *pace) wait(done <-chan struct{}) time.Duration {
	if p.messages == nil {
		return 0
	}
	began := time.Now()
	p.mu.Lock()
	if p.fill(began); len(p.queue) == 0 && p.tokens >= 1 {
		p.tokens--
		p.mu.Unlock()
		return 0
	}
	turn := make(chan struct{})
	p.queue = append(p.queue, turn)
	if !p.running {
		p.running = true
		if began.Sub(p.rested) > paceRest {
			p.rate = paceFirst * p.weight
		}
		go p.run()
	}
	p.mu.Unlock()
	select {
	case <-turn:
	case <-done:
		p.mu.Lock()
		if i := slices.Index(p.queue, turn); i >= 0 {
			p.queue = slices.Delete(p.queue, i, i+1)
		}
		p.mu.Unlock()
	}
	return time.Since(began)
}

// fill counts the tokens of the time since the last call, under mu.
func (p *pace) fill(now time.Time) {
	p.tokens = min(p.tokens+now.Sub(p.filled).Seconds()*p.rate, max(1, p.rate*paceBurst))
	p.filled = now
}

// run lets in who waits, until nobody does.
func (p *pace) run() {
	tick := time.NewTicker(paceTick)
	defer tick.Stop()
	p.late()
	looked := time.Now()
	p.traffic(looked) // what flowed since the last storm may flow still
	for now := range tick.C {
		var rate float64
		look := now.Sub(looked) >= paceLook
		if look {
			rate = p.next(p.late(), p.traffic(now))
			looked = now
		}
		p.mu.Lock()
		if look {
			p.rate = rate
		}
		p.fill(now)
		for len(p.queue) > 0 && p.tokens >= 1 {
			p.tokens--
			close(p.queue[0])
			p.queue = p.queue[1:]
		}
		if len(p.queue) == 0 {
			p.running, p.queue, p.rested = false, nil, now
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

// traffic tells whether messages flow, or did until a moment ago. Only run calls it.
func (p *pace) traffic(now time.Time) bool {
	n := p.messages()
	if n-p.counted >= paceTraffic {
		p.flowed = now
	}
	p.counted = n
	return now.Sub(p.flowed) < paceQuiet
}

// next is the rate of the next while. Only run calls it; who else writes rate sees that
// nobody runs.
func (p *pace) next(late, traffic bool) float64 {
	switch {
	case !traffic:
		return paceFree
	case late:
		return max(min(p.rate, pacePeak*p.weight)/2, paceLeast*p.weight)
	}
	return min(p.rate+paceMore*p.weight, paceFree)
}

// lateness returns a function that tells whether goroutines of this process waited long
// for a core since its last call.
func lateness() func() bool {
	samples := []sched.Sample{{Name: "/sched/latencies:seconds"}}
	var seen []uint64
	return func() bool {
		sched.Read(samples)
		if samples[0].Value.Kind() != sched.KindFloat64Histogram {
			return false
		}
		h := samples[0].Value.Float64Histogram()
		if seen == nil {
			seen = make([]uint64, len(h.Counts))
		}
		var all, late uint64
		for i, n := range h.Counts {
			all += n - seen[i]
			if h.Buckets[i] >= lateAfter {
				late += n - seen[i]
			}
		}
		copy(seen, h.Counts)
		return late*lateShare > all
	}
}
