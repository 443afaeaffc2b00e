package fsm

import (
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// TestWillOfTheOvertaken: the will of a connection that was taken over fires
// unless its node says that its client had left before; once, whatever comes.
func TestWillOfTheOvertaken(t *testing.T) {
	late := func(r *tape, e uint64, fire bool, grace uint32) {
		r.apply(r.pack("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "c", Epoch: e, Will: fire, Grace: grace}}}))
	}
	tick := func(r *tape, ms int64) {
		r.stamp += ms
		r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	}
	for _, c := range []struct {
		name  string
		level uint32
		delay uint32 // with one the new connection begins anew
		do    func(r *tape, e uint64)
		want  int
	}{
		{"nobody tells yet", Level, 0, func(r *tape, _ uint64) { tick(r, formerPatience-1) }, 0},
		{"nobody tells in time", Level, 0, func(r *tape, _ uint64) { tick(r, formerPatience) }, 1},
		{"it was left before", Level, 0, func(r *tape, e uint64) { late(r, e, false, 0) }, 0},
		{"it was lost", Level, 0, func(r *tape, e uint64) { late(r, e, true, 0) }, 1},
		{"it was sent away and is back", Level, 0, func(r *tape, e uint64) { late(r, e, true, 30) }, 0},
		{"it was sent away and has begun anew", Level, 10, func(r *tape, e uint64) { late(r, e, true, 30) }, 1},
		{"told too late", Level, 0, func(r *tape, e uint64) { tick(r, formerPatience); late(r, e, true, 0); late(r, e, false, 0) }, 1},
		{"told twice", Level, 0, func(r *tape, e uint64) { late(r, e, true, 0); late(r, e, true, 0) }, 1},
		{"told of another connection", Level, 0, func(r *tape, e uint64) { late(r, e+1, true, 0); late(r, e-1, true, 0) }, 0},
		{"its node is down", Level, 0, func(r *tape, _ uint64) { r.down("a") }, 1},
		{"its node starts anew", Level, 0, func(r *tape, _ uint64) { r.up("a") }, 1},
		{"another node is down", Level, 0, func(r *tape, _ uint64) { r.down("b") }, 0},
		{"a member does not tell", levelFormer - 1, 0, func(*tape, uint64) {}, 1},
	} {
		for _, restarted := range []bool{false, true} {
			name := c.name
			if restarted {
				name += ", after a restart"
			}
			t.Run(name, func(t *testing.T) {
				r := newTape(t)
				r.level = c.level
				r.up("b")
				_, e := r.connect("a", &logpb.Claim{Client: "c", Will: will("w", c.delay), Expiry: 100})
				r.connect("b", &logpb.Claim{Client: "c", CleanStart: c.delay > 0})
				if restarted {
					if err := r.store.Close(); err != nil {
						t.Fatal(err)
					}
					r.store = r.open(r.fs)
				}
				c.do(r, e)
				tick(r, 0)
				if got := r.published("w"); got != c.want {
					t.Fatalf("the will fired %d times, want %d", got, c.want)
				}
				if s := r.store.Session("c"); c.name != "another node is down" && (s == nil || s.Epoch == e) {
					t.Fatalf("the new connection has lost its session: %v", s)
				}
			})
		}
	}
}
