package forward

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestFilterSet holds a set against a map, with few filters that come and go so often
// that slots collide and move.
func TestFilterSet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s, want := newFilterSet(), map[string]bool{}
	for range 200_000 {
		f := fmt.Sprint("f/", r.IntN(200))
		if r.IntN(2) == 0 {
			if got := s.add(f); got == want[f] {
				t.Fatalf("add %s: %v", f, got)
			}
			want[f] = true
		} else {
			if got := s.remove(f); got != want[f] {
				t.Fatalf("remove %s: %v", f, got)
			}
			delete(want, f)
		}
		if s.len() != len(want) {
			t.Fatalf("%d filters, not %d", s.len(), len(want))
		}
	}
	for _, f := range s.list() {
		if !want[f] {
			t.Errorf("%s was removed", f)
		}
	}
	for f := range want {
		if !s.remove(f) {
			t.Errorf("%s is not found", f)
		}
	}
	if s.len() != 0 || len(s.list()) != 0 {
		t.Errorf("left: %v", s.list())
	}
	for i := range 100_000 {
		s.add(fmt.Sprint(i))
	}
	list := s.list()
	slices.Sort(list)
	if len(slices.Compact(list)) != 100_000 {
		t.Errorf("%d filters", len(list))
	}
}
