package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// tape is a log for tests: it makes entries, keeps them, and applies each to a
// store.
type tape struct {
	t      testing.TB
	store  *Store
	fs     vfs.FS
	index  uint64
	stamp  int64
	packs  map[string]uint64
	inc    map[string]uint64
	logs   []*raft.Log
	events []Event
	level  uint32 // of nodes that come up
}

func newTape(t testing.TB) *tape {
	t.Helper()
	r := &tape{t: t, fs: vfs.NewMem(), stamp: 1_000_000, level: Level, packs: map[string]uint64{}, inc: map[string]uint64{}}
	r.store = r.open(r.fs)
	r.up("a")
	r.admin("a", &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: "b", Store: "store-b"}}})
	r.up("b")
	r.allow("*", "allow both #")
	return r
}

func (r *tape) open(fs vfs.FS) *Store {
	r.t.Helper()
	s, err := Open(r.t.Context(), Config{Dir: "state", Node: "a", FS: fs, KeepDead: true}, Deps{
		Observe: func(ev []Event) { r.events = append(r.events, ev...) },
		Halt:    func(err error) { panic(err) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (r *tape) entry(e *logpb.Entry) *raft.Log {
	r.t.Helper()
	r.index++
	e.Stamp = r.stamp
	data, err := proto.Marshal(e)
	if err != nil {
		r.t.Fatal(err)
	}
	return &raft.Log{Index: r.index, Type: raft.LogCommand, Data: data}
}

func (r *tape) apply(e *logpb.Entry) {
	r.t.Helper()
	l := r.entry(e)
	r.logs = append(r.logs, l)
	r.store.Apply(l)
}

func (r *tape) up(node string) {
	r.t.Helper()
	r.apply(&logpb.Entry{Command: &logpb.Entry_NodeUp{NodeUp: &logpb.NodeUp{Node: node, Store: "store-" + node, Nonce: fmt.Sprint(r.index), Level: r.level}}})
	for _, m := range r.store.Members() {
		r.inc[m.Node] = m.Incarnation
	}
	r.packs[node] = 0
}

func (r *tape) down(node string) {
	r.t.Helper()
	r.apply(&logpb.Entry{Command: &logpb.Entry_NodeDown{NodeDown: &logpb.NodeDown{Node: node, Incarnation: r.inc[node]}}})
}

func (r *tape) pack(node string, items ...*logpb.Item) *logpb.Entry {
	r.packs[node]++
	return &logpb.Entry{Command: &logpb.Entry_Pack{Pack: &logpb.Pack{Node: node, Incarnation: r.inc[node], Number: r.packs[node], Items: items}}}
}

// admin applies an item and returns its result, known for node a.
func (r *tape) admin(node string, it *logpb.Item) Result {
	r.t.Helper()
	r.events = nil
	r.apply(r.pack(node, it))
	for _, e := range r.events {
		if e.Kind == EventResult {
			return e.Result
		}
	}
	return Result{}
}

func (r *tape) allow(subject string, rules ...string) {
	put := &logpb.AclPut{Subject: subject}
	for range rules {
		put.Rules = append(put.Rules, &logpb.Rule{Allow: true, Action: 3, Filter: "#"})
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: put}})
}

// connect claims on a node; the epoch is read from the state, as node b's
// results are not told to node a.
func (r *tape) connect(node string, c *logpb.Claim) (Result, uint64) {
	r.t.Helper()
	res := r.admin(node, &logpb.Item{Kind: &logpb.Item_Claim{Claim: c}})
	if s := r.store.Session(c.Client); s != nil {
		return res, s.Epoch
	}
	return res, 0
}

func (r *tape) subscribe(node, client string, epoch uint64, qos uint32, filters ...string) Result {
	r.t.Helper()
	c := &logpb.Subscribe{Client: client, Epoch: epoch}
	for _, f := range filters {
		c.Subscriptions = append(c.Subscriptions, &logpb.Subscription{Filter: f, Qos: qos})
	}
	return r.admin(node, &logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: c}})
}

func (r *tape) publish(node, client string, epoch uint64, topic, payload string, qos uint32) Result {
	r.t.Helper()
	return r.admin(node, &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
		Client: client, Epoch: epoch, Topic: topic, Payload: []byte(payload), Qos: qos, PacketId: uint32(r.index%60000) + 1,
	}}})
}

