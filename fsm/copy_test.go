package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"pgregory.net/rapid"
)

// record is one of a Copy.
type record struct{ k, v []byte }

// copied takes a copy of a store and what it holds.
func copied(t testing.TB, s *Store) (*Copy, []record) {
	t.Helper()
	c, err := s.Copy()
	if err != nil {
		t.Fatal(err)
	}
	var out []record
	var n Contents
	err = c.Each(func(k, v []byte) error {
		out = append(out, record{bytes.Clone(k), bytes.Clone(v)})
		return n.Count(k, v)
	})
	if err = errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	return c, out
}

// build makes a store of records.
func build(t testing.TB, records []record) *Store {
	t.Helper()
	s, err := Build(t.Context(), Config{Dir: "state", Node: "new", FS: vfs.NewMem(), KeepDead: true}, Deps{}, func(put func(k, v []byte) error) error {
		for _, r := range records {
			if err := put(r.k, r.v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ownNothing leaves out of a dump what is of the old cluster alone.
func ownNothing(records []string) []string {
	return slices.DeleteFunc(records, func(r string) bool { return strings.ContainsRune("npty", rune(r[1])) })
}

// A state built of a copy is the state that was copied, whatever log made it.
func TestBuildIsTheCopy(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newTape(t)
		w := &world{T: rt, tape: r, epochs: map[string]uint64{}}
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			w.step()
		}
		c, records := copied(t, r.store)
		s := build(t, records)
		same(t, "built", ownNothing(dump(t, r.store)), dump(t, s))
		if s.AppliedIndex() != r.store.AppliedIndex() || s.Stamp() != r.store.Stamp() || c.Applied != s.AppliedIndex() || c.Stamp != s.Stamp() {
			rt.Fatalf("index %d of %d, stamp %d of %d", s.AppliedIndex(), r.store.AppliedIndex(), s.Stamp(), r.store.Stamp())
		}
		// Found comes to the same on every machine, and nobody is connected.
		again := build(t, records)
		f := Founding{Grace: 60, SameCA: true}
		if err := errors.Join(s.Found(f), again.Found(f)); err != nil {
			rt.Fatal(err)
		}
		same(t, "found twice", dump(t, s), dump(t, again))
		if n := s.Counts(); n.Connected != 0 {
			rt.Fatalf("%d sessions are connected", n.Connected)
		}
	})
}

// A copy that is made while entries are applied is the state of one index: that of
// the log up to there.
func TestCopyWhileApplying(t *testing.T) {
	r := newTape(t)
	logs := goldenLog(r)
	live, err := Open(t.Context(), Config{Dir: "state", Node: "a", FS: vfs.NewMem(), KeepDead: true}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, l := range logs {
			live.Apply(l)
		}
	}()
	seen := 0
	for over := false; !over; {
		select {
		case <-done:
			over = true // once more, for the end
		default:
		}
		c, records := copied(t, live)
		if len(records) == 0 {
			continue
		}
		seen++
		want := r.open(vfs.NewMem())
		want.ApplyBatch(slices.Clone(logs[:c.Applied]))
		same(t, fmt.Sprint("the copy at ", c.Applied), ownNothing(dump(t, want)), dump(t, build(t, records)))
	}
	if seen == 0 {
		t.Fatal("no copy was seen")
	}
}

// What becomes of the wills and sessions of those who were connected.
func TestFoundReleases(t *testing.T) {
	for _, tt := range []struct {
		name    string
		claim   *logpb.Claim
		found   Founding
		back    bool  // the client comes back at once
		seconds int64 // that pass
		fired   int
		kept    bool
	}{
		{"waits for the grace", &logpb.Claim{Client: "c", Expiry: 1000, Will: will("w", 0)}, Founding{Grace: 60}, false, 59, 0, true},
		{"fires after the grace", &logpb.Claim{Client: "c", Expiry: 1000, Will: will("w", 0)}, Founding{Grace: 60}, false, 60, 1, true},
		{"its own longer delay counts", &logpb.Claim{Client: "c", Expiry: 1000, Will: will("w", 90)}, Founding{Grace: 60}, false, 89, 0, true},
		{"back in time", &logpb.Claim{Client: "c", Expiry: 1000, Will: will("w", 0)}, Founding{Grace: 60}, true, 100, 0, true},
		{"dropped", &logpb.Claim{Client: "c", Expiry: 1000, Will: will("w", 0)}, Founding{Grace: 60, DropWills: true}, false, 100, 0, true},
		{"a session that ends with its connection waits for its will", &logpb.Claim{Client: "c", Will: will("w", 0)}, Founding{Grace: 60}, false, 59, 0, true},
		{"and ends with it", &logpb.Claim{Client: "c", Will: will("w", 0)}, Founding{Grace: 60}, false, 60, 1, false},
		{"without a will it ends at once", &logpb.Claim{Client: "c"}, Founding{Grace: 60}, false, 0, 0, false},
		{"a session expires from now on", &logpb.Claim{Client: "c", Expiry: 100}, Founding{Grace: 60}, false, 99, 0, true},
		{"by the cluster's clock", &logpb.Claim{Client: "c", Expiry: 100}, Founding{Grace: 60}, false, 100, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newTape(t)
			r.connect("b", tt.claim)
			_, records := copied(t, r.store)
			r.events = nil
			s := build(t, records)
			s.deps.Observe = func(ev []Event) { r.events = append(r.events, ev...) }
			if err := s.Found(tt.found); err != nil {
				t.Fatal(err)
			}
			n := &tape{t: t, store: s, index: s.AppliedIndex(), stamp: s.Stamp(), packs: map[string]uint64{}, inc: map[string]uint64{}}
			n.up("new")
			if tt.back {
				n.connect("new", &logpb.Claim{Client: "c", Expiry: tt.claim.Expiry})
			}
			n.stamp += tt.seconds * 1000
			n.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
			if got := r.published("w"); got != tt.fired {
				t.Errorf("the will fired %d times, want %d", got, tt.fired)
			}
			if kept := s.Session("c") != nil; kept != tt.kept {
				t.Errorf("the session is there: %v, want %v", kept, tt.kept)
			}
		})
	}
}

// Certificates of the old nodes: nobody is to believe them.
func TestFoundForgetsNodes(t *testing.T) {
	r := newTape(t)
	for serial, kind := range map[string]string{"1": "node", "2": "client", "3": "listener"} {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{Serial: serial, Subject: "x", Kind: kind}}})
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{Serial: "4", Subject: "x", Kind: "client", Revoked: true}}})
	_, records := copied(t, r.store)
	for _, tt := range []struct {
		same bool
		want string
	}{{true, "1 true 2 false 3 true 4 true "}, {false, "2 false 4 true "}} {
		s := build(t, records)
		if err := s.Found(Founding{SameCA: tt.same}); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, c := range s.Certs() {
			got += fmt.Sprint(c.Serial, " ", s.Revoked(c.Serial), " ")
		}
		if got != tt.want {
			t.Errorf("same CA %v: %q, want %q", tt.same, got, tt.want)
		}
		if len(s.Members()) != 0 || len(s.Tokens()) != 0 {
			t.Errorf("members %v, tokens %v", s.Members(), s.Tokens())
		}
	}
}

// Records that no state has are refused and not stored.
func TestForeignRecords(t *testing.T) {
	for _, tt := range []struct{ k, v string }{
		{"", ""}, {"Z", ""}, {"Mother", "12345678"}, {"Mstamp", "short"}, {"m1", ""}, {"i1", ""}, {"sclient", "\xff"}, {"sclient", ""},
		{"bclient", ""}, {"bclient\x00filter", ""}, {"cclient", "1"}, {"qclient\x00abc", ""}, {"qclient\x00ab", "x"}, {"e", ""}, {"rtopic", "1"},
		{"npeer", ""}, {"ttoken", ""}, {"ppeer", ""},
	} {
		if err := new(Contents).Count([]byte(tt.k), []byte(tt.v)); !errors.Is(err, ErrForeignRecord) {
			t.Errorf("%q = %q: %v", tt.k, tt.v, err)
		}
	}
}
