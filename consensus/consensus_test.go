package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

func TestOneNodeLeadsAtOnce(t *testing.T) {
	start := time.Now()
	c := newCluster(t, 1, func(cfg *Config) { cfg.HeartbeatTimeout = 5 * time.Second })
	n := c.nodes[0]
	r, err := n.Propose(t.Context(), publish("a", 1))
	if err != nil || r.Pos == 0 {
		t.Fatalf("Propose = %+v, %v", r, err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("a lone voter took %v to apply its first item", d)
	}
	if s := n.fsm.Stamp(); time.Since(time.UnixMilli(s)).Abs() > 5*time.Second {
		t.Errorf("first stamp is %v", time.UnixMilli(s))
	}
	eventually(t, "lease", n.Leased)
	n.halt(true)
	if err := Bootstrap(n.cfg, []Server{{Node: "n1", Store: "store-n1", Address: "a:1", Voter: true}}); !errors.Is(err, ErrBootstrapped) {
		t.Errorf("bootstrapped twice: %v", err)
	}
}

// workload submits through nodes from several goroutines until stopped and
// remembers what came of each item.
type workload struct {
	wg     sync.WaitGroup
	stop   chan struct{}
	mu     sync.Mutex
	acked  map[string][]string // by submitter, in order of done
	errs   map[error]int
	order  []string // violations
	total  atomic.Int64
	submit atomic.Int64
}

func startWorkload(nodes []*testNode, each int) *workload {
	w := &workload{stop: make(chan struct{}), acked: map[string][]string{}, errs: map[error]int{}}
	for _, n := range nodes {
		for i := range each {
			name := fmt.Sprintf("%s-%d", n.name, i)
			cons := n.Consensus
			w.wg.Go(func() { w.publish(cons, name) })
		}
	}
	return w
}

func (w *workload) publish(c *Consensus, name string) {
	var pending sync.WaitGroup
	defer pending.Wait()
	slots := make(chan struct{}, 50)
	last := 0
	refused := make(chan struct{}) // the node is closing: it fails new items at once
	var refuse sync.Once
	for i := 1; ; i++ {
		select {
		case <-w.stop:
			return
		case <-refused:
			return
		case slots <- struct{}{}:
		}
		pending.Add(1)
		w.submit.Add(1)
		var once atomic.Bool
		c.Submit(publish(name, i), func(r fsm.Result) {
			w.mu.Lock()
			if once.Swap(true) {
				w.order = append(w.order, fmt.Sprintf("%s %d: done twice", name, i))
			}
			if r.Err == fsm.ErrNotProposed {
				refuse.Do(func() { close(refused) })
			} else {
				if i != last+1 {
					w.order = append(w.order, fmt.Sprintf("%s: done %d after %d", name, i, last))
				}
				last = i
			}
			if r.Err == nil {
				w.acked[name] = append(w.acked[name], fmt.Sprintf("%s %06d", name, i))
				w.total.Add(1)
			} else {
				w.errs[r.Err]++
			}
			w.mu.Unlock()
			<-slots
			pending.Done()
		})
	}
}

func (w *workload) finish(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) > 0 {
		t.Errorf("%d order violations, first %v", len(w.order), w.order[0])
	}
	t.Logf("submitted %d, acknowledged %d, errors %v", w.submit.Load(), w.total.Load(), w.errs)
}

// judge checks that everything acknowledged is in items once, and in order.
func (w *workload) judge(t *testing.T, items []string) {
	t.Helper()
	for item, n := range counts(items) {
		if n != 1 {
			t.Fatalf("%q was applied %d times", item, n)
		}
	}
	by := map[string][]string{}
	for _, it := range items {
		name, _, _ := strings.Cut(it, " ")
		if s := by[name]; len(s) > 0 && s[len(s)-1] >= it {
			t.Fatalf("%q was applied after %q", it, s[len(s)-1])
		}
		by[name] = append(by[name], it)
	}
	there := counts(items)
	for name, acked := range w.acked {
		for _, it := range acked {
			if there[it] != 1 {
				t.Fatalf("%s: %q was acknowledged and is applied %d times", name, it, there[it])
			}
		}
	}
}