func (r *tape) queue(client string, after session.Pos) []string {
	r.t.Helper()
	v := r.store.View()
	defer v.Close()
	q, err := v.Queue(nil, client, after, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	out := []string{}
	for _, m := range q {
		out = append(out, string(m.Message.Payload))
	}
	return out
}

func (r *tape) count(kind EventKind) (n int) {
	for _, e := range r.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// dump is the whole content of a store that is the same on all nodes.
func dump(t testing.TB, s *Store) []string {
	t.Helper()
	it, err := s.db.Load().db.NewIter(&pebble.IterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var out []string
	for ok := it.First(); ok; ok = it.Next() {
		v := it.Value()
		if it.Key()[0] == keyPosting {
			v = nil // each node's own tally
		}
		out = append(out, fmt.Sprintf("%q = %q", it.Key(), v))
	}
	return out
}

func same(t testing.TB, what string, a, b []string) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%s: %d and %d records", what, len(a), len(b))
	}
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("%s: record %d differs:\n%s\n%s", what, i, a[i], b[i])
		}
	}
}

func equal[T comparable](t testing.TB, what string, got, want []T) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
	}
}

// What an observer puts aside for a topic is there with its next message, of a will
// too.
func TestAsideStaysWithTheTopic(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "pub", CleanStart: true, Will: &logpb.Will{Topic: "x", Payload: []byte("will")}})
	var seen []any
	look := func() {
		for _, ev := range r.events {
			if ev.Kind == EventMessage {
				seen = append(seen, *ev.Aside)
				*ev.Aside = ev.Message.Topic
			}
		}
		r.events = nil
	}
	for _, topic := range []string{"x", "y", "x"} {
		r.publish("a", "pub", e, topic, "m", 1)
		look()
	}
	r.down("a")
	look()
	equal(t, "aside", seen, []any{nil, nil, "x", "x"})
}

func TestQueueOfAnOfflineSession(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "sub", Expiry: session.Never})
	r.subscribe("a", "sub", e, 1, "x/+", "x/#")
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "sub", Epoch: e}}})
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	for i := range 5 {
		r.publish("b", "pub", pe, "x/1", fmt.Sprint(i), 1)
	}
	r.publish("b", "pub", pe, "x/1", "qos 0 is not kept", 0)
	r.publish("b", "pub", pe, "y", "nobody asked", 1)
	equal(t, "queue", r.queue("sub", 0), []string{"0", "1", "2", "3", "4"})

	res, e := r.connect("a", &logpb.Claim{Client: "sub", Expiry: session.Never})
	if c := res.Claim; !c.Present || !c.Logged || len(c.Subscriptions) != 2 {
		t.Fatalf("claimed %+v", c)
	}
	v := r.store.View()
	q, _ := v.Queue(nil, "sub", 0, 3)
	v.Close()
	if len(q) != 3 || len(q[0].Subscriptions) != 2 {
		t.Fatalf("a chunk of %d with %d subscriptions", len(q), len(q[0].Subscriptions))
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{{Client: "sub", Epoch: e, Cursor: uint64(q[2].Pos)}}}}})
	equal(t, "after progress", r.queue("sub", q[2].Pos), []string{"3", "4"})
	if got := r.store.Session("sub").Cursor; got != uint64(q[2].Pos) {
		t.Fatalf("cursor %d", got)
	}
}

func TestCollectorKeepsWhatIsOwed(t *testing.T) {
	r := newTape(t)
	var epochs []uint64
	for _, c := range []string{"one", "two"} {
		_, e := r.connect("a", &logpb.Claim{Client: c, Expiry: session.Never})
		r.subscribe("a", c, e, 1, "x")
		epochs = append(epochs, e)
	}
	_, e3 := r.connect("a", &logpb.Claim{Client: "three", Expiry: session.Never})
	r.subscribe("a", "three", e3, 1, "#")
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	var ps []session.Pos
	for i := range 600 {
		r.publish("b", "pub", pe, "x", fmt.Sprint(i), 1)
		ps = append(ps, session.At(r.index, 0))
	}
	messages := func() (n int) {
		for _, l := range dump(t, r.store) {
			if l[1] == keyMessage {
				n++
			}
		}
		return n
	}
	move := func(client string, e uint64, p session.Pos) {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{{Client: client, Epoch: e, Cursor: uint64(p)}}}}})
		collectAnew(t, r.store)
	}
	move("one", epochs[0], ps[599])
	if n := messages(); n != 600 {
		t.Fatalf("%d messages are left of 600 that two sessions are owed", n)
	}
	move("two", epochs[1], ps[399])
	move("three", e3, ps[199])
	if n := messages(); n != 400 {
		t.Fatalf("%d messages are left, want 400", n)
	}
	if got := r.queue("two", ps[399]); len(got) != 200 || got[0] != "400" {
		t.Fatalf("session two is owed %d", len(got))
	}
	if got := r.queue("three", ps[199]); len(got) != 400 || got[0] != "200" {
		t.Fatalf("session three is owed %d", len(got))
	}
}

