package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

func TestRetreat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r retreats
		want := func(phase string, red bool) {
			t.Helper()
			if r.phase() != phase || r.red() != red {
				t.Errorf("phase %q, red %v; want %q, %v", r.phase(), r.red(), phase, red)
			}
		}
		want("", false)
		r.end() // of none
		a := r.begin()
		want(admin.DrainLead, false) // another node leads before this one turns red
		if red := r.enter(a, admin.DrainNotice); red != 0 {
			t.Errorf("it was red for %v before it turned red", red)
		}
		want(admin.DrainNotice, true)
		time.Sleep(3 * time.Second) // the bubble's clock
		r.enter(a, admin.DrainSend)

		// A stop while an operator's drain is under way: balancers have noticed.
		if b := r.begin(); b != a {
			t.Error("a second drain is a retreat of its own")
		}
		if red := r.enter(a, admin.DrainNotice); red != 3*time.Second {
			t.Errorf("it is red for %v, not for 3s", red)
		}
		want(admin.DrainSend, true)
		a.drains.Done()

		// It is taken back when the drains under way have ended.
		go func() {
			<-a.ctx.Done()
			time.Sleep(time.Second)        // likewise
			r.enter(a, admin.DrainDrained) // of no meaning any more
			a.drains.Done()
		}()
		start := time.Now()
		r.end()
		if took := time.Since(start); took != time.Second {
			t.Errorf("it was taken back after %v, with a drain under way", took)
		}
		want("", false)
		if b := r.begin(); b == a || b.ctx.Err() != nil {
			t.Error("the retreat that was taken back goes on")
		}
		want(admin.DrainLead, false)
		r.now.drains.Done()
		r.end()
	})
}
