package fsm

import (
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

func (r *tape) retain(node, client string, epoch uint64, topic, payload string) {
	r.t.Helper()
	r.admin(node, &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
		Client: client, Epoch: epoch, Topic: topic, Payload: []byte(payload), Qos: 1, Retain: true,
	}}})
}

func (r *tape) progress(client string, epoch uint64, list ...*logpb.Replayed) {
	r.t.Helper()
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{
		{Client: client, Epoch: epoch, Replayed: list},
	}}}})
}

// owed is what the session's replays still come to.
func (r *tape) owed(client string) []string {
	r.t.Helper()
	v := r.store.View()
	defer v.Close()
	out := []string{}
	for _, n := range r.store.state.sessions[client].list() {
		if n.replay == nil {
			continue
		}
		err := v.Retained(n.Filter, n.replay.After, session.Pos(n.replay.At), func(_ session.Pos, m *session.Message) bool {
			out = append(out, m.Topic+"="+string(m.Payload))
			return true
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

// The retained messages that a subscription was not sent yet are owed to the
// session, wherever it resumes.
func TestReplayGoesOn(t *testing.T) {
	r := newTape(t)
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	for _, topic := range []string{"x/1", "x/2", "x/2/3", "x/3", "y"} {
		r.retain("b", "pub", pe, topic, "old")
	}
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	at := r.subscribe("a", "c", e, 1, "x/#").Pos
	equal(t, "at first", r.owed("c"), []string{"x/1=old", "x/2=old", "x/2/3=old", "x/3=old"})
	r.retain("b", "pub", pe, "x/2/3", "new")
	r.retain("b", "pub", pe, "x/0", "new")
	r.progress("c", e, &logpb.Replayed{Filter: "x/#", At: uint64(at), After: routing.AppendTopicKey(nil, "x/1")})
	r.progress("c", e, &logpb.Replayed{Filter: "x/#", At: uint64(at) - 1, Done: true}) // of an earlier subscription
	r.down("a")
	r.up("a")
	res, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	if l := res.Claim.Replays; len(l) != 1 || l[0].At != at || l[0].Subscription.Filter != "x/#" {
		t.Fatalf("claimed %+v", l)
	}
	// What was replaced since comes by the queue.
	equal(t, "after a crash", r.owed("c"), []string{"x/2=old", "x/3=old"})
	equal(t, "queue", r.queue("c", 0), []string{"new", "new"})
	r.retain("b", "pub", pe, "x/2", "") // cleared
	equal(t, "after a clearance", r.owed("c"), []string{"x/3=old"})
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "c", Epoch: e, Replayed: []*logpb.Replayed{
		{Filter: "x/#", At: uint64(at), Done: true},
	}}}})
	if res, _ = r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never}); len(res.Claim.Replays) != 0 {
		t.Fatalf("claimed %+v after the end", res.Claim.Replays)
	}
}

func TestReplayOnlyWhereOwed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sub    *logpb.Subscription
		again  bool
		expiry uint32
		want   bool
	}{
		{"QoS 1", &logpb.Subscription{Filter: "#", Qos: 1}, false, 60, true},
		{"QoS 0", &logpb.Subscription{Filter: "#"}, false, 60, false},
		{"shared", &logpb.Subscription{Filter: "$share/g/#", Qos: 1}, false, 60, false},
		{"handling 1, new", &logpb.Subscription{Filter: "#", Qos: 1, RetainHandling: 1}, false, 60, true},
		{"handling 1, again", &logpb.Subscription{Filter: "#", Qos: 1, RetainHandling: 1}, true, 60, false},
		{"handling 2", &logpb.Subscription{Filter: "#", Qos: 1, RetainHandling: 2}, false, 60, false},
		{"session of the connection", &logpb.Subscription{Filter: "#", Qos: 1}, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newTape(t)
			_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: tt.expiry})
			subscribe := func(s *logpb.Subscription) {
				r.admin("a", &logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: &logpb.Subscribe{Client: "c", Epoch: e, Subscriptions: []*logpb.Subscription{s}}}})
			}
			if tt.again {
				subscribe(&logpb.Subscription{Filter: tt.sub.Filter, Qos: 1, RetainHandling: 2})
			}
			subscribe(tt.sub)
			if got := r.store.state.sessions["c"].find(tt.sub.Filter).replay != nil; got != tt.want {
				t.Errorf("a replay: %v, want %v", got, tt.want)
			}
		})
	}
}

// A retained QoS 2 message whose delivery ended is remembered until the replay
// has passed it, and its record is not that of the queued message of its
// position.
func TestRetainedOutStates(t *testing.T) {
	r := newTape(t)
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.retain("b", "pub", pe, "x/1", "1")
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	r.subscribe("a", "c", e, 2, "x/2")
	r.retain("b", "pub", pe, "x/2", "2")
	of := session.At(r.index, 0) // of x/2, which is queued as well
	at := uint64(r.subscribe("a", "c", e, 2, "x/+").Pos)
	mark := func(p session.Pos, id, state uint32, m *logpb.Message) {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: "c", Epoch: e, Marks: []*logpb.Out{{Pos: uint64(p), PacketId: id, State: state, Message: m}}}}})
	}
	left := func() int { return len(r.store.state.sessions["c"].outs) }
	mark(of.OfRetained(), 7, 1, &logpb.Message{Topic: "x/2", Payload: []byte("2")})
	mark(of, 8, 1, nil)
	mark(of.OfRetained(), 7, 2, nil)
	mark(of.OfRetained(), 7, 3, nil)
	if left() != 2 {
		t.Fatalf("%d states, want that of the queued message and that of the retained one", left())
	}
	r.progress("c", e, &logpb.Replayed{Filter: "x/+", At: at, After: routing.AppendTopicKey(nil, "x/1")})
	if left() != 2 {
		t.Fatal("forgotten while the replay could send it again")
	}
	r.progress("c", e, &logpb.Replayed{Filter: "x/+", At: at, After: routing.AppendTopicKey(nil, "x/2")})
	if left() != 1 {
		t.Fatal("not forgotten when the replay had passed it")
	}
	mark(of.OfRetained(), 7, 1, &logpb.Message{Topic: "x/2"})
	mark(of.OfRetained(), 7, 3, nil)
	if left() != 1 {
		t.Fatal("not forgotten though nothing could send it again")
	}
}

// A queued message names the subscriptions of QoS 0 that match it as well.
func TestQueueNamesAllSubscriptions(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	r.subscribe("a", "c", e, 0, "a/+", "b")
	r.subscribe("a", "c", e, 1, "a/#")
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.publish("b", "pub", pe, "a/b", "x", 1)
	r.subscribe("a", "c", e, 0, "#") // later
	v := r.store.View()
	defer v.Close()
	q, err := v.Queue(nil, "c", 0, 10)
	if err != nil || len(q) != 1 {
		t.Fatalf("%d queued, %v", len(q), err)
	}
	var got []string
	for _, s := range q[0].Subscriptions {
		got = append(got, s.Filter)
	}
	equal(t, "subscriptions", got, []string{"a/#", "a/+"})
}