func TestPackNumbers(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	r.subscribe("a", "c", e, 1, "t")
	pub := func(s string) *logpb.Item {
		return &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{Client: "c", Epoch: e, Topic: "t", Payload: []byte(s), Qos: 1}}}
	}
	first, second, third := r.pack("a", pub("1")), r.pack("a", pub("2")), r.pack("a", pub("3"))
	r.events = nil
	r.apply(first)
	r.apply(first)
	r.apply(third)
	if n := r.count(EventPackGap); n != 1 {
		t.Fatalf("%d gaps told", n)
	}
	r.apply(second)
	r.apply(third)
	if n := r.count(EventResult); n != 3 {
		t.Fatalf("%d results", n)
	}
	equal(t, "queue", r.queue("c", 0), []string{"1", "2", "3"})
	old := r.pack("a", pub("late"))
	r.up("a")
	r.events = nil
	r.apply(old)
	if n := r.count(EventResult); n != 0 {
		t.Fatal("a pack of an earlier incarnation was applied")
	}
}

func TestEpochFence(t *testing.T) {
	r := newTape(t)
	_, first := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	_, second := r.connect("b", &logpb.Claim{Client: "c", Expiry: session.Never})
	if r.count(EventEnded) != 1 || second <= first {
		t.Fatalf("the first connection was not ended: %v", r.events)
	}
	if res := r.publish("a", "c", first, "t", "late", 1); !errors.Is(res.Err, ErrStale) {
		t.Fatalf("a publish of the loser: %v", res.Err)
	}
	if res := r.subscribe("a", "c", first, 1, "t"); !errors.Is(res.Err, ErrStale) {
		t.Fatalf("a subscribe of the loser: %v", res.Err)
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "c", Epoch: first}}})
	if r.store.Session("c").Owner != "b" {
		t.Fatal("the loser's release took the winner's session")
	}
}

func TestForeignSession(t *testing.T) {
	r := newTape(t)
	r.connect("a", &logpb.Claim{Client: "c", User: "alice", Expiry: session.Never})
	if res, _ := r.connect("a", &logpb.Claim{Client: "c", User: "bob", CleanStart: true}); !errors.Is(res.Err, ErrForeignSession) {
		t.Fatalf("bob got alice's session: %v", res.Err)
	}
}

func TestQoS2IsAcceptedOnce(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	r.subscribe("a", "c", e, 2, "t")
	pub := &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{Client: "c", Epoch: e, Topic: "t", Payload: []byte("1"), Qos: 2, PacketId: 7}}}
	r.admin("a", pub)
	if res := r.admin("a", pub); !res.Duplicate {
		t.Fatal("the same packet id was accepted twice")
	}
	rel := func() []bool {
		return r.admin("a", &logpb.Item{Kind: &logpb.Item_Rel{Rel: &logpb.Rel{Client: "c", Epoch: e, PacketId: 7}}}).Found
	}
	equal(t, "released", append(rel(), rel()...), []bool{true, false})
	if res := r.admin("a", pub); res.Duplicate {
		t.Fatal("a released id was not accepted again")
	}
	equal(t, "queue", r.queue("c", 0), []string{"1", "1"})
}

func TestEpochIsOfTheConnection(t *testing.T) {
	r := newTape(t)
	is := func(what string, want uint64) {
		t.Helper()
		equal(t, what, []session.Pos{r.store.Epoch("c")}, []session.Pos{session.Pos(want)})
	}
	is("nobody", 0)
	_, first := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	is("connected", first)
	_, second := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	is("taken over", second)
	r.down("a")
	is("gone", 0)
}

