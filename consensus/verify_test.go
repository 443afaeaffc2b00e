package consensus

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A leader that hung finds answers to heartbeats that it sent long ago. They are
// no confirmation that it leads: a later leader may have ruled for as long.
func TestContactCountsFromTheRequest(t *testing.T) {
	var now time.Duration
	c := newContacts(func() time.Duration { return now })
	answer := func(term, resp uint64, ok bool, began time.Duration) {
		c.note("n2", &raft.AppendEntriesRequest{Term: term}, &raft.AppendEntriesResponse{Term: resp, Success: ok}, began)
	}
	expect := func(what string, term uint64, since time.Duration, want bool) {
		t.Helper()
		if got := c.since("n2", term, since); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	now = 20 * time.Second
	answer(3, 3, true, time.Second) // arrives at 20 s, was asked at 1 s
	expect("a late answer counts for now", 3, 10*time.Second, false)
	expect("a late answer counts for then", 3, time.Second, true)
	answer(3, 4, false, 15*time.Second)
	expect("a refusal by a later term", 3, 10*time.Second, false)
	answer(3, 3, true, 15*time.Second)
	answer(3, 3, true, 5*time.Second) // on another connection, later
	expect("the newest request counts", 3, 15*time.Second, true)
	expect("another term", 4, 0, false)
	answer(5, 5, true, 16*time.Second)
	answer(3, 3, true, 18*time.Second)
	expect("an older term does not take the newer one's place", 5, 16*time.Second, true)
}
