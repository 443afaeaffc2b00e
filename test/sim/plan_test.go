package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/broker"
)

// plan is a schedule: what a seed has decided before anything runs. Which node
// leads when a fault comes, and how goroutines run, is not in it, so a seed
// repeats what is done and not what comes of it.
type plan struct {
	seed      uint64
	keepDead  bool // no garbage collection: states can be compared whole
	snapshots bool // a snapshot every few entries
	drift     map[string]float64
	steps     []step
	load      load
}

// step is a fault and when it comes, counted from the one before.
type step struct {
	after time.Duration
	text  string
	do    func(*cluster)
}

func newPlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := &plan{seed: seed, keepDead: r.IntN(2) == 0, snapshots: r.IntN(3) > 0, drift: map[string]float64{}}
	for _, n := range nodes() {
		p.drift[n] = (r.Float64() - 0.5) / 50
	}
	for range 3 + r.IntN(4) {
		f := drawFault(r)
		f.after = time.Duration(50+r.IntN(700)) * time.Millisecond
		p.steps = append(p.steps, f)
	}
	p.load = drawLoad(r)
	return p
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, garbage collection %v, snapshots %v\n%s", p.seed, !p.keepDead, p.snapshots, p.load)
	for _, s := range p.steps {
		fmt.Fprintf(&b, "  after %v: %s\n", s.after, s.text)
	}
	return b.String()
}

func (p *plan) broker() broker.Config {
	return broker.Config{
		UnservedTimeout: 2 * time.Second, ConnectTimeout: 2 * time.Second, DrainGrace: 5, ProgressInterval: p.load.progress,
		MaxInflight: p.load.inflight,
	}
}
