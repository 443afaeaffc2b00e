package consensus

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/fsm"
)

// bareProposer is a proposer without a sender: the test takes the packs.
func bareProposer(t *testing.T, adjust func(*Config)) *proposer {
	t.Helper()
	cfg := testConfig(t.TempDir(), "n")
	if adjust != nil {
		adjust(&cfg)
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	c := &Consensus{cfg: cfg}
	c.metrics = newMetrics(c)
	return newProposer(c)
}

// outcome is what dones were told, in their order.
type outcome []string

func (o *outcome) of(name string) func(fsm.Result) {
	return func(r fsm.Result) {
		switch {
		case r.Err == nil:
			name += " applied"
		case errors.Is(r.Err, fsm.ErrUnknown):
			name += " unknown"
		case errors.Is(r.Err, fsm.ErrNotProposed):
			name += " not proposed"
		}
		*o = append(*o, name)
	}
}

func numbers(p *proposer) []uint64 {
	var out []uint64
	for pk := p.take(); pk != nil; pk = p.take() {
		out = append(out, pk.number)
	}
	return out
}

func TestResendRules(t *testing.T) {
	p := bareProposer(t, func(cfg *Config) { cfg.Eager = 2 })
	var got outcome
	submit := func(name string) { p.submit(t.Context(), publish(name, 1), got.of(name)) }

	submit("a")
	if n := numbers(p); n != nil {
		t.Errorf("sent %v without an incarnation", n)
	}
	p.begin(7)
	submit("b") // joins a
	step := func(what string, want ...uint64) {
		t.Helper()
		if d := cmp.Diff(want, numbers(p)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	step("first", 1)
	submit("c")
	step("second at once", 2)
	submit("d")
	submit("e")
	step("a third that is not full waits")
	p.rewind()
	step("a new route gets everything under way", 1, 2)
	p.result(1, 0, fsm.Result{})
	step("half a pack frees nothing")
	p.result(1, 1, fsm.Result{})
	step("a pack that is done makes room", 3)
	p.gap(2)
	step("from the gap on", 2, 3)
	p.gap(2)
	step("the same gap again says nothing new")
	p.result(2, 0, fsm.Result{})
	p.restored()
	step("after a snapshot", 3)
	submit("f")
	step("new ones follow those without a result", 4)
	p.result(4, 0, fsm.Result{})
	if b := p.load(); b != (backlog{}) {
		t.Errorf("left: %+v", b)
	}
	submit("g")
	step("fifth", 5)
	submit("h")
	step("sixth", 6)
	submit("i")
	p.result(6, 0, fsm.Result{})
	p.end()
	p.begin(9)
	step("numbers begin again", 1)
	p.failAll()
	want := outcome{
		"a applied", "b applied", "c applied", "d unknown", "e unknown", "f applied",
		"g unknown", "h applied", "i unknown",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// What a snapshot has swallowed tells of no room any more: it must not keep back
// what comes after it, whose result is all that retires it.
func TestSwallowedPacksHoldNothingUp(t *testing.T) {
	for _, window := range []int{0, 2} {
		p := bareProposer(t, func(cfg *Config) { cfg.Window, cfg.Eager = window, 2 })
		var got outcome
		p.begin(1)
		for _, n := range []string{"a", "b", "c"} {
			p.submit(t.Context(), publish(n, 1), got.of(n))
			numbers(p)
		}
		p.restored()
		if d := cmp.Diff([]uint64{1, 2, 3}, numbers(p)); d != "" {
			t.Errorf("window %d: %s", window, d)
		}
		p.result(3, 0, fsm.Result{})
		if d := cmp.Diff(outcome{"a unknown", "b unknown", "c applied"}, got); d != "" {
			t.Errorf("window %d: %s", window, d)
		}
		if b := p.load(); b != (backlog{}) {
			t.Errorf("window %d: left: %+v", window, b)
		}
	}
}

func TestGapSkipsWhatWasApplied(t *testing.T) {
	p := bareProposer(t, nil)
	var got outcome
	p.begin(1)
	for _, n := range []string{"a", "b"} {
		p.submit(t.Context(), publish(n, 1), got.of(n))
		numbers(p)
	}
	p.gap(2)
	if d := cmp.Diff([]uint64{2}, numbers(p)); d != "" {
		t.Error(d)
	}
	p.result(2, 0, fsm.Result{})
	p.result(2, 0, fsm.Result{})
	p.result(1, 0, fsm.Result{})
	if d := cmp.Diff(outcome{"a unknown", "b applied"}, got); d != "" {
		t.Error(d)
	}
}

func TestGivesUpInOrder(t *testing.T) {
	p := bareProposer(t, nil)
	p.c.lessee = newLessee(p.c)
	p.c.now = boottime
	p.c.leaderCh = make(chan struct{})
	var got outcome
	now := time.Now()
	p.begin(1)
	p.submit(t.Context(), publish("sent", 1), got.of("sent"))
	numbers(p)
	p.submit(t.Context(), publish("queued", 1), got.of("queued"))
	p.check(now)
	p.check(now.Add(p.c.cfg.GiveUp))
	if len(got) > 0 {
		t.Errorf("%v before the sent item is known", got)
	}
	p.check(now.Add(3 * p.c.cfg.GiveUp))
	p.submit(t.Context(), publish("later", 1), got.of("later"))
	p.check(now.Add(4 * p.c.cfg.GiveUp))
	if d := cmp.Diff(outcome{"sent unknown", "queued not proposed", "later not proposed"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(backlog{InFlight: 1}, p.load()); d != "" {
		t.Errorf("the sent pack is to be sent again: %s", d)
	}
}

func TestSubmitBlocksWhileFull(t *testing.T) {
	p := bareProposer(t, func(cfg *Config) { cfg.QueueItems = 1 })
	var got outcome
	p.submit(t.Context(), publish("a", 1), got.of("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.submit(ctx, publish("b", 1), got.of("b"))

	blocked := make(chan fsm.Result, 1)
	go p.submit(context.Background(), publish("c", 1), func(r fsm.Result) { blocked <- r })
	go p.submit(context.Background(), publish("d", 1), func(r fsm.Result) { blocked <- r })
	p.shut()
	for range 2 {
		if r := <-blocked; !errors.Is(r.Err, fsm.ErrNotProposed) {
			t.Error(r.Err)
		}
	}
	p.failAll()
	if d := cmp.Diff(outcome{"b not proposed", "a not proposed"}, got); d != "" {
		t.Error(d)
	}
}