func sameState(c *cluster) {
	c.t.Helper()
	var ref *testNode
	for _, n := range c.nodes {
		if n.Consensus == nil {
			continue
		}
		if ref == nil {
			ref = n
			continue
		}
		// Index and items of one moment: entries may still come.
		var a, b moment
		eventually(c.t, "equal states", func() bool {
			a, b = ref.fsm.moment(), n.fsm.moment()
			return a.index == b.index
		})
		if d := cmp.Diff(a.items, b.items); d != "" {
			c.t.Fatalf("%s and %s differ at %d: %s", ref.name, n.name, a.index, d)
		}
	}
}

func TestSubmitThroughEveryNode(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	w := startWorkload(c.nodes, 4)
	eventually(t, "3000 acknowledged", func() bool { return w.total.Load() > 3000 })
	w.finish(t)
	sameState(c)
	w.judge(t, c.nodes[0].fsm.items())
	if w.total.Load() != w.submit.Load() {
		t.Errorf("acknowledged %d of %d", w.total.Load(), w.submit.Load())
	}
}

func TestLeaderDiesUnderLoad(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	leader := c.leader()
	w := startWorkload(c.nodes, 3)
	eventually(t, "1000 acknowledged", func() bool { return w.total.Load() > 1000 })
	start := time.Now()
	leader.halt(false)
	before := w.total.Load()
	eventually(t, "the survivors go on", func() bool { return w.total.Load() > before+1000 })
	t.Logf("1000 more acknowledged %v after the leader's death", time.Since(start))
	w.finish(t)
	sameState(c)
	w.judge(t, c.followers()[0].fsm.items())

	// The old leader comes back with its disk and without its state.
	inc := c.leader().fsm.incarnation(leader.name)
	c.restart(leader, false)
	eventually(t, "a new incarnation", func() bool {
		now := leader.fsm.incarnation(leader.name)
		return now != 0 && now != inc && leader.Leased()
	})
	sameState(c)
}

func TestStreamCutsDuplicateNothing(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	w := startWorkload(c.nodes, 2)
	f := c.followers()[0]
	for i := range int64(10) {
		eventually(t, "progress", func() bool { return w.total.Load() > 300*i })
		c.w.hiccup(f.name)
	}
	w.finish(t)
	sameState(c)
	w.judge(t, c.nodes[0].fsm.items())
	if len(w.errs) > 0 {
		t.Errorf("errors: %v", w.errs)
	}
}

func TestTransferUnderLoad(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	w := startWorkload(c.nodes, 2)
	for i := range int64(3) {
		eventually(t, "progress", func() bool { return w.total.Load() > 300*i })
		if err := c.leader().TransferLeadership(); err != nil {
			t.Log(err)
		}
	}
	before := w.total.Load()
	eventually(t, "progress", func() bool { return w.total.Load() > before+300 })
	w.finish(t)
	sameState(c)
	w.judge(t, c.nodes[0].fsm.items())
}

func TestIsolatedNodeLosesLeaseAndIncarnation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.leased()
	lost := c.followers()[0]
	inc := lost.Incarnation()
	c.w.isolate(lost.name, true)
	eventually(t, "no lease", func() bool { return !lost.Leased() })
	other := c.followers()[1]
	if other == lost {
		other = c.followers()[0]
	}
	if got := other.fsm.incarnation(lost.name); got != uint64(inc) {
		t.Errorf("the node was declared down while it may have held its lease")
	}
	eventually(t, "node down", func() bool { return other.fsm.incarnation(lost.name) == 0 })

	// What it has not sent ends, within a bound, and provably so.
	var err error
	_, err = lost.Propose(t.Context(), publish("x", 1))
	if !errors.Is(err, fsm.ErrNotProposed) {
		t.Errorf("Propose without a lease: %v", err)
	}
	c.w.isolate(lost.name, false)
	eventually(t, "a lease again", func() bool { return lost.Leased() && lost.Incarnation() != inc })
	if r, err := lost.Propose(t.Context(), publish("x", 2)); err != nil {
		t.Errorf("Propose = %+v, %v", r, err)
	}
	sameState(c)
}

