package sim

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"github.com/mqcluster/mqcluster/test/history"
)

// cluster is five nodes, of which some may be down.
type cluster struct {
	plan  *plan
	net   *network
	trace *trace
	rec   *history.Recorder
	began time.Time

	reaper sync.WaitGroup // of processes that were killed
	tasks  sync.WaitGroup // what comes later

	mu      sync.Mutex
	rng     *rand.Rand
	running map[string]*process // nil: down
	disks   map[string]*disk    // of nodes that are down
	images  []*image
	notes   []string
	faults  []string // what must not be
	ended   time.Duration
	count   int // of faults
}

// nodes are the names of the five.
func nodes() []string { return []string{"n1", "n2", "n3", "n4", "n5"} }

func storeOf(node string) string { return "store-" + node }

func newCluster(p *plan) (*cluster, error) {
	rec, err := history.Open("")
	if err != nil {
		return nil, err
	}
	c := &cluster{
		plan: p, net: newNetwork(p.seed), trace: newTrace(), rec: rec, began: time.Now(),
		rng: rand.New(rand.NewPCG(p.seed, 2)), running: map[string]*process{}, disks: map[string]*disk{},
	}
	logs, err := founding(p)
	if err != nil {
		return nil, err
	}
	for _, name := range nodes() {
		d := newDisk()
		if err := errors.Join(d.log.StoreLogs(logs), d.log.SetUint64([]byte("CurrentTerm"), 1)); err != nil {
			return nil, err
		}
		c.disks[name] = d
		c.bring(name)
	}
	return c, nil
}

// founding is the log of a cluster of five that was just made: raft's
// configuration, its first node, the other members and a policy.
func founding(p *plan) ([]*raft.Log, error) {
	var conf raft.Configuration
	for i, n := range nodes() {
		suffrage := raft.Voter
		if !p.votes(i) {
			suffrage = raft.Nonvoter
		}
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: suffrage,
			ID:       raft.ServerID(n + "/" + storeOf(n)), Address: raft.ServerAddress(n + "@" + n + ":7883"),
		})
	}
	logs := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)}}
	first := nodes()[0]
	items := []*logpb.Item{{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{
		Subject: "*", Rules: []*logpb.Rule{{Allow: true, Action: 3, Filter: "#"}},
	}}}}
	for i, n := range nodes() {
		items = append(items, &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{
			Node: n, Store: storeOf(n), Address: n + ":7883", Voter: p.votes(i),
		}}})
	}
	for i, e := range []*logpb.Entry{
		{Command: &logpb.Entry_NodeUp{NodeUp: &logpb.NodeUp{Node: first, Store: storeOf(first), Nonce: "founding", Level: fsm.Level}}},
		{Command: &logpb.Entry_Pack{Pack: &logpb.Pack{Node: first, Incarnation: uint64(session.At(2, 0)), Number: 1, Items: items}}},
	} {
		e.Stamp = time.Now().UnixMilli()
		data, err := proto.Marshal(e)
		if err != nil {
			return nil, err
		}
		logs = append(logs, &raft.Log{Index: uint64(i + 2), Term: 1, Type: raft.LogCommand, Data: data})
	}
	return logs, nil
}

// since is the time of the simulation, which stands still when it is over.
func (c *cluster) since() time.Duration {
	if c.ended != 0 {
		return c.ended
	}
	return time.Since(c.began).Round(time.Microsecond)
}

// fail notes what must not be.
func (c *cluster) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf("%9v %s", c.since(), fmt.Sprintf(format, args...)))
}

// note keeps what was done, for who reads a failure.
func (c *cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(format, args...)
}

func (c *cluster) noteLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.notes = append(c.notes, fmt.Sprintf("%9v %s", c.since(), text))
	c.rec.Mark(text)
}

// verdict is what was noted to be wrong, nil for nothing.
func (c *cluster) verdict() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(c.faults, "\n"))
}

// node returns the process of a node, nil while it is down.
func (c *cluster) node(name string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running[name]
}

// leader returns a node that leads, as it believes; "" if there is none.
func (c *cluster) leader() string {
	for _, name := range nodes() {
		if p := c.node(name); p != nil && p.consensus.IsLeader() {
			return name
		}
	}
	return ""
}

// elected tells why nobody leads, by what raft says.
func (c *cluster) elected() error {
	for _, name := range nodes() {
		p := c.node(name)
		if p == nil {
			continue
		}
		if p.consensus.Status().State == "Leader" {
			return nil
		}
	}
	return errors.New("nobody leads")
}

