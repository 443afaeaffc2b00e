package fsm

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"pgregory.net/rapid"
)

// world draws commands that make sense often enough to reach deep states, and
// nonsense often enough to test refusals.
type world struct {
	*rapid.T
	tape   *tape
	epochs map[string]uint64
}

func (w *world) client() string {
	return rapid.SampledFrom([]string{"c1", "c2", "c3", "c4"}).Draw(w.T, "client")
}

func (w *world) node() string { return rapid.SampledFrom([]string{"a", "b"}).Draw(w.T, "node") }

func (w *world) filter() string {
	return rapid.SampledFrom([]string{"x", "x/+", "x/#", "y/1", "$share/g/x/#", "$share/h/x/+", "$share/g/y/1"}).Draw(w.T, "filter")
}

func (w *world) topic() string {
	return rapid.SampledFrom([]string{"x", "x/1", "y/1", "z"}).Draw(w.T, "topic")
}

func (w *world) small(label string, n int) uint32 {
	return uint32(rapid.IntRange(0, n).Draw(w.T, label))
}

func (w *world) item() *logpb.Item {
	c := w.client()
	e := w.epochs[c]
	if w.small("stale", 20) == 0 && e > 1 {
		e--
	}
	switch w.small("kind", 12) {
	case 0, 1:
		claim := &logpb.Claim{Client: c, CleanStart: rapid.Bool().Draw(w.T, "clean"), Expiry: w.small("expiry", 3) * 10}
		if rapid.Bool().Draw(w.T, "will") {
			claim.Will = will(w.topic(), w.small("delay", 20))
			claim.Will.Retain = rapid.Bool().Draw(w.T, "retain")
		}
		return &logpb.Item{Kind: &logpb.Item_Claim{Claim: claim}}
	case 2, 3:
		return &logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: &logpb.Subscribe{Client: c, Epoch: e, Subscriptions: []*logpb.Subscription{
			{Filter: w.filter(), Qos: w.small("qos", 2)}, {Filter: w.filter(), Qos: w.small("qos", 2)},
		}}}}
	case 4:
		return &logpb.Item{Kind: &logpb.Item_Unsubscribe{Unsubscribe: &logpb.Unsubscribe{Client: c, Epoch: e, Filters: []string{w.filter()}}}}
	case 5:
		return &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: c, Epoch: e, Will: rapid.Bool().Draw(w.T, "fire"), Cursor: w.cursor(), Grace: w.small("grace", 1) * 20}}}
	case 6:
		return &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{{Client: c, Epoch: e, Cursor: w.cursor()}}}}}
	case 7:
		return &logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: c, Epoch: e, Marks: []*logpb.Out{{Pos: w.cursor(), PacketId: 1 + w.small("id", 5), State: 1 + w.small("state", 2)}}}}}
	case 8:
		return w.trim(c)
	default:
		p := &logpb.Publish{
			Client: c, Epoch: e, Topic: w.topic(), Payload: []byte(fmt.Sprint(w.small("payload", 3))),
			Qos: w.small("qos", 2), Retain: rapid.Bool().Draw(w.T, "retain"), PacketId: 1 + w.small("id", 5),
		}
		if p.Payload[0] == '0' {
			p.Payload = nil // clears what is retained
		}
		if s := w.small("expiry", 20); s > 10 {
			p.Expiry = &s
		}
		return &logpb.Item{Kind: &logpb.Item_Publish{Publish: p}}
	}
}

// trim draws a trim of a session or of all, or a setting.
func (w *world) trim(c string) *logpb.Item {
	t := &logpb.Trim{Reason: 1 + w.small("reason", 4)}
	switch w.small("trim", 3) {
	case 0:
		t.All = w.cursor()
	case 1:
		if v := rapid.SampledFrom([]string{"on", "off", "", "limit"}).Draw(w.T, "setting"); v != "limit" {
			return &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: "queue.qos0", Value: v}}}
		}
		return &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: "queue.max_messages", Value: fmt.Sprint(w.small("limit", 3))}}}
	default:
		st := &logpb.SessionTrim{Client: c, To: w.cursor()}
		if s := w.tape.store.Session(c); s != nil {
			st.Incarnation = s.Incarnation
		}
		t.Sessions = append(t.Sessions, st)
	}
	return &logpb.Item{Kind: &logpb.Item_Trim{Trim: t}}
}

// cursor is a position of the recent past.
func (w *world) cursor() uint64 {
	return uint64(session.At(w.tape.index-min(w.tape.index, uint64(w.small("back", 10))), 0))
}

