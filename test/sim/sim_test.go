package sim

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mqcluster/mqcluster/test/history"
)

func TestMain(m *testing.M) {
	// The nodes make much garbage, and keep little: it is collected when there is
	// much of it in all.
	debug.SetGCPercent(2000)
	debug.SetMemoryLimit(3 << 30)
	goleak.VerifyTestMain(m)
}

// stuckAfter is how long, of real time, a schedule may take.
const stuckAfter = 2 * time.Minute

// outcome is what a schedule came to, or several together.
type outcome struct {
	acked, delivered, connections int
	faults, entries, leaders      int
	sent                          int64         // writes to the network
	took                          time.Duration // simulated
}

func (o *outcome) add(p outcome) {
	o.acked, o.delivered, o.connections = o.acked+p.acked, o.delivered+p.delivered, o.connections+p.connections
	o.faults, o.entries, o.leaders = o.faults+p.faults, o.entries+p.entries, o.leaders+p.leaders
	o.sent, o.took = o.sent+p.sent, o.took+p.took
}

func (o outcome) String() string {
	return fmt.Sprintf("%d faults, %d terms, %d connections, %d messages acknowledged, %d delivered, %d entries, %d writes to the network in %v of theirs",
		o.faults, o.leaders, o.connections, o.acked, o.delivered, o.entries, o.sent, o.took.Round(time.Millisecond))
}

// TestSchedules plays schedules and judges each.
func TestSchedules(t *testing.T) {
	first, count := seeds(t)
	start := time.Now()
	var mu sync.Mutex
	var all outcome
	// The group ends when all that run in parallel have.
	t.Run("seed", func(t *testing.T) {
		for i := range count {
			seed := first + uint64(i)
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				o := play(t, newPlan(seed))
				t.Logf("%v, %v", time.Since(began).Round(time.Millisecond), o)
				mu.Lock()
				defer mu.Unlock()
				all.add(o)
			})
		}
	})
	took := time.Since(start)
	t.Logf("%d schedules from seed %d in %v, %.0f a minute: %v", count, first, took.Round(time.Millisecond), float64(count)/took.Minutes(), all)
}

// seeds says which schedules to play: SIM_SEED the first one, SIM_SCHEDULES how
// many.
func seeds(t *testing.T) (first uint64, count int) {
	first, count = uint64(time.Now().UnixNano()), 10
	if testing.Short() {
		count = 2
	}
	var err error
	if v := os.Getenv("SIM_SCHEDULES"); v != "" {
		if count, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("SIM_SEED"); v != "" {
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
		if os.Getenv("SIM_SCHEDULES") == "" {
			count = 1
		}
	}
	return first, count
}

// play plays one schedule in a bubble of its own.
func play(t *testing.T, p *plan) (o outcome) {
	var c *cluster
	// The simulated clock stands still while anything spins, or waits for a mutex.
	stuck := time.AfterFunc(stuckAfter, func() { panic(fmt.Sprintf("the simulated clock stands still: %s", p)) })
	defer stuck.Stop()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if c, err = newCluster(p); err != nil {
			t.Fatal(err)
		}
		c.run()
		c.ended = c.since()
		o.took = c.ended
	})
	report := c.judge()
	o.acked, o.delivered, o.connections = report.Stats.Acked, report.Stats.Delivered, report.Stats.Connections
	o.faults, o.sent = len(p.steps), c.net.sent.Load()
	o.entries, o.leaders = c.trace.extent()
	if err := c.verdict(); err != nil {
		t.Errorf("%v\nthe plan was: %swhat happened:\n  %s\n%s", err, p, strings.Join(c.notes, "\n  "), c.trace.show())
	}
	return o
}

// run lets the plan happen and brings everything to rest.
func (c *cluster) run() {
	if err := await(patience, c.ready); err != nil {
		c.fail("a new cluster does not come up: %v", err)
	} else if w, err := c.gather(); err != nil {
		c.fail("the clients do not come in: %v", err)
	} else {
		for _, s := range c.plan.steps {
			time.Sleep(s.after)
			s.do(c)
		}
		c.tasks.Wait()
		c.net.heal()
		c.note("everything is whole again")
		for _, n := range nodes() {
			c.bring(n)
		}
		if err := await(patience, c.leased); err != nil {
			c.fail("the cluster does not heal: %v", err)
		}
		time.Sleep(500 * time.Millisecond) // under load
		if err := w.finish(); err != nil {
			c.fail("%v", err)
		}
		if err := await(patience, c.ready); err != nil {
			c.fail("the nodes do not come to rest: %v", err)
		}
	}
	c.tasks.Wait()
	for _, n := range nodes() {
		c.stop(n)
	}
	c.reaper.Wait()
}

// judge looks at what the nodes have and what the clients saw.
func (c *cluster) judge() *history.Report {
	for _, n := range nodes() {
		if d := c.disks[n]; d != nil {
			im, err := imageOf(d, n+", at the end,")
			if err == nil && im == nil {
				err = errors.New("there is none")
			}
			if err != nil {
				c.fail("the state of %s: %v", n, err)
				continue
			}
			c.images = append(c.images, im)
		}
	}
	if err := c.trace.judge(c.images, c.plan.keepDead); err != nil {
		c.fail("%v", err)
	}
	report := history.Check(c.rec.Events(), history.Options{MinAcked: 10, MinOwed: 10, FaultGrace: 3 * time.Second,
		WillLate: willLate, DrainGrace: drainGrace})
	if !report.OK() {
		c.fail("the clients complain: %s", report)
	}
	return report
}
