package fsm

import (
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// A claim tells where the session's connection before it ended, however it did; not
// where a member of the cluster would not write that down.
func TestClaimTellsWhereTheLastConnectionEnded(t *testing.T) {
	for _, c := range []struct {
		name  string
		level uint32
		end   func(r *tape, e uint64)
		at    func(r *tape) uint64 // seen before the claim
	}{
		{"left", Level, func(r *tape, e uint64) { r.leave("b", "c", e) }, func(r *tape) uint64 { return r.index }},
		{"node down", Level, func(r *tape, _ uint64) { r.down("b") }, func(r *tape) uint64 { return r.index }},
		{"taken over", Level, func(*tape, uint64) {}, func(r *tape) uint64 { return r.index + 1 }},
		{"an older member", LevelLeft - 1, func(r *tape, e uint64) { r.leave("b", "c", e) }, func(*tape) uint64 { return 0 }},
	} {
		for _, restarted := range []bool{false, true} {
			r := newTape(t)
			r.level = c.level
			r.up("b")
			first, e := r.connect("b", &logpb.Claim{Client: "c", Expiry: 100})
			if first.Claim != nil && first.Claim.Left != 0 {
				t.Errorf("%s: the first connection came after one that ended at %d", c.name, first.Claim.Left)
			}
			c.end(r, e)
			want := c.at(r)
			if restarted {
				if err := r.store.Close(); err != nil {
					t.Fatal(err)
				}
				r.store = r.open(r.fs)
			}
			res, _ := r.connect("a", &logpb.Claim{Client: "c", Expiry: 100})
			if !res.Claim.Present || res.Claim.Left != want {
				t.Errorf("%s, restarted %t: the connection before ended at %d, want %d", c.name, restarted, res.Claim.Left, want)
			}
		}
	}
}
