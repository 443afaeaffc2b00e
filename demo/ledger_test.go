package demo

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLedgerAddsUp(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	acked := func(n uint64, ms int) func(*ledger) {
		return func(l *ledger) { l.acknowledged("p", n, at(ms)) }
	}
	arrived := func(n uint64, ms int) func(*ledger) {
		return func(l *ledger) { l.arrived("p", n, at(ms)) }
	}
	writeOff := func(ms int) func(*ledger) {
		return func(l *ledger) { l.writeOff(at(ms)) }
	}
	tests := map[string]struct {
		events []func(*ledger)
		want   tally
	}{
		"nothing": {nil, tally{}},
		"acknowledged, then here": {
			[]func(*ledger){acked(1, 0), arrived(1, 1), acked(2, 2), arrived(2, 3)},
			tally{acked: 2, delivered: 2, gap: 2 * time.Millisecond}},
		"here, then acknowledged": {
			[]func(*ledger){arrived(1, 0), acked(1, 1)},
			tally{acked: 1, delivered: 1}},
		"here and never acknowledged": {
			[]func(*ledger){arrived(1, 0)},
			tally{delivered: 1}},
		"under way": {
			[]func(*ledger){acked(1, 0)},
			tally{acked: 1, owed: 1}},
		"twice in a row": {
			[]func(*ledger){acked(1, 0), arrived(1, 0), arrived(1, 0)},
			tally{acked: 1, delivered: 1, duplicates: 1}},
		"twice above a hole": {
			[]func(*ledger){acked(1, 0), acked(2, 0), arrived(2, 0), arrived(2, 0)},
			tally{acked: 2, delivered: 1, duplicates: 1, owed: 1}},
		"a repeated tail is no disorder": {
			[]func(*ledger){arrived(1, 0), arrived(2, 0), arrived(3, 0), arrived(2, 0), arrived(3, 0), arrived(4, 0)},
			tally{delivered: 4, duplicates: 2}},
		"out of order": {
			[]func(*ledger){arrived(1, 0), arrived(3, 0), arrived(2, 0)},
			tally{delivered: 3, disordered: 1}},
		"lost": {
			[]func(*ledger){acked(1, 0), acked(2, 5), writeOff(3)},
			tally{acked: 2, owed: 1, lost: 1}},
		"lost between two that are here": {
			[]func(*ledger){arrived(1, 0), acked(2, 0), arrived(3, 0), writeOff(1), arrived(3, 0)},
			tally{acked: 1, delivered: 2, duplicates: 1, lost: 1}},
		"lost and found": {
			[]func(*ledger){acked(1, 0), arrived(2, 0), writeOff(1), arrived(1, 9), arrived(1, 9)},
			tally{acked: 1, delivered: 2, duplicates: 1, disordered: 1, gap: 9 * time.Millisecond}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			for _, e := range test.events {
				e(l)
			}
			l.rest()
			if diff := cmp.Diff(test.want, l.sum(start), cmp.AllowUnexported(tally{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLedgerKeepsPublishersApart(t *testing.T) {
	l, now := newLedger(), time.Now()
	l.acknowledged("a", 1, now)
	l.acknowledged("b", 1, now)
	l.arrived("a", 1, now)
	if got := l.owedBefore(now.Add(1)); got != 1 {
		t.Errorf("%d messages are owed, not 1", got)
	}
	if got := l.owedBefore(now); got != 0 {
		t.Errorf("%d messages were owed before, not 0", got)
	}
}

func TestLedgerCountsASilenceThatLasts(t *testing.T) {
	l, now := newLedger(), time.Now()
	l.arrived("a", 1, now)
	if got := l.sum(now.Add(time.Second)).gap; got != time.Second {
		t.Errorf("the gap is %v, not the second that has passed", got)
	}
	l.rest()
	l.arrived("a", 2, now.Add(time.Minute))
	if got := l.sum(now.Add(time.Minute)).gap; got != 0 {
		t.Errorf("the gap is %v although silence did not count", got)
	}
}

// TestLedgerMemoryIsBounded: what has arrived in order leaves nothing behind.
func TestLedgerMemoryIsBounded(t *testing.T) {
	l, now := newLedger(), time.Now()
	for n := uint64(1); n <= 1000; n++ {
		l.acknowledged("a", n, now)
		if n%10 != 0 {
			l.arrived("a", n, now)
		}
	}
	l.writeOff(now.Add(1))
	s := l.streams["a"]
	if len(s.here) != 0 || len(s.owed) != 0 || len(s.lost) != 100 || s.floor != 1000 {
		t.Errorf("here %d, owed %d, lost %d, floor %d", len(s.here), len(s.owed), len(s.lost), s.floor)
	}
}
