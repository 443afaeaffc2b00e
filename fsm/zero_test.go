package fsm

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// heldZero is what of a session's queue lies in its spans, as a claim would find it.
func (r *tape) heldZero(res Result) (out []string) {
	v := r.store.View()
	defer v.Close()
	all, err := v.Queue(nil, "z", 0, 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, q := range all {
		for _, s := range res.Claim.Zero {
			if s.Holds(q.Pos) {
				out = append(out, string(q.Message.Payload))
			}
		}
	}
	return out
}

func (r *tape) zeroClaim(node string) (Result, uint64) {
	return r.connect(node, &logpb.Claim{Client: "z", Expiry: 1000})
}

// Messages of QoS 0 wait only while the session is away and the setting is on; what
// was for a connection whose end nobody saw is given up.
func TestQueueZero(t *testing.T) {
	r := newTape(t)
	_, pe := r.connect("a", &logpb.Claim{Client: "p"})
	say := func(payload string) { r.publish("a", "p", pe, "t", payload, 0) }
	want := func(res Result, payloads ...string) {
		t.Helper()
		if diff := cmp.Diff(payloads, r.heldZero(res)); diff != "" {
			t.Fatal(diff)
		}
	}
	queues := func(want bool) {
		t.Helper()
		if got := r.store.Queues("t"); got != want {
			t.Fatalf("Queues is %v, want %v", got, want)
		}
	}
	_, e := r.zeroClaim("a")
	r.subscribe("a", "z", e, 0, "t")
	r.leave("a", "z", e)
	say("off")
	queues(false)
	r.set("queue.qos0", "on")
	queues(true)
	say("1")
	res, e := r.zeroClaim("a")
	want(res, "1")
	queues(false)
	say("live")
	// In order, with nothing taken: both times count.
	r.leave("a", "z", e)
	say("2")
	res, e = r.zeroClaim("a")
	want(res, "1", "2")
	// Away without a word.
	r.leave("a", "z", e)
	r.zeroClaim("b")
	r.down("b")
	queues(true)
	say("3")
	r.up("b")
	res, _ = r.zeroClaim("a")
	want(res, "3")
	// Taken over.
	res, e = r.zeroClaim("a")
	want(res)
	r.leave("a", "z", e)
	say("4")
	queues(true)
	// As after a start of the process.
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.store = r.open(r.fs)
	queues(true)
	res, e = r.zeroClaim("a")
	want(res, "4")
	r.leave("a", "z", e)
	say("given up")
	r.set("queue.qos0", "off")
	queues(false)
	if s := r.store.Session("z"); len(s.Zero) > 0 || s.Subscriptions[0].Waits {
		t.Errorf("with the setting off %v is kept", s)
	}
	res, e = r.zeroClaim("a")
	want(res)
	r.leave("a", "z", e)
	queues(false)
}

// What waits at QoS 0 is collected when the session has passed it, and counts for
// the limits before.
func TestQueueZeroIsBounded(t *testing.T) {
	r := newTape(t)
	r.set("queue.qos0", "on")
	_, pe := r.connect("a", &logpb.Claim{Client: "p"})
	_, e := r.zeroClaim("a")
	r.subscribe("a", "z", e, 0, "t")
	r.leave("a", "z", e)
	r.set("queue.max_messages", "3")
	for range 10 {
		r.publish("a", "p", pe, "t", "m", 0)
	}
	tr := r.store.NewTrimmer()
	if _, dropped := r.plan(tr); dropped != 8 {
		t.Errorf("%d were given up, want 8", dropped)
	}
	res, _ := r.zeroClaim("a")
	if got := r.heldZero(res); len(got) != 2 {
		t.Errorf("%d wait", len(got))
	}
	s := r.store.state.sessions["z"]
	n := s.find("t")
	if low := lowest(n.filter, r.store.state); low != s.at() {
		t.Errorf("dead up to %v, the session is at %v", low, s.at())
	}
}

// A session that comes and goes and takes nothing remembers a few spans only.
func TestSpansAreFew(t *testing.T) {
	r := newTape(t)
	r.set("queue.qos0", "on")
	for range 3 * maxSpans {
		_, e := r.zeroClaim("a")
		r.subscribe("a", "z", e, 0, "t")
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "z", Epoch: e}}})
	}
	if n := len(r.store.Session("z").Zero); n != maxSpans {
		t.Errorf("%d spans, want %d", n, maxSpans)
	}
	_, e := r.zeroClaim("a")
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "z", Epoch: e, Cursor: uint64(session.At(r.index, 0))}}})
	if n := len(r.store.Session("z").Zero); n != 1 {
		t.Errorf("%d spans, want 1", n)
	}
}
