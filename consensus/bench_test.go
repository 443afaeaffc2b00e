package consensus

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
)

// BenchmarkSubmit is items through three nodes in this process, each with its
// log synced to disk, submitted at one of them with so many in flight.
func BenchmarkSubmit(b *testing.B) {
	for _, bb := range []struct {
		name     string
		follower bool
		flight   int
	}{
		{"leader/1", false, 1},
		{"follower/1", true, 1},
		{"leader/100", false, 100},
		{"follower/100", true, 100},
		{"leader/4096", false, 4096},
		{"follower/4096", true, 4096},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := newCluster(b, 3, func(cfg *Config) {
				*cfg = Config{Dir: cfg.Dir, Node: cfg.Node, Store: cfg.Store, Address: cfg.Address}
				if v := os.Getenv("CONSENSUS_COMMIT"); v != "" {
					cfg.CommitTimeout, _ = time.ParseDuration(v)
				}
			})
			c.leased()
			n := c.leader()
			if bb.follower {
				n = c.followers()[0]
			}
			for _, n := range c.nodes {
				n.fsm.discard.Store(true)
			}
			item := publish("bench", 1)
			item.GetPublish().Payload = make([]byte, 256)
			slots := make(chan struct{}, bb.flight)
			var wg sync.WaitGroup
			var failed atomic.Int64
			for b.Loop() {
				slots <- struct{}{}
				wg.Add(1)
				n.Submit(item, func(r fsm.Result) {
					if r.Err != nil {
						failed.Add(1)
					}
					<-slots
					wg.Done()
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
			if failed.Load() > 0 {
				b.Errorf("%d failed", failed.Load())
			}
		})
	}
}

// BenchmarkIdle is the processor time that three idle nodes cost, per second: it
// is what a short CommitTimeout is paid with.
func BenchmarkIdle(b *testing.B) {
	for _, commit := range []time.Duration{50 * time.Millisecond, 10 * time.Millisecond, 4 * time.Millisecond, 2 * time.Millisecond} {
		b.Run(commit.String(), func(b *testing.B) {
			c := newCluster(b, 3, func(cfg *Config) {
				*cfg = Config{Dir: cfg.Dir, Node: cfg.Node, Store: cfg.Store, Address: cfg.Address, CommitTimeout: commit}
			})
			c.leased()
			runtime.GC()
			used, start := processTime(b), time.Now()
			for b.Loop() {
				<-time.After(100 * time.Millisecond)
			}
			b.ReportMetric(float64((processTime(b)-used).Milliseconds())/time.Since(start).Seconds(), "cpu-ms/s")
			f := c.followers()[0]
			var sum time.Duration
			const rounds = 50
			for i := range rounds {
				<-time.After(5 * time.Millisecond)
				at := time.Now()
				if _, err := f.Propose(b.Context(), publish("x", i)); err != nil {
					b.Fatal(err)
				}
				sum += time.Since(at)
			}
			b.ReportMetric(float64(sum.Microseconds())/rounds/1000, "ms/follower-ack")
		})
	}
}

func processTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
