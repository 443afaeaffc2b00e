package fsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

func noStep() error { return nil }

// digestOf is the digest of a store, without how its collector left it.
func digestOf(t testing.TB, s *Store) *Digest {
	t.Helper()
	c, err := s.Copy()
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Digest(noStep)
	if err = errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	return d
}

// sumsOf are the sums of all records, by what they are of.
func sumsOf(t testing.TB, s *Store, parts []int) map[string]Sum {
	t.Helper()
	c, err := s.Copy()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Sum{}
	err = c.Sums(noStep, parts, func(k []byte, sum Sum) error {
		kind, name := DescribeKey(k)
		out[kind+" "+name] = sum
		return nil
	})
	if err = errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

func differing(a, b *Digest) (parts []int) {
	for i := range a.Parts {
		if a.Parts[i] != b.Parts[i] {
			parts = append(parts, i)
		}
	}
	return parts
}

// full is a state with records of most kinds.
func full(t testing.TB) *tape {
	t.Helper()
	r := newTape(t)
	_, e := r.connect("a", &logpb.Claim{Client: "dev", Expiry: session.Never})
	r.subscribe("a", "dev", e, 2, "x/#", "$share/g/y")
	_, p := r.connect("b", &logpb.Claim{Client: "pub", Expiry: 100, Will: will("gone", 5)})
	for i := range 20 {
		r.publish("b", "pub", p, fmt.Sprintf("x/%d", i%3), fmt.Sprint("m", i), 1)
		r.publish("b", "pub", p, "y", fmt.Sprint("s", i), 2)
	}
	expiry := uint32(500)
	r.admin("b", &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
		Client: "pub", Epoch: p, Topic: "x/kept", Payload: []byte("v"), Qos: 1, Retain: true, Expiry: &expiry,
	}}})
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: "dev", Epoch: e, Marks: []*logpb.Out{
		{Pos: uint64(session.At(r.index, 0)), PacketId: 7, State: 1},
	}}}})
	r.admin("a", &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "anna"}}})
	r.admin("a", &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: "queue.max_messages", Value: "1000"}}})
	return r
}

