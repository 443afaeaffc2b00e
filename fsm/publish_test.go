package fsm

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// Who reads the applied index and then the users sees none from before it: the leader
// tells by the index that a removed user is unknown everywhere.
func TestAppliedIndexComesLast(t *testing.T) {
	r := newTape(t)
	var ended atomic.Bool
	early := make(chan string, 1)
	go func() {
		defer close(early)
		for !ended.Load() {
			at := r.store.AppliedIndex()
			u, ok := r.store.Policy().User("guest")
			if is := session.Pos(u.Version).Index(); ok && is < at {
				early <- fmt.Sprintf("index %d, and the user is of %d", at, is)
				return
			}
		}
	}()
	for i := range 20_000 {
		hash := fmt.Sprint(i)
		r.admin("a", &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "guest", Hash: &hash}}})
	}
	ended.Store(true)
	for what := range early {
		t.Error(what)
	}
}
