package fsm

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

func deposits(from, n int) (out []*logpb.Deposit) {
	for i := range n {
		out = append(out, &logpb.Deposit{Topic: "a/1", Payload: fmt.Append(nil, from+i), Qos: 1})
	}
	return out
}

// payloads are what a session is owed, in order.
func payloads(t *testing.T, s *Store, client string) (out []string) {
	t.Helper()
	v := s.View()
	defer func() { _ = v.Close() }()
	q, err := v.Queue(nil, client, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range q {
		out = append(out, string(m.Message.Payload))
	}
	return out
}

// TestSessionPut: a deposit reaches its session alone, whoever else subscribes to
// its topic; what is published afterwards comes after it, once; and all of it is
// there after a restart.
func TestSessionPut(t *testing.T) {
	fs := vfs.NewMem()
	r := newTape(t)
	s := r.store
	put := func(c *logpb.SessionPut) {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_SessionPut{SessionPut: c}})
	}
	subs := []*logpb.Subscription{{Filter: "a/#", Qos: 1}}
	put(&logpb.SessionPut{Client: "one", User: "ann", Expiry: session.Never, Protocol: 4, Subscriptions: subs, Deposits: deposits(0, 2)})
	put(&logpb.SessionPut{Client: "two", Expiry: session.Never, Protocol: 4, Subscriptions: subs, Deposits: deposits(10, 1)})
	put(&logpb.SessionPut{Client: "one", From: 2, Deposits: deposits(2, 1)})
	// Each of these is refused.
	put(&logpb.SessionPut{Client: "one", Deposits: deposits(90, 1)})
	put(&logpb.SessionPut{Client: "one", From: 2, Deposits: deposits(91, 1)})
	put(&logpb.SessionPut{Client: "three", From: 1, Deposits: deposits(92, 1)})
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true, Protocol: 4})
	r.publish("b", "pub", pe, "a/1", "live", 1)
	want := map[string][]string{"one": {"0", "1", "2", "live"}, "two": {"10", "live"}, "three": nil}
	check := func(s *Store) {
		t.Helper()
		got := map[string][]string{}
		for client := range want {
			got[client] = payloads(t, s, client)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	check(s)
	again := newTape(t).open(fs)
	again.ApplyBatch(r.logs)
	check(again)

	// A client that has taken it all leaves no trace of the deposits.
	_, e := r.connect("a", &logpb.Claim{Client: "two", Expiry: session.Never, Protocol: 4})
	put(&logpb.SessionPut{Client: "two", From: 1, Deposits: deposits(93, 1)})
	if n := len(s.Session("two").Subscriptions); n != 2 {
		t.Errorf("%d subscriptions", n)
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "two", Epoch: e, Cursor: uint64(session.At(r.index, 0))}}})
	r.connect("a", &logpb.Claim{Client: "two", Expiry: session.Never, Protocol: 4})
	if rec := s.Session("two"); len(rec.Subscriptions) != 1 || rec.Deposits != 0 {
		t.Errorf("%v", rec)
	}
}

// TestSessionPutExpires: what was left of a session's life goes on.
func TestSessionPutExpires(t *testing.T) {
	r := newTape(t)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_SessionPut{SessionPut: &logpb.SessionPut{Client: "c", Expiry: 3600, Remaining: 10, Deposits: deposits(0, 1)}}})
	for _, want := range []bool{true, false} {
		r.stamp += 6_000
		r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
		if got := r.store.Session("c") != nil; got != want {
			t.Errorf("there is a session: %v", got)
		}
	}
}

// TestReplaces: another hash of the same password takes the place of the old one,
// once, and is no change of the password.
func TestReplaces(t *testing.T) {
	r := newTape(t)
	user := func() *logpb.User { return r.store.Users()[0] }
	put := func(hash, replaces string) {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "u", Hash: &hash, Replaces: replaces}}})
	}
	put("foreign", "")
	version := user().Version
	put("first", "foreign")
	put("second", "foreign")
	if u := user(); u.Hash != "first" || u.Version != version {
		t.Errorf("%v, version was %d", u, version)
	}
}
