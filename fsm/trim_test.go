package fsm

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

func (r *tape) leave(node, client string, epoch uint64, inflight ...*logpb.Inflight) {
	r.t.Helper()
	r.admin(node, &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: client, Epoch: epoch, Inflight: inflight}}})
}

func (r *tape) set(key, value string) {
	r.t.Helper()
	r.admin("a", &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: key, Value: value}}})
}

func (r *tape) trim(c *logpb.Trim) {
	r.t.Helper()
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Trim{Trim: c}})
}

// plan carries out what the trimmer plans and returns how many were given up.
func (r *tape) plan(tr *Trimmer) (trims, dropped int) {
	r.t.Helper()
	list, err := tr.Plan(r.stamp)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range list {
		if len(c.Sessions) > planItem {
			r.t.Fatalf("a trim of %d sessions", len(c.Sessions))
		}
		r.trim(c)
		dropped += int(c.Dropped)
	}
	return len(list), dropped
}

func TestTrimOfASession(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "sub", Expiry: session.Never})
	r.subscribe("a", "sub", e, 1, "x/+")
	_, e2 := r.connect("a", &logpb.Claim{Client: "other", Expiry: session.Never})
	r.subscribe("a", "other", e2, 1, "x/#")
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	var ps []uint64
	for i := range 10 {
		r.publish("b", "pub", pe, "x/1", fmt.Sprint(i), 1)
		ps = append(ps, uint64(session.At(r.index, 0)))
	}
	r.leave("a", "sub", e, &logpb.Inflight{Pos: ps[0], PacketId: 1}, &logpb.Inflight{Pos: ps[5], PacketId: 2})
	inc := r.store.Session("sub").Incarnation
	r.trim(&logpb.Trim{Reason: TrimMessages, Sessions: []*logpb.SessionTrim{{Client: "sub", Incarnation: inc + 1, To: ps[9]}, {Client: "nobody", To: ps[9]}}})
	if n := len(r.queue("sub", 0)); n != 10 {
		t.Fatalf("%d messages are left after a trim of another incarnation", n)
	}
	r.trim(&logpb.Trim{Reason: TrimMessages, Sessions: []*logpb.SessionTrim{{Client: "sub", Incarnation: inc, To: ps[3]}}})
	equal(t, "trimmed", r.queue("sub", 0), []string{"4", "5", "6", "7", "8", "9"})
	if n := len(r.queue("other", 0)); n != 10 {
		t.Fatalf("another session has %d messages left", n)
	}
	r.trim(&logpb.Trim{Reason: TrimMessages, Sessions: []*logpb.SessionTrim{{Client: "sub", Incarnation: inc, To: ps[1]}}})
	equal(t, "not back", r.queue("sub", 0), []string{"4", "5", "6", "7", "8", "9"})
	res, e := r.connect("a", &logpb.Claim{Client: "sub", Expiry: session.Never})
	if l := res.Claim.Inflight; len(l) != 1 || l[0].PacketID != 2 {
		t.Fatalf("in flight %+v", l)
	}
	r.progress("sub", e) // the broker's own is older
	r.trim(&logpb.Trim{Reason: TrimTotalMessages, All: ps[7]})
	equal(t, "all trimmed", r.queue("sub", 0), []string{"8", "9"})
	equal(t, "all trimmed", r.queue("other", 0), []string{"8", "9"})
	if c := r.store.Session("pub").Cursor; c != pe {
		t.Fatalf("the cursor of a session that is owed nothing moved from %d to %d", pe, c)
	}
	// Beyond the end of the log, which no leader means.
	r.trim(&logpb.Trim{All: 1 << 62})
	if c := r.store.Session("sub").Cursor; c > uint64(session.At(r.index, 0)) {
		t.Fatalf("the cursor is beyond the log: %d", c)
	}
}