// bring starts a node that is down.
func (c *cluster) bring(name string) {
	c.mu.Lock()
	d := c.disks[name]
	delete(c.disks, name)
	c.mu.Unlock()
	if d == nil {
		return
	}
	if c.plan.fsync > 0 {
		d.log.sync = func() { time.Sleep(c.plan.fsync) }
	}
	p, err := c.start(name, d)
	if err != nil {
		c.fail("%v", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[name] = p
	c.noteLocked("%s starts at index %d", name, p.store.AppliedIndex())
	c.rec.Restart(name)
	// As a ping of its keep alive would, soon: a client that only listens would
	// wait for what its session, which has gone, is not owed.
	for _, e := range c.net.between(clientHost, name) {
		if e.orphaned() {
			e.reset()
		}
	}
}

// kill kills a node that runs and reports whether it did.
func (c *cluster) kill(name string, power bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.running[name]
	if p == nil {
		return false
	}
	delete(c.running, name)
	how := "is killed"
	if power {
		how = "loses its power"
	}
	c.noteLocked("%s %s at index %d", name, how, p.store.AppliedIndex())
	c.rec.Kill(name)
	d := p.kill(power, []int{0, 50, 100}[c.rng.IntN(3)], c.rng)
	c.disks[name] = d
	im, err := imageOf(d, fmt.Sprintf("%s, killed %v after the start,", name, time.Since(c.began)))
	if err != nil {
		c.faults = append(c.faults, fmt.Sprintf("the disk of %s after a crash: %v", name, err))
	}
	if im != nil {
		c.images = append(c.images, im)
	}
	return true
}

// stop stops a node in good order and reports whether it did.
func (c *cluster) stop(name string) bool {
	c.mu.Lock()
	p := c.running[name]
	delete(c.running, name)
	c.mu.Unlock()
	if p == nil {
		return false
	}
	c.note("%s is stopped", name)
	if c.net.whole(name) {
		// One that is cut off can tell nobody that it sends its clients away: their
		// wills may fire.
		c.rec.Drain(name)
	}
	if err := p.stop(); err != nil {
		c.fail("%s does not stop in good order: %v", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disks[name] = p.disk
	return true
}

// later does something after a while.
func (c *cluster) later(d time.Duration, f func()) {
	c.tasks.Go(func() {
		time.Sleep(d)
		f()
	})
}

// clock is the monotonic clock of a node: no two run equally fast, and each
// counts from a point of its own.
func (c *cluster) clock(name string) func() time.Duration {
	drift := c.plan.drift[name]
	return func() time.Duration {
		since := time.Since(c.began)
		return time.Hour + since + time.Duration(float64(since)*drift)
	}
}

func (c *cluster) logger(name string) *slog.Logger {
	if os.Getenv("SIM_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// leased tells why not every node runs and has a lease.
func (c *cluster) leased() error {
	for _, name := range nodes() {
		switch p := c.node(name); {
		case p == nil:
			return fmt.Errorf("%s is down", name)
		case !p.consensus.Leased() || p.consensus.Incarnation() == 0:
			return fmt.Errorf("%s has no lease", name)
		}
	}
	return nil
}

// ready is leased, and tells whether all have applied the same.
func (c *cluster) ready() error {
	if err := c.leased(); err != nil {
		return err
	}
	var index uint64
	for _, name := range nodes() {
		at := c.node(name).store.AppliedIndex()
		if index != 0 && at != index {
			return fmt.Errorf("%s is at index %d, another node at %d", name, at, index)
		}
		index = at
	}
	return nil
}

// await waits for a condition that has no reason any more.
func await(d time.Duration, is func() error) error {
	deadline := time.Now().Add(d)
	for {
		err := is()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// consensus is the configuration of every node's consensus.
func (p *plan) consensus(node string) consensus.Config {
	c := consensus.Config{
		Dir: "unused", Node: node, Store: storeOf(node), Address: node + ":7883", Level: fsm.Level,
		HeartbeatTimeout: 200 * time.Millisecond, LeaderLease: 200 * time.Millisecond, CommitTimeout: 2 * time.Millisecond,
		Lease: time.Second, GiveUp: 500 * time.Millisecond, Stall: 250 * time.Millisecond, Drain: 100 * time.Millisecond,
	}
	if p.snapshots {
		c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = 300*time.Millisecond, 20, 5
	}
	return c
}
