package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/test/history"
)

// plan is a schedule: what a seed has decided before anything runs. Which node
// leads when a fault comes, and how goroutines run, is not in it, so a seed
// repeats what is done and not what comes of it.
type plan struct {
	seed      uint64
	keepDead  bool // no garbage collection: states can be compared whole
	snapshots bool // a snapshot every few entries
	// fsync is how long raft's log takes. Proposals that come meanwhile must not fill
	// raft's queue: who waits there holds a mutex, and while anybody waits for a mutex
	// the simulated clock stands still. So it is short, and 0 where packs are many.
	fsync time.Duration
	// memtable is how much of the state is in memory only. Where messages are small it
	// is small too, so that it reaches the disk by itself now and then; large ones would
	// be written again and again.
	memtable int
	drift    map[string]float64
	serving  int // so many of the nodes, the last ones, have no vote
	steps    []step
	load     load
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
	p.fsync = []time.Duration{0, time.Millisecond, 2 * time.Millisecond}[r.IntN(3)]
	for _, n := range nodes() {
		p.drift[n] = (r.Float64() - 0.5) / 50
	}
	for range 3 + r.IntN(4) {
		f := drawFault(r)
		if os.Getenv("SIM_FAULTS") == "stale" {
			f = staleLeader(r)
		}
		f.after = time.Duration(50+r.IntN(700)) * time.Millisecond
		p.steps = append(p.steps, f)
	}
	p.load = drawLoad(r)
	p.memtable = 64 << 10
	if slices.ContainsFunc(p.load.publishers, func(c history.PublisherConfig) bool { return c.Size > 1000 }) {
		p.fsync, p.memtable = 0, 4<<20
	}
	if r.IntN(3) == 0 {
		p.serving = 2
	}
	return p
}

// votes tells whether the i-th of the nodes votes.
func (p *plan) votes(i int) bool { return i < len(nodes())-p.serving }

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d nodes without a vote, garbage collection %v, snapshots %v, fsync %v\n%s", p.seed, p.serving, !p.keepDead, p.snapshots, p.fsync, p.load)
	for _, s := range p.steps {
		fmt.Fprintf(&b, "  after %v: %s\n", s.after, s.text)
	}
	return b.String()
}

// drainGrace is how long wills and sessions of clients wait that a node sent away.
const drainGrace = 2 * time.Second

func (p *plan) broker() broker.Config {
	return broker.Config{
		UnservedTimeout: 2 * time.Second, ConnectTimeout: 2 * time.Second, DrainGrace: uint32(drainGrace / time.Second), ProgressInterval: p.load.progress,
		MaxInflight: p.load.inflight,
	}
}