// TestTrimKeepsQoS2: what is under way at QoS 2 outlives its place in the queue,
// so that client and broker go on agreeing on packet ids.
func TestTrimKeepsQoS2(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
	r.subscribe("a", "c", e, 2, "x")
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	var ps []uint64
	for i := range 6 {
		r.publish("b", "pub", pe, "x", fmt.Sprint(i), 2)
		ps = append(ps, uint64(session.At(r.index, 0)))
	}
	mark := func(i int, id, state uint32) Result {
		return r.admin("a", &logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: "c", Epoch: e, Marks: []*logpb.Out{{Pos: ps[i], PacketId: id, State: state}}}}})
	}
	for i := range 3 {
		if res := mark(i, uint32(i+1), 1); !res.Found[0] {
			t.Fatal("a mark was not noted")
		}
	}
	mark(1, 2, 2)
	mark(2, 3, 2)
	mark(2, 3, 3)
	r.trim(&logpb.Trim{All: ps[3]})
	collectAnew(t, r.store)
	equal(t, "queue", r.queue("c", 0), []string{"4", "5"})
	if res := mark(3, 4, 1); res.Err != nil || res.Found[0] {
		t.Fatalf("a message that was given up before its delivery began is delivered: %+v", res)
	}
	if res := mark(4, 5, 1); !res.Found[0] {
		t.Fatal("a mark was not noted")
	}
	check := func(what string, want ...string) {
		t.Helper()
		r.down("a")
		r.up("a")
		var res Result
		res, e = r.connect("a", &logpb.Claim{Client: "c", Expiry: session.Never})
		got := []string{}
		for _, o := range res.Claim.Outbound {
			s := fmt.Sprint(o.PacketID, " ", o.State)
			if o.Message != nil {
				s += " " + string(o.Message.Payload)
			}
			got = append(got, s)
		}
		equal(t, what, got, want)
	}
	check("after the trim", "1 1 0", "2 2", "5 1")
	r.progress("c", e)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{{Client: "c", Epoch: e, Cursor: ps[5]}}}}})
	check("after the cursor has passed the rest", "1 1 0", "2 2")
	mark(0, 1, 2)
	check("the client has it", "1 2", "2 2")
	mark(0, 1, 3)
	mark(1, 2, 3)
	check("at the end")
	if n := len(dumpKind(t, r.store, keyOut)); n != 0 {
		t.Fatalf("%d states are left", n)
	}
}

func dumpKind(t testing.TB, s *Store, kind byte) (out []string) {
	for _, l := range dump(t, s) {
		if l[1] == kind {
			out = append(out, l)
		}
	}
	return out
}

// TestTrimAfterRedistribution: what was taken back from a member of a shared
// subscription is gone for a node that starts as for one that runs on.
func TestTrimAfterRedistribution(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "m1", Expiry: session.Never})
	r.subscribe("a", "m1", e, 1, "$share/g/x")
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.publish("b", "pub", pe, "x", "m", 1)
	_, e2 := r.connect("a", &logpb.Claim{Client: "m2", Expiry: session.Never})
	r.subscribe("a", "m2", e2, 1, "$share/g/x")
	r.leave("a", "m1", e)
	equal(t, "m1", r.queue("m1", 0), []string{})
	equal(t, "m2", r.queue("m2", 0), []string{"m"})
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	runsOn := r.open(vfs.NewMem())
	runsOn.ApplyBatch(r.logs)
	r.store = r.open(r.fs)
	r.trim(&logpb.Trim{All: uint64(session.At(r.index, 0))})
	runsOn.ApplyBatch(r.logs)
	same(t, "a trim of all", dump(t, r.store), dump(t, runsOn))
}