func TestOutboundSurvivesAClaim(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	mark := func(pos uint64, id, state uint32, m *logpb.Message) {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: "c", Epoch: e, Marks: []*logpb.Out{{Pos: pos, PacketId: id, State: state, Message: m}}}}})
	}
	base := uint64(session.At(r.index+100, 0))
	mark(base, 1, 1, nil)
	mark(base+1, 2, 1, nil)
	mark(base+1, 2, 2, nil)
	mark(base+2, 3, 1, nil)
	mark(base+2, 3, 3, nil)
	mark(uint64(session.Pos(5).OfRetained()), 4, 1, &logpb.Message{Topic: "retained"})
	r.down("a")
	r.up("a")
	res, e2 := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	var got []session.OutState
	for _, o := range res.Claim.Outbound {
		got = append(got, o.State)
	}
	equal(t, "states", got, []session.OutState{session.OutSent, session.OutReceived, session.OutDone, session.OutSent})
	if m := res.Claim.Outbound[3].Message; m == nil || m.Topic != "retained" {
		t.Fatal("the copy of a retained message is gone")
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{{Client: "c", Epoch: e2, Cursor: base + 5}}}}})
	if n := len(r.store.state.sessions["c"].outs); n != 1 {
		t.Fatalf("%d states are left, want the retained one", n)
	}
}

func will(topic string, delay uint32) *logpb.Will {
	return &logpb.Will{Topic: topic, Payload: []byte("gone"), Qos: 1, Delay: delay}
}

func (r *tape) published(topic string) (n int) {
	for _, e := range r.events {
		if e.Kind == EventMessage && e.Message.Topic == topic {
			n++
		}
	}
	return n
}

func TestWills(t *testing.T) {
	release := func(e uint64, fire bool, grace uint32) *logpb.Item {
		return &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "c", Epoch: e, Will: fire, Grace: grace}}}
	}
	tick := func(r *tape, seconds int64) {
		r.stamp += seconds * 1000
		r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	}
	for _, c := range []struct {
		name   string
		delay  uint32
		expiry uint32
		do     func(r *tape, e uint64)
		want   int
	}{
		{"clean disconnect", 0, 0, func(r *tape, e uint64) { r.admin("a", release(e, false, 0)); tick(r, 100) }, 0},
		{"connection lost", 0, 100, func(r *tape, e uint64) { r.admin("a", release(e, true, 0)) }, 1},
		{"fires once", 0, 100, func(r *tape, e uint64) { r.admin("a", release(e, true, 0)); tick(r, 200) }, 1},
		{"not before its delay", 10, 100, func(r *tape, e uint64) { r.admin("a", release(e, true, 0)); tick(r, 9) }, 0},
		{"after its delay", 10, 100, func(r *tape, e uint64) { r.admin("a", release(e, true, 0)); tick(r, 10); tick(r, 100) }, 1},
		{"at session end before its delay", 1000, 20, func(r *tape, e uint64) { r.admin("a", release(e, true, 0)); tick(r, 20) }, 1},
		{"cancelled by a reconnect", 10, 100, func(r *tape, e uint64) {
			r.admin("a", release(e, true, 0))
			r.connect("b", &logpb.Claim{Client: "c", Expiry: 100})
			tick(r, 50)
		}, 0},
		{"node down", 0, 100, func(r *tape, _ uint64) { r.events = nil; r.down("a") }, 1},
		{"taken over, no delay", 0, 100, func(r *tape, _ uint64) {
			r.connect("b", &logpb.Claim{Client: "c", Expiry: 100})
			tick(r, 10)
			tick(r, 100)
		}, 1},
		{"taken over, delay", 10, 100, func(r *tape, _ uint64) { r.connect("b", &logpb.Claim{Client: "c", Expiry: 100}); tick(r, 50) }, 0},
		{"taken over, clean start", 10, 100, func(r *tape, _ uint64) {
			r.connect("b", &logpb.Claim{Client: "c", Expiry: 100, CleanStart: true})
			tick(r, 10)
		}, 1},
		{"drained and back", 0, 0, func(r *tape, e uint64) {
			r.admin("a", release(e, true, 30))
			r.connect("b", &logpb.Claim{Client: "c"})
			tick(r, 50)
		}, 0},
		{"drained and not back", 0, 0, func(r *tape, e uint64) { r.admin("a", release(e, true, 30)); tick(r, 50) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTape(t)
			_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: c.expiry, Will: will("w", c.delay)})
			c.do(r, e)
			got := r.published("w")
			if got != c.want {
				t.Fatalf("the will fired %d times, want %d", got, c.want)
			}
		})
	}
}

