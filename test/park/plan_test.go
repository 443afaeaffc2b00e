package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testPlan(clients int) *plan {
	return &plan{Clients: clients, Workers: 4, ReadingEvery: time.Second, StateEvery: 2 * time.Second,
		CommandEvery: 3 * time.Second, Secret: []byte("secret")}
}

// The park of the bars has the clients that they name.
func TestPlanOfTheBars(t *testing.T) {
	p := testPlan(15000)
	got := []int{p.sensors(), p.devices(), p.dashboards(), p.areas(), p.stormers()}
	if diff := cmp.Diff([]int{10000, 4000, 1000, 250, 5000}, got); diff != "" {
		t.Error(diff)
	}
}

// Every stream has one publisher and somebody who is owed it with a persistent
// session; what is subscribed to is what is owed; names and places agree.
func TestPlanIsWhole(t *testing.T) {
	for _, clients := range []int{60, 61, 300, 601, 15000} {
		p := testPlan(clients)
		publishers, persistent := map[stream]int{}, map[stream]int{}
		names, stormers := map[string]bool{}, 0
		for n := range p.all() {
			r, k := p.place(n)
			if p.number(r, k) != n {
				t.Fatalf("%d clients: number(%v, %d) is %d, not %d", clients, r, k, p.number(r, k), n)
			}
			names[p.name(n)] = true
			if p.storms(n) {
				stormers++
			}
			for _, s := range p.publishes(n) {
				publishers[s]++
			}
			for _, s := range p.owed(n) {
				if !slices.ContainsFunc(p.filters(n), func(f string) bool { return matches(f, p.topic(s)) }) {
					t.Fatalf("%d clients: %s is owed %s and subscribes to %v", clients, p.name(n), p.topic(s), p.filters(n))
				}
				if p.persistent(n) {
					persistent[s]++
				}
			}
		}
		if len(names) != p.all() || stormers != p.stormers() {
			t.Errorf("%d clients: %d names, %d storm and %d should", clients, len(names), stormers, p.stormers())
		}
		if want := 2*p.sensors() + p.devices(); len(publishers) != want || len(persistent) != want {
			t.Errorf("%d clients: %d streams, %d have a persistent subscriber, want %d", clients, len(publishers), len(persistent), want)
		}
		for s, n := range publishers {
			if n != 1 || persistent[s] != 1 || p.every(s) <= 0 {
				t.Fatalf("%d clients: %s has %d publishers and %d persistent subscribers, every %v", clients, p.topic(s), n, persistent[s], p.every(s))
			}
		}
	}
}

// matches knows filters as the plan has them: the same, or with one + in place of
// the third level.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	return slices.EqualFunc(f, t, func(a, b string) bool { return a == b || a == "+" })
}

func FuzzParseHeader(f *testing.F) {
	f.Add(header{7, 1, 12345}.payload())
	f.Add([]byte{})
	f.Add(make([]byte, payloadSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHeader(b)
		if !ok {
			return
		}
		again, ok := parseHeader(h.payload())
		if !ok || again != h {
			t.Errorf("%+v became %+v, %t", h, again, ok)
		}
	})
}

// Who storms shares no generator with anybody else, and each has about as many.
func TestWorkers(t *testing.T) {
	for _, workers := range []int{1, 2, 4, 7} {
		p := testPlan(15000)
		p.Workers = workers
		of, stormy := make([]int, workers), make([]int, workers)
		for n := range p.all() {
			w := p.worker(n)
			of[w]++
			if p.storms(n) {
				stormy[w]++
			}
		}
		for w, n := range of {
			if n == 0 || workers > 1 && stormy[w] != 0 && stormy[w] != n {
				t.Errorf("%d workers: %v clients, of which %v storm", workers, of, stormy)
				break
			}
		}
	}
}