func TestLimitOfMessages(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "one", Expiry: session.Never})
	r.subscribe("a", "one", e, 1, "x")
	r.leave("a", "one", e)
	_, e = r.connect("a", &logpb.Claim{Client: "two", Expiry: session.Never})
	r.subscribe("a", "two", e, 1, "x", "y/+", "z")
	r.leave("a", "two", e)
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.set("queue.max_messages", "100")
	tr := r.store.NewTrimmer()
	dropped := 0
	for i := range 300 {
		r.publish("b", "pub", pe, "x", fmt.Sprint(i), 1)
		r.publish("b", "pub", pe, "y/1", fmt.Sprint(i), 1)
		if i%10 == 0 {
			_, n := r.plan(tr)
			dropped += n
		}
	}
	for trims := 1; trims > 0; {
		var n int
		trims, n = r.plan(tr)
		dropped += n
	}
	one, two := r.queue("one", 0), r.queue("two", 0)
	if len(one) > 100 || len(one) < 97 || len(two) > 100 || len(two) < 97 {
		t.Fatalf("%d and %d messages wait, want just under 100", len(one), len(two))
	}
	for i, m := range one {
		if m != fmt.Sprint(300-len(one)+i) {
			t.Fatalf("message %d of the queue is %s", i, m)
		}
	}
	if last := two[len(two)-1]; last != "299" {
		t.Fatalf("the newest is %s", last)
	}
	if want := 300 - len(one) + 600 - len(two); dropped != want {
		t.Fatalf("%d counted as dropped, want %d", dropped, want)
	}
}

func TestLimitOfBytes(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "one", Expiry: session.Never})
	r.subscribe("a", "one", e, 1, "x")
	r.leave("a", "one", e)
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.set("queue.max_bytes", "64KiB")
	size := (&session.Message{Topic: "x", Payload: make([]byte, 1000)}).Size()
	tr := r.store.NewTrimmer()
	for range 200 {
		r.publish("b", "pub", pe, "x", string(make([]byte, 1000)), 1)
		r.plan(tr)
	}
	if n := len(r.queue("one", 0)); n*size > 64<<10 || n*size < 62<<10 {
		t.Fatalf("%d messages of %d bytes wait", n, size)
	}
}

func TestLimitOfAge(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "one", Expiry: session.Never})
	r.subscribe("a", "one", e, 1, "x")
	r.leave("a", "one", e)
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	tr := r.store.NewTrimmer()
	for i := range 100 {
		r.stamp += 1000
		r.publish("b", "pub", pe, "x", fmt.Sprint(i), 1)
	}
	if n, _ := r.plan(tr); n != 0 {
		t.Fatal("something is given up without a limit")
	}
	r.set("queue.max_age", "10s")
	if n, dropped := r.plan(tr); n != 1 || dropped != 89 {
		t.Fatalf("%d trims, %d dropped", n, dropped)
	}
	if n, _ := r.plan(tr); n != 0 {
		t.Fatal("planned again")
	}
	r.stamp += 2000 // nothing happens, and time passes
	if n, dropped := r.plan(tr); n != 1 || dropped != 2 {
		t.Fatalf("%d trims, %d dropped", n, dropped)
	}
	equal(t, "queue", r.queue("one", 0), []string{"91", "92", "93", "94", "95", "96", "97", "98", "99"})
}