func TestSharedSubscription(t *testing.T) {
	r := newTape(t)
	epochs := map[string]uint64{}
	for i, c := range []string{"m1", "m2", "m3"} {
		node := []string{"a", "b", "a"}[i]
		_, epochs[c] = r.connect(node, &logpb.Claim{Client: c, CleanStart: true})
		r.subscribe(node, c, epochs[c], 1, "$share/g/x/#")
	}
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	picked := map[string]int{}
	for i := range 300 {
		r.publish("b", "pub", pe, "x/1", fmt.Sprint(i), 1)
		for _, e := range r.events {
			for _, p := range e.Picks {
				picked[p.Client]++
			}
		}
	}
	total := 0
	for c := range epochs {
		if picked[c] < 50 {
			t.Errorf("%s got %d of 300", c, picked[c])
		}
		total += len(r.queue(c, 0))
	}
	if total != 300 {
		t.Fatalf("%d postings for 300 messages", total)
	}
	// A clean member leaves: what it did not acknowledge goes to the others.
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "m1", Epoch: epochs["m1"]}}})
	if n := len(r.queue("m2", 0)) + len(r.queue("m3", 0)); n != 300 {
		t.Fatalf("%d messages are left with the other members", n)
	}
	if r.count(EventAssigned) == 0 {
		t.Fatal("the other member on this node was not told")
	}
	// The node of m2 dies.
	r.down("b")
	if n := len(r.queue("m3", 0)); n != 300 {
		t.Fatalf("%d messages came to the last member", n)
	}
}

func TestSharedInOneBatch(t *testing.T) {
	r := newTape(t)
	_, e1 := r.connect("a", &logpb.Claim{Client: "m1", CleanStart: true})
	r.subscribe("a", "m1", e1, 1, "$share/g/x")
	_, pe := r.connect("a", &logpb.Claim{Client: "pub", CleanStart: true})
	pub := &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{Client: "pub", Epoch: pe, Topic: "x", Payload: []byte("p"), Qos: 1}}}
	join := &logpb.Item{Kind: &logpb.Item_Claim{Claim: &logpb.Claim{Client: "m2", Expiry: 100}}}
	epoch2 := uint64(session.At(r.index+1, 1))
	sub := &logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: &logpb.Subscribe{Client: "m2", Epoch: epoch2, Subscriptions: []*logpb.Subscription{{Filter: "$share/g/x", Qos: 1}}}}}
	leave := &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "m1", Epoch: e1}}}
	r.apply(r.pack("a", pub, join, sub, leave))
	equal(t, "m2's queue", r.queue("m2", 0), []string{"p"})
}