func (w *world) step() {
	r := w.tape
	r.stamp += int64(w.small("ms", 5000))
	switch w.small("entry", 12) {
	case 0:
		r.up(w.node())
	case 1:
		r.down(w.node())
	case 2:
		r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	default:
		var items []*logpb.Item
		for range 1 + w.small("items", 4) {
			items = append(items, w.item())
		}
		r.apply(r.pack(w.node(), items...))
	}
	for _, m := range r.store.Members() {
		r.inc[m.Node] = m.Incarnation
	}
	for c := range map[string]bool{"c1": true, "c2": true, "c3": true, "c4": true} {
		if s := r.store.Session(c); s != nil {
			w.epochs[c] = s.Epoch
		}
	}
}

// openCollecting opens a store whose collector runs when the test says so.
func (r *tape) openCollecting(fs vfs.FS) *Store {
	s := r.open(fs)
	s.gc = newCollector(s)
	return s
}

// collectAnew collects as a process does that has just begun.
func collectAnew(t testing.TB, s *Store) {
	t.Helper()
	if err := newCollector(s).round(); err != nil {
		t.Fatal(err)
	}
}

func collectAll(t testing.TB, s *Store) {
	t.Helper()
	if err := s.gc.round(); err != nil {
		t.Fatal(err)
	}
}

// outlook is what can be learnt from a store: all but which dead postings and
// messages are still in it.
func outlook(t testing.TB, s *Store) []string {
	t.Helper()
	var out []string
	for _, l := range dump(t, s) {
		if l[1] != keyMessage && l[1] != keyPosting {
			out = append(out, l)
		}
	}
	v := s.View()
	defer v.Close()
	for _, c := range []string{"c1", "c2", "c3", "c4"} {
		q, err := v.Queue(nil, c, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range q {
			out = append(out, fmt.Sprint(c, " is owed ", m.Pos, m.Message, m.Subscriptions))
		}
	}
	return out
}

// tallied checks what the store counts.
func tallied(t testing.TB, s *Store) {
	t.Helper()
	v := s.view()
	defer v.Close()
	messages, bytes, err := s.gc.count(v.snap)
	m, b, known := s.Stored()
	if err != nil || !known || m != messages || b != bytes {
		t.Fatalf("%d messages of %d bytes are stored, %d of %d counted (%v)", messages, bytes, m, b, err)
	}
}

// TestTwoStoresOfOneLog: two stores that are fed one log, however it is cut into
// batches, and one that comes from a snapshot and the rest of the log, and one
// that is closed and opened on the way, all hold the same.
func TestTwoStoresOfOneLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newTape(t)
		w := &world{T: rt, tape: r, epochs: map[string]uint64{}}
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			w.step()
		}
		want := dump(t, r.store)

		batched := r.open(vfs.NewMem())
		for rest := r.logs; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			batched.ApplyBatch(rest[:n])
			rest = rest[n:]
		}
		same(t, "another store, in batches", want, dump(t, batched))

		cut := rapid.IntRange(1, len(r.logs)).Draw(rt, "cut")
		fs := vfs.NewMem()
		half := r.open(fs)
		half.ApplyBatch(append([]*raft.Log(nil), r.logs[:cut]...))
		sink := &memSink{}
		snap, err := half.Snapshot()
		if err == nil {
			err = snap.Persist(sink)
		}
		if err != nil {
			rt.Fatal(err)
		}
		snap.Release()
		restored := r.open(vfs.NewMem())
		if err := restored.Restore(io.NopCloser(bytes.NewReader(sink.Bytes()))); err != nil {
			rt.Fatal(err)
		}
		same(t, "restore of a snapshot", dump(t, half), dump(t, restored))
		restored.ApplyBatch(r.logs[cut:])
		same(t, "snapshot and the rest", want, dump(t, restored))

		if err := half.Close(); err != nil {
			rt.Fatal(err)
		}
		again := r.open(fs)
		again.ApplyBatch(r.logs) // what it has already counts once
		same(t, "closed and opened", want, dump(t, again))

		// What has been collected tells nobody anything.
		collected := r.openCollecting(vfs.NewMem())
		for rest := r.logs; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			collected.ApplyBatch(rest[:n])
			rest = rest[n:]
			if rapid.Bool().Draw(rt, "collect") {
				collectAll(t, collected)
			}
		}
		same(t, "collected", outlook(t, r.store), outlook(t, collected))
		if diff := cmp.Diff(digestOf(t, r.store), digestOf(t, collected)); diff != "" {
			rt.Fatalf("what was collected is in the digest: %s", diff)
		}
		collectAll(t, collected)
		tallied(t, collected)
		for _, s := range []*Store{r.store, batched, restored, again, collected} {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}