func TestLimitOfAll(t *testing.T) {
	r := newTape(t)
	for i := range 3 {
		c := fmt.Sprint("c", i)
		_, e := r.connect("a", &logpb.Claim{Client: c, Expiry: session.Never})
		r.subscribe("a", c, e, 1, fmt.Sprint("x/", i), "both")
		r.leave("a", c, e)
	}
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.set("queue.total_messages", "300")
	tr := r.store.NewTrimmer()
	for i := range 200 {
		r.publish("b", "pub", pe, fmt.Sprint("x/", i%3), fmt.Sprint(i), 1)
		r.publish("b", "pub", pe, "both", fmt.Sprint(i), 1)
	}
	if n, _ := r.plan(tr); n != 0 {
		t.Fatal("trimmed by a figure that is not known")
	}
	c := newCollector(r.store)
	if err := c.adopt(); err != nil {
		t.Fatal(err)
	}
	if m, _, ok := r.store.Stored(); m != 400 || !ok {
		t.Fatalf("%d messages counted", m)
	}
	trims, dropped := r.plan(tr)
	if trims != 1 || dropped != 400-int(lowered(300)) {
		t.Fatalf("%d trims of %d", trims, dropped)
	}
	if trims, _ = r.plan(tr); trims != 0 {
		t.Fatal("planned again before the collector was there")
	}
	if err := c.round(); err != nil {
		t.Fatal(err)
	}
	if m, b, _ := r.store.Stored(); m != int64(lowered(300)) || b <= 64*m {
		t.Fatalf("%d messages, %d bytes are left", m, b)
	}
	if n := len(dumpKind(t, r.store, keyMessage)); n != int(lowered(300)) {
		t.Fatalf("%d messages are in the store", n)
	}
	if trims, _ = r.plan(tr); trims != 0 {
		t.Fatal("planned again")
	}
	if q := r.queue("c0", 0); q[0] != "52" || q[len(q)-1] != "199" {
		t.Fatalf("c0 is owed %v", q)
	}
}

// TestManySessionsOnOneFilter is the bar: one message to 10,000 offline sessions
// on one filter is stored once, and their limits cost a few trims of bounded size.
func TestManySessionsOnOneFilter(t *testing.T) {
	const n = 10_000
	r := newTape(t)
	var claims, subs, leaves []*logpb.Item
	for i := range n {
		claims = append(claims, &logpb.Item{Kind: &logpb.Item_Claim{Claim: &logpb.Claim{Client: fmt.Sprint("s", i), Expiry: session.Never}}})
	}
	r.apply(r.pack("a", claims...))
	for i := range n {
		c := fmt.Sprint("s", i)
		e := uint64(session.At(r.index, i))
		subs = append(subs, &logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: &logpb.Subscribe{Client: c, Epoch: e, Subscriptions: []*logpb.Subscription{{Filter: "x", Qos: 1}}}}})
		leaves = append(leaves, &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: c, Epoch: e}}})
	}
	r.apply(r.pack("a", subs...))
	r.apply(r.pack("a", leaves...))
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	r.set("queue.max_messages", "100")
	tr := r.store.NewTrimmer()
	best := time.Hour // of one entry with one message, other tests beside it
	for i := range 100 {
		began := time.Now()
		r.publish("b", "pub", pe, "x", fmt.Sprint(i), 1)
		best = min(best, time.Since(began))
	}
	if t.Logf("one message to %d sessions takes %v", n, best); best > 20*time.Millisecond {
		t.Errorf("one message to %d sessions takes %v", n, best)
	}
	if p, m := len(dumpKind(t, r.store, keyPosting)), len(dumpKind(t, r.store, keyMessage)); p != 100 || m != 100 {
		t.Fatalf("%d postings and %d messages of 100", p, m)
	}
	if trims, _ := r.plan(tr); trims != 0 {
		t.Fatal("trimmed at the limit")
	}
	r.publish("b", "pub", pe, "x", "one more", 1)
	trims, dropped := 0, 0
	for {
		k, d := r.plan(tr)
		if k == 0 {
			break
		}
		if k > planSessions/planItem {
			t.Fatalf("%d trims at once", k)
		}
		trims, dropped = trims+k, dropped+d
	}
	if trims > n/planItem+3 || dropped != n*3 {
		t.Fatalf("%d trims, %d dropped", trims, dropped)
	}
	if l := len(r.queue("s77", 0)); l != 98 {
		t.Fatalf("%d messages wait", l)
	}
}