// TestDigestFindsAFlippedByte flips a byte of every record in turn, in the key's
// value: the digest differs in the part of that record alone, whose sums name it.
// What is left out is each node's own, and has a check of its own.
func TestDigestFindsAFlippedByte(t *testing.T) {
	r := full(t)
	want := digestOf(t, r.store)
	if len(want.Faults) > 0 {
		t.Fatalf("a sound state has faults: %v", want.Faults)
	}
	all := make([]int, DigestParts)
	for i := range all {
		all[i] = i
	}
	sums := sumsOf(t, r.store, all)
	db := r.store.db.Load().db
	type record struct{ k, v []byte }
	var records []record
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		records = append(records, record{slices.Clone(it.Key()), slices.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	kinds := map[byte]int{}
	filters := map[uint64]bool{}
	for _, rec := range records {
		if id, _, err := parsePosting(rec.k); err == nil && rec.k[0] == keyPosting && !filters[id] {
			filters[id] = true
			continue // its tally has none before it to be compared with
		}
		// A cursor, or what a subscription says of its queue, decides what is compared.
		if len(rec.v) == 0 || rec.k[0] == keyCursor || rec.k[0] == keySubscription {
			continue
		}
		kind, name := DescribeKey(rec.k)
		bad := slices.Clone(rec.v)
		bad[len(bad)-1] ^= 0x40
		if err := db.Set(rec.k, bad, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		got := digestOf(t, r.store)
		switch parts := differing(want, got); {
		case rec.k[0] == keyPosting:
			if len(got.Faults) == 0 || len(parts) > 0 {
				t.Errorf("%s %s: faults %v, parts %v", kind, name, got.Faults, parts)
			}
		case len(parts) != 1 || parts[0] != DigestPart(rec.k):
			t.Errorf("%s %s: parts %v differ and not %d", kind, name, parts, DigestPart(rec.k))
		default:
			for what, sum := range sumsOf(t, r.store, parts) {
				if changed := sum != sums[what]; changed != (what == kind+" "+name) {
					t.Errorf("%s %s: %q changed: %v", kind, name, what, changed)
				}
			}
		}
		kinds[rec.k[0]]++
		if err := db.Set(rec.k, rec.v, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []byte{keyMessage, keyPosting, keySession, keyOut, keyRetained, keyUser, keyACL, keyMember, keyPack, keySetting, 'M'} {
		if kinds[k] == 0 {
			t.Errorf("no record of kind %q was flipped", k)
		}
	}
}

// TestDigestMissesNoRecord deletes each record that is compared in turn.
func TestDigestMissesNoRecord(t *testing.T) {
	r := full(t)
	want := digestOf(t, r.store)
	db := r.store.db.Load().db
	copied, err := r.store.Copy()
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	var keys [][]byte
	if _, err := copied.compared(noStep, func(k, _ []byte) error {
		keys = append(keys, slices.Clone(k))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		v, closer, err := db.Get(k)
		if err != nil {
			t.Fatal(err)
		}
		v = slices.Clone(v)
		if err := errors.Join(closer.Close(), db.Delete(k, pebble.NoSync)); err != nil {
			t.Fatal(err)
		}
		if got := digestOf(t, r.store); !slices.Contains(differing(want, got), DigestPart(k)) {
			t.Errorf("nobody misses %q", k)
		}
		if err := db.Set(k, v, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, digestOf(t, r.store)); diff != "" {
		t.Error(diff)
	}
}

// TestCutIsAtOneIndex: however the log is cut into batches, the copy is of the entry
// with the item, and the item changes nothing.
func TestCutIsAtOneIndex(t *testing.T) {
	r := full(t)
	before := dump(t, r.store)
	r.admin("a", CutItem("early")) // nobody waits for it
	r.admin("b", CutItem("one"))
	at := r.index
	for i := range 5 {
		_, e := r.connect("a", &logpb.Claim{Client: fmt.Sprint("late", i), Expiry: 5})
		r.subscribe("a", fmt.Sprint("late", i), e, 1, "z")
	}
	r.admin("a", CutItem("one")) // again: it is over
	if len(before) == 0 {
		t.Fatal("the state is empty")
	}
	var digests []*Digest
	for _, batch := range []int{1, 3, len(r.logs)} {
		s := r.open(vfs.NewMem())
		c := s.Cut("one")
		for rest := r.logs; len(rest) > 0; {
			n := min(batch, len(rest))
			s.ApplyBatch(append([]*raft.Log(nil), rest[:n]...))
			rest = rest[n:]
		}
		got, err := c.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Applied != at {
			t.Errorf("batches of %d: the copy is of index %d and not %d", batch, got.Applied, at)
		}
		d, err := got.Digest(noStep)
		if err = errors.Join(err, got.Close(), c.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
	}
	for _, d := range digests[1:] {
		if diff := cmp.Diff(digests[0], d); diff != "" {
			t.Error(diff)
		}
	}
	// One that nobody takes does not pin the state, one that does not come ends.
	untaken := r.store.Cut("two")
	r.admin("a", CutItem("two"))
	if err := untaken.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if c, err := r.store.Cut("three").Wait(ctx); err == nil {
		t.Errorf("a copy of %d came without its item", c.Applied)
	}
}

// FuzzDescribeKey: whatever is in a store can be told to people.
func FuzzDescribeKey(f *testing.F) {
	for _, k := range []string{"", "r", "ra\x01b", "m12345678", "i1234567812345678", "bdev\x00x/#", "q", "e12345678x", "Mapplied", "\xff"} {
		f.Add([]byte(k))
	}
	f.Fuzz(func(t *testing.T, k []byte) {
		if kind, name := DescribeKey(k); kind == "" || name == "" && len(k) > 1 {
			t.Errorf("%q is described as %q %q", k, kind, name)
		}
	})
}

// BenchmarkDigest is of a queue of messages.
func BenchmarkDigest(b *testing.B) {
	r := newTape(b)
	_, e := r.connect("a", &logpb.Claim{Client: "dev", Expiry: session.Never})
	r.subscribe("a", "dev", e, 1, "x/#")
	_, p := r.connect("b", &logpb.Claim{Client: "pub", Expiry: 100})
	for i := range 20_000 {
		r.publish("b", "pub", p, fmt.Sprintf("x/%d", i%100), "payload of some bytes, as sensors send them", 1)
	}
	for b.Loop() {
		d := digestOf(b, r.store)
		b.ReportMetric(float64(d.Records), "records")
	}
}