func TestSentItemsEndUnknownWithTheIncarnation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) { cfg.GiveUp = time.Minute })
	c.leased()
	f := c.followers()[0]
	f.fsm.stall.Lock()
	ch := make(chan fsm.Result, 1)
	f.Submit(publish("x", 1), func(r fsm.Result) { ch <- r })
	eventually(t, "applied elsewhere", func() bool { return len(c.leader().fsm.items()) == 1 })
	select {
	case r := <-ch:
		t.Fatalf("acknowledged before the local apply: %+v", r)
	default:
	}
	f.fsm.stall.Unlock()
	if r := <-ch; r.Err != nil {
		t.Fatal(r.Err)
	}

	c.w.isolate(f.name, true)
	f.mustSend(t, publish("x", 2), ch)
	eventually(t, "node down", func() bool { return c.leader().fsm.incarnation(f.name) == 0 })
	c.w.isolate(f.name, false)
	if r := <-ch; !errors.Is(r.Err, fsm.ErrUnknown) {
		t.Errorf("after the incarnation ended: %v", r.Err)
	}
}

// mustSend submits an item of which the cut-off node believes that it was sent:
// it takes its number by hand.
func (n *testNode) mustSend(t *testing.T, item *logpb.Item, ch chan fsm.Result) {
	t.Helper()
	n.Submit(item, func(r fsm.Result) { ch <- r })
	eventually(t, "sent", func() bool {
		n.proposer.take()
		return n.proposer.load().InFlight == 1
	})
}

func TestWaitApplied(t *testing.T) {
	t.Parallel()
	// Neither an election nor a lease that runs out on a busy machine is what this
	// test is about.
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.HeartbeatTimeout, cfg.LeaderLease, cfg.Lease = time.Second, time.Second, 30*time.Second
	})
	c.leased()
	leader, f := c.leader(), c.followers()[0]
	if _, err := f.WaitApplied(t.Context(), 1); !errors.Is(err, ErrNotLeader) {
		t.Errorf("on a follower: %v", err)
	}
	quickest := time.Hour // of five, because a busy machine is slow now and then
	for i := range 5 {
		r, err := leader.Propose(t.Context(), publish("x", i))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if missing, err := leader.WaitApplied(t.Context(), r.Pos.Index()); err != nil {
			t.Fatal(missing, err)
		}
		quickest = min(quickest, time.Since(start))
	}
	if quickest > time.Second/2 {
		t.Errorf("took at least %v", quickest)
	}
	f.fsm.stall.Lock()
	r, err := leader.Propose(t.Context(), publish("x", 5))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	type answer struct {
		missing []string
		err     error
	}
	done := make(chan answer)
	go func() {
		missing, err := leader.WaitApplied(ctx, r.Pos.Index())
		done <- answer{missing, err}
	}()
	eventually(t, "only one node has not applied", func() bool {
		return cmp.Equal([]string{f.name}, leader.granter.behind(r.Pos.Index()))
	})
	select {
	case a := <-done:
		t.Errorf("a node has not applied, and WaitApplied returned %v, %v", a.missing, a.err)
	default:
		cancel()
		if a := <-done; !cmp.Equal([]string{f.name}, a.missing) || !errors.Is(a.err, context.Canceled) {
			t.Errorf("missing: %v, %v", a.missing, a.err)
		}
	}
	cancel()
	f.fsm.stall.Unlock()
	if missing, err := leader.WaitApplied(t.Context(), r.Pos.Index()); err != nil {
		t.Error(missing, err)
	}
}

func TestSecretsReachEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.leased()
	leader := c.leader()
	if err := c.followers()[0].SetSecrets([]byte("x")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("on a follower: %v", err)
	}
	for _, s := range []string{"one", "two"} {
		if err := leader.SetSecrets([]byte(s)); err != nil {
			t.Fatal(err)
		}
		for _, f := range c.followers() {
			eventually(t, s, func() bool { p := f.secrets.Load(); return p != nil && *p == s })
		}
	}
	leader.halt(false)
	if got := string(c.leader().Secrets()); got != "two" {
		t.Errorf("the next leader holds %q", got)
	}
}

func TestTickWhenDue(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	n := c.nodes[0]
	eventually(t, "lease", n.Leased)
	n.due.Store(time.Now().Add(300 * time.Millisecond).UnixMilli())
	eventually(t, "tick", func() bool { return n.fsm.ticks() > 0 })
	if now, due := n.fsm.Stamp(), n.due.Load(); now < due {
		t.Errorf("tick at %d before %d", now, due)
	}
}

func TestMembership(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	c.leased()
	first := c.nodes[0]
	second := &testNode{name: "n2", dir: t.TempDir(), w: c.w}
	second.cfg = testConfig(second.dir, "n2")
	c.nodes = append(c.nodes, second)
	c.start(second)
	if err := second.Remove("n1", "store-n1"); !errors.Is(err, ErrNotLeader) {
		t.Errorf("on a non-leader: %v", err)
	}
	if err := first.AddNonvoter("n2", second.cfg.Store, second.cfg.Address); err != nil {
		t.Fatal(err)
	}
	c.leased()
	if err := first.Promote("n2", second.cfg.Store, second.cfg.Address); err != nil {
		t.Fatal(err)
	}
	want := []Server{
		{Node: "n1", Store: "store-n1", Address: "n1.test:7883", Voter: true},
		{Node: "n2", Store: "store-n2", Address: "n2.test:7883", Voter: true},
	}
	eventually(t, "both know both", func() bool { return cmp.Equal(want, first.Servers()) && cmp.Equal(want, second.Servers()) })
	if err := first.TransferLeadership(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second leads", second.IsLeader)
	if err := second.Remove("n1", "store-n1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removed one gets no lease", func() bool { return !first.Leased() })
	if _, err := second.Propose(t.Context(), publish("x", 1)); err != nil {
		t.Error(err)
	}
}

func TestSnapshotRestoredWhereStateIsOlder(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.TrailingLogs = 1 })
	n := c.nodes[0]
	for i := range 20 {
		if _, err := n.Propose(t.Context(), publish("x", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Propose(t.Context(), publish("x", 20)); err != nil {
		t.Fatal(err)
	}
	n.halt(true)
	c.restart(n, false)
	eventually(t, "everything back", func() bool { return len(n.fsm.items()) == 21 })
	if _, err := n.Propose(t.Context(), publish("x", 21)); err != nil {
		t.Fatal(err)
	}
	if got := len(n.fsm.items()); got != 22 {
		t.Errorf("%d items", got)
	}
}

func TestFollowerCatchesUpBySnapshotWhileProposing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) { cfg.TrailingLogs = 1; cfg.GiveUp = time.Minute; cfg.Lease = 20 * time.Second })
	c.leased()
	f := c.followers()[0]
	inc := f.Incarnation()
	c.w.isolate(f.name, true)
	ch := make(chan fsm.Result, 2)
	f.mustSend(t, publish("f", 1), ch)
	leader := c.leader()
	for i := range 10 {
		if _, err := leader.Propose(t.Context(), publish("l", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		if n != f {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.w.isolate(f.name, false)
	if r := <-ch; !errors.Is(r.Err, fsm.ErrUnknown) {
		t.Errorf("across a snapshot: %+v", r)
	}
	if f.Incarnation() != inc {
		t.Error("the incarnation did not survive")
	}
	f.Submit(publish("f", 2), func(r fsm.Result) { ch <- r })
	if r := <-ch; r.Err != nil {
		t.Errorf("after the snapshot: %v", r.Err)
	}
	sameState(c)
	got := counts(f.fsm.items())
	if got["f 000001"] != 1 || got["f 000002"] != 1 {
		t.Errorf("applied: %v", got)
	}
	// The log of before the snapshot is gone, so that none is missing in its middle.
	f.halt(false)
	c.restart(f, true)
	eventually(t, "the follower is back", func() bool { return f.Leased() })
}

func TestStoreFailureIsFatal(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.leased()
	n := c.nodes[0]
	boom := errors.New("boom")
	err := n.store.write("append", func() error { return boom })
	if !errors.Is(err, boom) || n.fatal.Load() == nil || !errors.Is(*n.fatal.Load(), boom) {
		t.Errorf("err %v, fatal %v", err, n.fatal.Load())
	}
	if err := n.store.StoreLogs(nil); !errors.Is(err, boom) {
		t.Errorf("a write after the failure: %v", err)
	}
}

func TestStoreDeadlineIsFatal(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(cfg *Config) { cfg.StoreDeadline = 300 * time.Millisecond })
	c.leased()
	n := c.nodes[0]
	err := n.store.write("append", func() error {
		eventually(t, "fatal", func() bool { return n.fatal.Load() != nil })
		return nil
	})
	if err == nil {
		t.Error("a write over its deadline succeeded")
	}
}

func TestCloseEndsEverythingOnce(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	w := startWorkload(c.nodes, 2)
	eventually(t, "progress", func() bool { return w.total.Load() > 300 })
	leader := c.leader()
	done := leader.Consensus
	leader.halt(true)
	if err := done.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	ch := make(chan fsm.Result, 1)
	done.Submit(publish("late", 1), func(r fsm.Result) { ch <- r })
	if r := <-ch; !errors.Is(r.Err, fsm.ErrNotProposed) {
		t.Errorf("Submit after Close: %v", r.Err)
	}
	before := w.total.Load()
	eventually(t, "the others go on", func() bool { return w.total.Load() > before+100 })
	w.finish(t)
	sameState(c)
	w.judge(t, c.followers()[0].fsm.items())
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(t.Context(), Config{}, Deps{}); err == nil {
		t.Error("opened without a directory")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/raft.db", []byte("not a database, but long enough to look like one perhaps"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFakeFSM("n")
	_, err := Open(t.Context(), testConfig(dir, "n"), Deps{FSM: f, State: f, Network: dialer{newWire(), "n"}, Fatal: func(error) {}})
	if err == nil {
		t.Error("opened a broken database")
	}
}

// A leader whose handing over waits for an answer of a peer that is gone, and who
// leads again meanwhile, takes up its office when raft lets it.
func TestElectedWhileHandingOver(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.leased()
	leader, other, gone := c.leader(), c.followers()[0], c.followers()[1]
	leader.ack(t, "before", 0)
	eventually(t, "all have everything", func() bool {
		return gone.raft.LastIndex() == leader.raft.LastIndex() && other.raft.LastIndex() == leader.raft.LastIndex()
	})
	hears := make(chan struct{})
	hear := sync.OnceFunc(func() { close(hears) })
	defer hear()
	gone.deaf.Store(&hears)
	term := leader.raft.CurrentTerm()
	id := func(n *testNode) raft.ServerID { return serverID(n.name, n.cfg.Store) }
	if err := leader.raft.LeadershipTransferToServer(id(gone), gone.layer.self).Error(); err == nil {
		t.Fatal("the transfer to a node that hears nothing succeeded")
	}
	if err := elect(other.trans, id(other), other.layer.self); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another leads", func() bool { return other.raft.State() == raft.Leader })
	_ = other.raft.LeadershipTransferToServer(id(leader), leader.layer.self).Error()
	eventually(t, "the first leads again", func() bool { return leader.raft.State() == raft.Leader && leader.raft.CurrentTerm() > term })
	if err := leader.raft.Barrier(0).Error(); !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		t.Fatalf("raft has forgotten the transfer: %v", err)
	}
	c.w.hiccup(gone.name)
	gone.deaf.Store(nil)
	hear()
	eventually(t, "somebody leads, and says so", func() bool { return leader.IsLeader() || other.IsLeader() || gone.IsLeader() })
	c.leased()
	leader.ack(t, "after", 0)
}
