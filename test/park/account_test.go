package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSeen(t *testing.T) {
	for _, tt := range []struct {
		name     string
		arrivals []uint32
		want     seen
	}{
		{name: "in order", arrivals: []uint32{1, 2, 3}, want: seen{Bits: []uint64{14}, Highest: 3}},
		{name: "a duplicate", arrivals: []uint32{1, 2, 1}, want: seen{Bits: []uint64{6}, Highest: 2, Duplicates: 1}},
		{name: "a hole that is filled late", arrivals: []uint32{1, 3, 2}, want: seen{Bits: []uint64{14}, Highest: 3, Disorder: 1}},
		{name: "a second word", arrivals: []uint32{64}, want: seen{Bits: []uint64{0, 1}, Highest: 64}},
		{name: "a number out of bounds", arrivals: []uint32{maxSeq}, want: seen{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got seen
			for _, seq := range tt.arrivals {
				got.arrive(seq)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// whole is the account of a run in which everybody got everything.
func whole(p *plan, acked uint32) *account {
	a := &account{Acked: map[stream]uint32{}}
	for n := range p.all() {
		for _, s := range p.publishes(n) {
			a.Acked[s] = acked
		}
		if len(p.filters(n)) == 0 {
			continue
		}
		r := received{Client: n, Streams: map[stream]*seen{}}
		for _, s := range p.owed(n) {
			r.Streams[s] = &seen{}
			for seq := uint32(1); seq <= acked; seq++ {
				r.Streams[s].arrive(seq)
			}
		}
		a.Received = append(a.Received, r)
	}
	return a
}

// find returns what a client received.
func (a *account) find(n int) *received {
	for i := range a.Received {
		if a.Received[i].Client == n {
			return &a.Received[i]
		}
	}
	return nil
}

// What is missing is found at those who are owed it, and at nobody else.
func TestJudge(t *testing.T) {
	p := testPlan(300)
	persistent, clean := p.number(dashboard, 0), p.number(dashboard, p.areas())
	for _, tt := range []struct {
		name   string
		change func(*account)
		lost   int
		other  func(judgement) bool
	}{
		{name: "nothing", change: func(*account) {}, other: func(j judgement) bool {
			return j.published == 3*(2*200+80) && j.persistent == 85 && j.unbroken == 15 && j.owed == 3*(2*200*watchers+80)
		}},
		{name: "a command", change: func(a *account) { a.find(p.number(device, 7)).Streams[commands(p.number(device, 7))] = &seen{} }, lost: 3},
		{name: "the last reading at a persistent session", change: func(a *account) { a.Acked[readings(0)] = 4 }, lost: watchers},
		{name: "a state at a broken persistent session", change: func(a *account) {
			r := a.find(persistent)
			r.Broken = true
			delete(r.Streams, states(0))
		}, lost: 3},
		{name: "a state at a broken clean session", change: func(a *account) {
			r := a.find(clean)
			r.Broken = true
			delete(r.Streams, states(0))
		}, other: func(j judgement) bool { return j.unbroken == 14 }},
		{name: "what was not acknowledged arrived", change: func(a *account) { a.Acked[readings(0)] = 0 }},
		{name: "disorder and strangers", change: func(a *account) {
			r := a.find(persistent)
			r.Misrouted = 2
			r.Streams[readings(0)].Disorder = 1
		}, other: func(j judgement) bool { return j.misrouted == 2 && j.disorder == 1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := whole(p, 3)
			tt.change(a)
			j := a.judge(p)
			if j.lost != tt.lost || len(j.examples) != min(tt.lost, maxExamples) {
				t.Errorf("%d lost, want %d: %v", j.lost, tt.lost, j.examples)
			}
			if tt.other != nil && !tt.other(j) {
				t.Errorf("%+v", j)
			}
		})
	}
}

// A message counts for every span in which it was under way.
func TestPick(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	ms := func(n uint32) uint32 { return 1000 * n }
	var s samples
	for _, m := range []struct {
		k    kind
		sent int64
		took time.Duration
	}{
		{delivered, 100, 5 * time.Millisecond}, {delivered, 190, 20 * time.Millisecond}, {delivered, 250, 7 * time.Millisecond},
		{delivered | inStorm, 260, 9 * time.Millisecond}, {delivered, 400, 3 * time.Millisecond}, {acknowledged, 250, time.Millisecond},
	} {
		s.add(m.k, at(m.sent).UnixNano(), m.took)
	}
	window := []span{{at(200), at(300)}}
	for _, tt := range []struct {
		name string
		got  []uint32
		want []uint32
	}{
		{"outside", s.pick(delivered, true, nil, window), []uint32{ms(3), ms(5)}},
		{"inside", s.pick(delivered, true, window, nil), []uint32{ms(7), ms(9), ms(20)}},
		{"inside, without the storm's", s.pick(delivered, false, window, nil), []uint32{ms(7), ms(20)}},
		{"another kind", s.pick(acknowledged, true, window, nil), []uint32{ms(1)}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	if got := quantile([]uint32{1, 2, 3, 4}, .5); got != 3*time.Microsecond {
		t.Errorf("the median is %v", got)
	}
}