func TestRetainedExpiry(t *testing.T) {
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "p", CleanStart: true})
	put := func(topic, payload string, expiry uint32) {
		p := &logpb.Publish{Client: "p", Epoch: e, Topic: topic, Payload: []byte(payload), Retain: true}
		if expiry > 0 {
			p.Expiry = &expiry
		}
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Publish{Publish: p}})
	}
	tick := func(ms int64) {
		r.stamp += ms
		r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	}
	put("a", "1", 10)
	put("b", "1", 10)
	put("b", "2", 20)
	put("c", "1", 10)
	put("c", "2", 0)
	put("d", "1", 10)
	put("d", "", 0)
	put("e", "1", 0)
	if n := len(dumpKind(t, r.store, keyExpiry)); n != 2 {
		t.Fatalf("%d in the index, want those of a and b", n)
	}
	if due, ok := r.store.Due(); !ok || due != r.stamp+10_000 {
		t.Fatalf("due at %d", due)
	}
	tick(10_000)
	if n := len(dumpKind(t, r.store, keyRetained)); n != 3 {
		t.Fatalf("%d retained messages are left, want b, c and e", n)
	}
	if due, _ := r.store.Due(); due != r.stamp+10_000 {
		t.Fatalf("due at %d", due)
	}
	tick(10_000)
	if n := len(dumpKind(t, r.store, keyRetained)); n != 2 {
		t.Fatalf("%d retained messages are left, want c and e", n)
	}
	if _, ok := r.store.Due(); ok || len(dumpKind(t, r.store, keyExpiry)) != 0 {
		t.Fatal("something is due")
	}
	// Many at once go in steps, and the next step is due at once.
	for i := range 600 {
		put(fmt.Sprint("many/", i), "1", 5)
	}
	tick(5000)
	if n := len(dumpKind(t, r.store, keyRetained)); n != 2+600-expireBatch {
		t.Fatalf("%d retained messages are left after one step", n)
	}
	for range 2 {
		if due, ok := r.store.Due(); !ok || due > r.stamp {
			t.Fatal("the next step is not due")
		}
		tick(0)
	}
	if n := len(dumpKind(t, r.store, keyRetained)); n != 2 {
		t.Fatalf("%d retained messages are left", n)
	}
}

func TestSettings(t *testing.T) {
	r := newTape(t)
	if r.store.Limits() != DefaultLimits() || DefaultLimits().MaxBytes != 1<<30 {
		t.Fatalf("defaults %+v", DefaultLimits())
	}
	r.set("queue.max_messages", "7")
	r.set("queue.max_bytes", "nonsense of another version")
	r.set("queue.max_age", "90m")
	want := DefaultLimits()
	want.MaxMessages, want.MaxAge = 7, 90*60*1e9
	if got := r.store.Limits(); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.store = r.open(r.fs)
	if got := r.store.Limits(); got != want {
		t.Fatalf("after a restart: got %+v, want %+v", got, want)
	}
	for _, k := range SettingKeys() {
		r.set(k.Key, "")
	}
	if got := r.store.Limits(); got != DefaultLimits() || len(r.store.Settings()) != 0 {
		t.Fatalf("after they were taken away: %+v", got)
	}
	for _, tt := range []struct{ key, value, want string }{
		{"queue.max_messages", "0", `queue.max_messages: "0" is not a number of messages: write a whole number from 1`},
		{"queue.max_bytes", "1 pound", `queue.max_bytes: "1 pound" is not a size: write a whole number and a unit, such as 64KiB or 1GiB`},
		{"queue.total_bytes", "99999999999TiB", `queue.total_bytes: "99999999999TiB" is not a size: write a whole number and a unit, such as 64KiB or 1GiB`},
		{"queue.max_age", "5ms", `queue.max_age: "5ms" is not an age: write 0 for none, or a duration of at least 1s, such as 90m or 168h`},
		{"queue.max_age", "0", ""},
		{"queue.max_bytes", "64KiB", ""},
	} {
		got := ""
		if err := CheckSetting(tt.key, tt.value); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s=%s: %s", tt.key, tt.value, got)
		}
	}
	if CheckSetting("nothing", "1") == nil {
		t.Error("an unknown setting is taken")
	}
}
