package node

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Memory is short when what is in use, garbage not counted, is above one share of
// the limit, and until it is below the other. What lies between the mark and the
// limit is for the sessions that are there, and for garbage between two
// collections.
const (
	shortAbove  = 0.8
	enoughBelow = 0.75
	memoryCheck = 200 * time.Millisecond
	// recheck is how often garbage is collected while memory is short: a node that
	// turns clients away may be too quiet to find out that it need not any more.
	recheck = 5 * time.Second
)

// Between two collections as much garbage may gather as suits what is in use: a small
// node would collect all the time, a large one would hold twice of what it needs. Each
// collection takes all cores that are free, and what waits behind it is late: with 64 MiB
// three nodes of 5,000 clients on two cores had p99 at 38 ms, with 192 MiB at 27. A heap
// that grows past roomyHeap with its garbage gets less: what it took at its largest is
// given back slowly.
const (
	someGarbage  = 192 << 20
	roomyHeap    = 352 << 20
	garbageShare = 8 // of the limit, for small machines
	leastPercent = 50
	mostPercent  = 400
)

// garbagePercent is GOGC where live bytes of limit are in use.
func garbagePercent(live, limit uint64) int {
	some := min(someGarbage, limit/garbageShare, roomyHeap-min(live, roomyHeap))
	return int(min(max(some*100/max(live, 1), leastPercent), mostPercent))
}

// memory watches what this process uses of its limit.
type memory struct {
	limit   uint64
	percent int // GOGC as it was set last; 0: it is the operator's
	short   atomic.Bool
	used    atomic.Uint64
	log     *slog.Logger
	samples []metrics.Sample // of sample alone
}

// openMemory sets the runtime's memory limit, 0 for the share of what there is
// that an operator has not to think about. It is soft: near it the collector
// works harder, and new clients are refused.
func openMemory(limit uint64, log *slog.Logger, reg prometheus.Registerer) (*memory, error) {
	m := &memory{limit: limit, log: log}
	if m.limit == 0 {
		if set := debug.SetMemoryLimit(-1); set != math.MaxInt64 {
			m.limit = uint64(set) // GOMEMLIMIT
		} else {
			m.limit = available() / 4 * 3
		}
	}
	if m.limit == 0 {
		m.limit = math.MaxInt64
	}
	debug.SetMemoryLimit(int64(min(m.limit, math.MaxInt64)))
	if os.Getenv("GOGC") == "" {
		m.percent = garbagePercent(0, m.limit)
		debug.SetGCPercent(m.percent)
	}
	for _, name := range inUse() {
		m.samples = append(m.samples, metrics.Sample{Name: name})
	}
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"mqcluster_node_memory_limit_bytes", "limits.memory, or what stands for it.", func() float64 { return float64(m.limit) }},
		{"mqcluster_node_memory_used_bytes", "Memory in use at the newest collection, without garbage.", func() float64 { return float64(m.used.Load()) }},
	} {
		if err := reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.value)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// openMemory comes before the log is read: that makes much garbage of little that is
// in use.
func (n *Node) openMemory(context.Context) (err error) {
	if n.heap, err = openMemory(uint64(n.cfg.Limits.Memory), n.log, n.reg); err == nil {
		n.wg.Go(func() { n.heap.watch(n.ctx) })
	}
	return err
}

// inUse are the runtime's figures that add up to what garbage is not a part of.
func inUse() []string {
	return []string{
		"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes",
		"/memory/classes/metadata/mspan/inuse:bytes", "/memory/classes/metadata/other:bytes", "/memory/classes/other:bytes",
	}
}

func (m *memory) watch(ctx context.Context) {
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	collected := time.Now()
	for {
		if m.sample(); m.short.Load() && time.Since(collected) > recheck {
			runtime.GC()
			collected = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *memory) sample() {
	metrics.Read(m.samples)
	var used uint64
	for _, s := range m.samples {
		if s.Value.Kind() == metrics.KindUint64 {
			used += s.Value.Uint64()
		}
	}
	m.judge(used)
	m.pace(used)
}

// pace sets how much garbage may gather. It stops the world for a moment, so that small
// changes are not worth it.
func (m *memory) pace(used uint64) {
	want := garbagePercent(used, m.limit)
	small := want*5 <= m.percent*6 && want*6 >= m.percent*5 && want != leastPercent && want != mostPercent
	if m.percent == 0 || want == m.percent || small {
		return
	}
	m.percent = want
	debug.SetGCPercent(want)
}

// judge says once that memory became short, and once that it no longer is.
func (m *memory) judge(used uint64) {
	m.used.Store(used)
	share := float64(used) / float64(m.limit)
	switch short := m.short.Load(); {
	case !short && share > shortAbove:
		m.short.Store(true)
		m.log.Warn("memory is short, new clients are refused: raise limits.memory, or let other nodes take clients",
			"used", used, "limit", m.limit)
	case short && share < enoughBelow:
		m.short.Store(false)
		m.log.Info("memory is no longer short, clients are accepted again", "used", used, "limit", m.limit)
	}
}

// available is the memory that this process may use: the container's limit, or
// the machine's memory; 0 if neither can be read.
func available() uint64 {
	most := uint64(math.MaxUint64)
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // another version of cgroups, or none
		}
		if v, err := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 64); err == nil {
			most = min(most, v)
		}
	}
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		data = nil // not Linux
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				most = min(most, kib<<10)
			}
		}
	}
	if most >= 1<<62 { // "no limit" of the older cgroups is a number, too
		return 0
	}
	return most
}
