package forward

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a sender and a receiver whose log has been applied up to applied.
func pair(t *testing.T, cfg Config, f func(t *testing.T, a, b *end, applied *atomic.Uint64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var applied atomic.Uint64
		w := newWires()
		cfg.Node = "a"
		a := w.node(t, cfg, nil)
		cfg.Node = "b"
		b := w.node(t, cfg, applied.Load)
		a.SetPeers([]string{"b"})
		b.SetPeers([]string{"a"})
		synctest.Wait()
		b.Add("#")
		synctest.Wait()
		f(t, a, b, &applied)
		w.shut(t)
	})
}

func TestHoldUntilApplied(t *testing.T) {
	pair(t, Config{}, func(t *testing.T, a, b *end, applied *atomic.Uint64) {
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := b.payloads(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		applied.Store(4)
		a.send(messages("t", "waits", 1, 3), 5, 0)
		a.send(messages("t", "waits", 3, 4), 0, 0) // behind its publisher's others
		a.send(messages("t", "longer", 4, 5), 7, 0)
		a.send(messages("t", "other", 5, 6), 4, 0)
		expect("5")
		b.Advance(4)
		expect("")
		applied.Store(6)
		b.Advance(6)
		expect("1 2 3")
		a.send(messages("t", "waits", 6, 7), 5, 0)
		expect("6")
		applied.Store(7)
		b.Advance(7)
		expect("4")
		if n := b.held.Load(); n != 0 {
			t.Errorf("%d are held", n)
		}
	})
}

func TestHoldIsBoundedInTime(t *testing.T) {
	pair(t, Config{}, func(t *testing.T, a, b *end, _ *atomic.Uint64) {
		a.send(messages("t", "p", 0, 2), 9, 0)
		time.Sleep(2 * time.Second)
		a.send(messages("t", "p", 2, 3), 9, 0)
		time.Sleep(2999 * time.Millisecond)
		if got := b.payloads(); got != "" {
			t.Errorf("too early: %q", got)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := b.payloads(); got != "0 1" {
			t.Errorf("after 5 s: %q", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := b.payloads(); got != "2" {
			t.Errorf("after 7 s: %q", got)
		}
		if n := value(t, b.metrics.holdExpired); n != 3 {
			t.Errorf("%v counted", n)
		}
	})
}

func TestHoldIsBoundedInNumber(t *testing.T) {
	pair(t, Config{HoldMessages: 3}, func(t *testing.T, a, b *end, _ *atomic.Uint64) {
		a.send(messages("t", "p", 0, 3), 9, 0)
		synctest.Wait()
		if got := b.payloads(); got != "" {
			t.Errorf("got %q", got)
		}
		a.send(messages("t", "p", 3, 5), 9, 0)
		synctest.Wait()
		if got := b.payloads(); got != "0 1 2 3 4" {
			t.Errorf("got %q", got)
		}
	})
}

func TestHoldSeesWhatWasAppliedWhileItWasFilled(t *testing.T) {
	pair(t, Config{}, func(t *testing.T, a, b *end, applied *atomic.Uint64) {
		a.send(messages("t", "p", 0, 1), 3, 0)
		synctest.Wait()
		// The node applied without a word; the next message tells.
		applied.Store(3)
		a.send(messages("t", "q", 1, 2), 0, 0)
		synctest.Wait()
		if got := b.payloads(); got != "1 0" {
			t.Errorf("got %q", got)
		}
	})
}

// A peer learns what the sender had applied, unless there are peers that would not
// understand it.
func TestMessagesSayWhatWasApplied(t *testing.T) {
	for _, later := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWires()
			defer w.shut(t)
			a := w.node(t, Config{Node: "a"}, nil)
			a.deps.Later = func() bool { return later }
			b := w.node(t, Config{Node: "b"}, nil)
			a.SetPeers([]string{"a", "b"})
			b.SetPeers([]string{"a", "b"})
			synctest.Wait()
			b.Add("t")
			synctest.Wait()
			a.send(messages("t", "p", 0, 2), 3, 300)
			synctest.Wait()
			want := uint64(300)
			if !later {
				want = ^uint64(0)
			}
			got := b.deliveries()
			if len(got) != 2 {
				t.Fatalf("%d messages came", len(got))
			}
			for _, d := range got {
				if d.Index != 3 || d.AsOf != want {
					t.Errorf("index %d, as of %d, want 3 and %d", d.Index, d.AsOf, want)
				}
			}
		})
	}
}