func TestRetained(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "p", CleanStart: true})
	put := func(topic, payload string) {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{Client: "p", Epoch: e, Topic: topic, Payload: []byte(payload), Retain: true}}})
	}
	get := func(filter string) []string {
		v := r.store.View()
		defer v.Close()
		out := []string{}
		if err := v.Retained(filter, nil, v.Pos(), func(_ session.Pos, m *session.Message) bool {
			out = append(out, m.Topic+"="+string(m.Payload))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for i := range 3 {
		put(fmt.Sprintf("a/%d/x", i), "old")
		put(fmt.Sprintf("a/%d/x", i), "new")
		put(fmt.Sprintf("b/%d", i), "v")
	}
	put("a/1/x", "")
	equal(t, "a/+/x", get("a/+/x"), []string{"a/0/x=new", "a/2/x=new"})
	equal(t, "exact", get("b/1"), []string{"b/1=v"})
	if n := len(get("#")); n != 5 {
		t.Fatalf("# finds %d", n)
	}
	v := r.store.View()
	defer v.Close()
	first := session.At(1, 0)
	for _, filter := range []string{"#", "b/1"} {
		_ = v.Retained(filter, nil, first, func(session.Pos, *session.Message) bool { t.Error("newer than asked for"); return true })
		_ = v.Retained(filter, retainedKey("b/2")[1:], v.Pos(), func(session.Pos, *session.Message) bool {
			t.Error("at or before what was asked for")
			return true
		})
		n := 0
		_ = v.Retained(filter, retainedKey("b/0")[1:], v.Pos(), func(session.Pos, *session.Message) bool { n++; return false })
		if n != 1 {
			t.Errorf("%s: %d where one was to be enough", filter, n)
		}
	}
}

func TestJoinTokens(t *testing.T) {
	r := newTape(t)
	hash := bytes.Repeat([]byte{1}, 32)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_TokenPut{TokenPut: &logpb.TokenPut{Id: "t", Hash: hash, ExpiresAt: r.stamp + 1000, Uses: 1}}})
	spend := func(h []byte, key byte) error {
		return r.admin("a", &logpb.Item{Kind: &logpb.Item_TokenSpend{TokenSpend: &logpb.TokenSpend{Id: "t", Hash: h, KeyHash: []byte{key}}}}).Err
	}
	if err := spend([]byte{9}, 1); !errors.Is(err, ErrRefused) {
		t.Fatalf("a wrong secret: %v", err)
	}
	if err := spend(hash, 1); err != nil {
		t.Fatal(err)
	}
	if err := spend(hash, 1); err != nil {
		t.Fatalf("the same key again: %v", err)
	}
	if err := spend(hash, 2); !errors.Is(err, ErrRefused) {
		t.Fatalf("another key: %v", err)
	}
	r.stamp += 2000
	if err := spend(hash, 1); err != nil {
		t.Fatalf("the same key after the token's end: %v", err)
	}
}

func TestRestartAndSnapshot(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "s", Expiry: session.Never, Will: will("w", 5)})
	r.subscribe("a", "s", e, 1, "x/+", "$share/g/x/1")
	for i := range 20 {
		r.publish("a", "s", e, "x/1", fmt.Sprint(i), 1+uint32(i%2))
	}
	before := dump(t, r.store)

	snap, err := r.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	sink := &memSink{}
	if err := snap.Persist(sink); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	other := r.open(vfs.NewMem())
	held := other.View()
	if err := other.Restore(io.NopCloser(bytes.NewReader(sink.Bytes()))); err != nil {
		t.Fatal(err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "restored", before, dump(t, other))
	// Blocks are of 512 bytes: some of these cuts are between two files.
	for n := 0; n < sink.Len()-512; n += 512 {
		if err := other.Restore(io.NopCloser(bytes.NewReader(sink.Bytes()[:n]))); err == nil {
			t.Fatalf("%d bytes of a snapshot of %d were taken", n, sink.Len())
		}
	}
	same(t, "after a bad snapshot", before, dump(t, other))

	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.store = r.open(r.fs)
	same(t, "reopened", before, dump(t, r.store))
	next := r.entry(r.pack("a", &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{Client: "s", Epoch: e, Topic: "x/1", Payload: []byte("z"), Qos: 1}}}))
	r.store.Apply(next)
	other.Apply(next)
	same(t, "one entry later", dump(t, r.store), dump(t, other))
}

// memSink is a raft.SnapshotSink.
type memSink struct{ bytes.Buffer }

func (*memSink) ID() string    { return "mem" }
func (*memSink) Cancel() error { return nil }
func (*memSink) Close() error  { return nil }

func TestCrashLosesNothingThatTheLogHolds(t *testing.T) {
	r := newTape(t)
	strict := vfs.NewCrashableMem()
	s := r.open(strict)
	_, e := r.connect("a", &logpb.Claim{Client: "s", Expiry: session.Never})
	r.subscribe("a", "s", e, 1, "x/+")
	for i := range 50 {
		r.publish("a", "s", e, "x/1", fmt.Sprint(i), 1)
	}
	for i, l := range r.logs {
		s.Apply(l)
		if i == len(r.logs)/2 {
			if snap, err := s.Snapshot(); err != nil {
				t.Fatal(err)
			} else {
				snap.Release()
			}
		}
	}
	crashed := strict.CrashClone(vfs.CrashCloneCfg{})
	again := r.open(crashed)
	if at := again.AppliedIndex(); at < uint64(len(r.logs)/2) || at > r.index {
		t.Fatalf("after the crash the state is at %d", at)
	}
	again.ApplyBatch(r.logs)
	same(t, "after replay", dump(t, r.store), dump(t, again))
}
