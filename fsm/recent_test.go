package fsm

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"pgregory.net/rapid"
)

// TestCollectorSparesWhatComesNow: a filter for which nobody waits is dead to its
// end, and the next entry can make it wait for a session. What that one is owed
// is not collected with the rest, at whatever moment the collector looks.
func TestCollectorSparesWhatComesNow(t *testing.T) {
	r := newTape(t)
	s := r.openCollecting(vfs.NewMem())
	s.ApplyBatch(r.logs)
	r.store = s
	_, pub := r.connect("a", &logpb.Claim{Client: "pub", CleanStart: true})
	_, e := r.connect("a", &logpb.Claim{Client: "sub", Expiry: session.Never})
	r.subscribe("a", "sub", e, 1, "x")
	r.publish("a", "pub", pub, "x", "old", 1)
	collectAll(t, s)
	r.subscribe("a", "sub", e, 0, "x")
	s.state.filters["x"].spilled = session.At(1<<30, 0)
	s.gc.note(news{touched: []*filter{s.state.filters["x"]}}, s.state)
	gen, dirty, _ := s.gc.look()
	defer gen.release()
	r.subscribe("a", "sub", e, 1, "x")
	r.publish("a", "pub", pub, "x", "new", 1)
	for _, f := range dirty {
		if err := s.gc.collect(gen.db, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.gc.sweep(gen.db); err != nil {
		t.Fatal(err)
	}
	equal(t, "queue", r.queue("sub", 0), []string{"new"})
	collectAll(t, s)
	equal(t, "queue", r.queue("sub", 0), []string{"new"})
}

// TestCollectorRoom: however few messages the collector remembers, and whenever it
// comes, what is owed stays, nothing else stays, and the counts are right.
func TestCollectorRoom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newTape(t)
		s := r.openCollecting(vfs.NewMem())
		s.gc.room = rapid.SampledFrom([]int{0, 1, 3, 40, recentRoom}).Draw(rt, "room")
		s.ApplyBatch(r.logs)
		r.store = s
		_, pub := r.connect("a", &logpb.Claim{Client: "pub", CleanStart: true})
		filters := [][]string{{"t/0"}, {"t/1", "t/0"}, {"t/+"}}
		var epochs []uint64
		for i, f := range filters {
			_, e := r.connect("a", &logpb.Claim{Client: fmt.Sprint("c", i), Expiry: session.Never})
			r.subscribe("a", fmt.Sprint("c", i), e, 1, f...)
			epochs = append(epochs, e)
		}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "what") {
			case 0:
				// Whole runs and single ones go in different ways.
				var items []*logpb.Item
				topic := rapid.IntRange(0, 3).Draw(rt, "topic")
				for i := range rapid.SampledFrom([]int{1, 2, sweepRange, 3 * sweepRange}).Draw(rt, "messages") {
					items = append(items, &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
						Client: "pub", Epoch: pub, Topic: fmt.Sprint("t/", (topic+i/7)%4), Qos: 1, Payload: fmt.Append(nil, r.index, i),
					}}})
				}
				r.apply(r.pack("a", items...))
			case 1:
				i := rapid.IntRange(0, 2).Draw(rt, "client")
				to := session.At(r.index-uint64(rapid.IntRange(0, 3).Draw(rt, "back")), rapid.IntRange(0, 90).Draw(rt, "item"))
				r.admin("a", &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{
					{Client: fmt.Sprint("c", i), Epoch: epochs[i], Cursor: uint64(to)},
				}}}})
			default:
				collectAll(t, s)
			}
		}
		whole := r.open(vfs.NewMem()) // collects nothing
		whole.ApplyBatch(r.logs)
		left := map[session.Pos]bool{}
		for i := range filters {
			client := fmt.Sprint("c", i)
			want, got := owed(t, whole, client), owed(t, s, client)
			equal(t, "queue of "+client, positions(got), positions(want))
			for _, q := range got {
				left[q.Pos] = true
			}
		}
		collectAll(t, s)
		tallied(t, s)
		if m, _, _ := s.Stored(); int(m) != len(left) {
			t.Fatalf("%d messages are left, %d are owed to somebody", m, len(left))
		}
		for _, s := range []*Store{s, whole} {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func owed(t testing.TB, s *Store, client string) []Queued {
	t.Helper()
	v := s.View()
	defer v.Close()
	q, err := v.Queue(nil, client, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func positions(l []Queued) []session.Pos {
	var out []session.Pos
	for _, q := range l {
		out = append(out, q.Pos)
	}
	return out
}
