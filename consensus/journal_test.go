package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

const testJournal = 64 << 10

func openTestLog(t *testing.T, dir string) *journaledStore {
	t.Helper()
	s, err := openLog(dir, testJournal)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// logsOf makes entries from index on, whose data tells which write they are of.
func logsOf(index uint64, n int, write uint64) (out []*raft.Log) {
	for range n {
		data := bytes.Repeat([]byte{byte(index), byte(write)}, 1+int(index*write)%700)
		out = append(out, &raft.Log{Index: index, Term: write, Type: raft.LogCommand, Data: data})
		index++
	}
	return out
}

// crashed copies a directory as a loss of power would leave it: everything that a
// write returned for is there.
func crashed(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func entries(s raft.LogStore) (out []string, err error) {
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	err = errors.Join(err1, err2)
	for i := first; err == nil && i != 0 && i <= last; i++ {
		var l raft.Log
		err = s.GetLog(i, &l)
		out = append(out, fmt.Sprint(l.Index, l.Term, len(l.Data), castagnoli(l.Data)))
	}
	return out, err
}

// reopened reads the log of a directory twice, as Inspect and as Open do.
func reopened(t *testing.T, dir string) []string {
	t.Helper()
	r, err := readLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := entries(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	s := openTestLog(t, dir)
	got, err := entries(s)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, got) {
		t.Fatalf("read as %d entries, opened as %d", len(seen), len(got))
	}
	return got
}

// TestJournalKeepsWhatReturned writes, deletes from both ends, brings entries to
// raft.db now and then, and loses power after each step.
func TestJournalKeepsWhatReturned(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	dir := t.TempDir()
	s := openTestLog(t, dir)
	defer func() { _ = s.Close() }()
	first, next := uint64(1), uint64(1)
	for step := range uint64(240) {
		var err error
		switch n := rng.IntN(20); {
		case n == 0 && next > first+30: // behind a snapshot
			err = s.DeleteRange(first, next-20)
			first = next - 19
		case n == 1 && next > first+5: // others come in their place
			err = s.DeleteRange(next-4, next-1)
			next -= 4
		case n == 2 && step%7 == 0 && next > first: // a snapshot of another
			err = s.DeleteRange(first, next-1)
			next += 100
			first = next
		case n < 6:
			err = s.drain()
		case n == 6: // more than the journal takes
			l := logsOf(next, 1, step+1)
			l[0].Data = make([]byte, testJournal)
			err = s.StoreLogs(l)
			next++
		default:
			count := 1 + rng.IntN(12)
			err = s.StoreLogs(logsOf(next, count, step+1))
			next += uint64(count)
		}
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		want, err := entries(s)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(want)) != next-first {
			t.Fatalf("step %d: %d entries, want %d to %d", step, len(want), first, next-1)
		}
		if step%3 != 0 {
			continue
		}
		if got := reopened(t, crashed(t, dir)); !slices.Equal(got, want) {
			t.Fatalf("step %d: %d entries after a crash, %d before", step, len(got), len(want))
		}
	}
}

// TestJournalTornTail: a last record of which only a part reached the disk is as if
// it had not been written, and what came before it is there.
func TestJournalTornTail(t *testing.T) {
	dir := t.TempDir()
	s := openTestLog(t, dir)
	defer func() { _ = s.Close() }()
	for i := range uint64(5) {
		if err := s.StoreLogs(logsOf(1+3*i, 3, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := entries(s)
	if err != nil {
		t.Fatal(err)
	}
	from := s.j.at
	before := crashed(t, dir)
	big := logsOf(16, 1, 1)
	big[0].Data = bytes.Repeat([]byte("x"), 3*journalPage)
	if err := s.StoreLogs(big); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(journalPath(dir, s.j.active))
	old, err1 := os.ReadFile(filepath.Join(before, name))
	whole, err2 := os.ReadFile(filepath.Join(dir, name))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	// Its pages reach the disk in any order.
	for pages := range 15 {
		torn := bytes.Clone(old)
		for p := range int64(4) {
			if pages&(1<<p) != 0 {
				at := from + p*journalPage
				copy(torn[at:at+journalPage], whole[at:])
			}
		}
		to := crashed(t, dir)
		if err := os.WriteFile(filepath.Join(to, name), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := reopened(t, to); !slices.Equal(got, want) {
			t.Fatalf("pages %04b of the last record: %d entries, want %d", pages, len(got), len(want))
		}
	}
}

// TestDamagedJournal flips bits of records that others follow.
func TestDamagedJournal(t *testing.T) {
	dir := t.TempDir()
	s := openTestLog(t, dir)
	defer func() { _ = s.Close() }()
	for i := range uint64(6) {
		if err := s.StoreLogs(logsOf(1+i, 1, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	active := s.j.active
	for _, at := range []int64{0, 5, 17, 33, 38, journalPage + 3, 3*journalPage + 50} {
		to := crashed(t, dir)
		if err := flip(journalPath(to, active), int(at)); err != nil {
			t.Fatal(err)
		}
		if s, err := openLog(to, testJournal); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v, want %v", at, err, ErrDamaged)
			if err == nil {
				_ = s.Close()
			}
		}
	}
}

// TestLostLogIsTold: a node whose log is gone in part would have forgotten its vote
// or what it confirmed.
func TestLostLogIsTold(t *testing.T) {
	dir := t.TempDir()
	s := openTestLog(t, dir)
	if err := s.StoreLogs(logsOf(1, 3, 1)); err != nil {
		t.Fatal(err)
	}
	left := crashed(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"raft.db", "journal-0", "journal-1"} {
		to := crashed(t, left)
		if err := os.Remove(filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := openLog(to, testJournal); !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v, want %v", name, err, ErrDamaged)
		}
	}
}

// TestLogBehindTheStateIsTold: the whole directory is gone, and the state is there.
func TestLogBehindTheStateIsTold(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.leased()
	n := c.nodes[0]
	n.halt(true)
	cfg := n.cfg
	cfg.Dir = t.TempDir()
	self := Server{Node: cfg.Node, Store: cfg.Store, Address: cfg.Address, Voter: true}
	if err := Bootstrap(cfg, []Server{self}); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), cfg, Deps{FSM: n.fsm, State: n.fsm, Network: dialer{c.w, n.name}, Fatal: func(error) {}})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("a state ahead of its log: %v, want %v", err, ErrDamaged)
	}
}

// TestJournalOfAnOlderDirectory: a raft.db without one gets one, also where making
// it was interrupted.
func TestJournalOfAnOlderDirectory(t *testing.T) {
	dir := t.TempDir()
	old, err := openBolt(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.StoreLogs(logsOf(1, 4, 1)), old.Close(), os.WriteFile(journalPath(dir, 0), make([]byte, 100), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := reopened(t, dir); len(got) != 4 {
		t.Errorf("%d entries, want 4", len(got))
	}
}

func TestStoreRefusesAGap(t *testing.T) {
	s := openTestLog(t, t.TempDir())
	defer func() { _ = s.Close() }()
	if err := errors.Join(s.StoreLogs(logsOf(5, 2, 1))); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(logsOf(9, 1, 1)); err == nil {
		t.Error("an entry behind a gap was stored")
	}
	if err := s.StoreLogs(logsOf(7, 1, 1)); err != nil {
		t.Error(err)
	}
}

// BenchmarkStore writes packs as a busy leader does, with and without the journal.
func BenchmarkStore(b *testing.B) {
	for name, open := range map[string]func(string) (raft.LogStore, error){
		"journal": func(dir string) (raft.LogStore, error) { return openLog(dir, 8<<20) },
		"bolt":    func(dir string) (raft.LogStore, error) { return openBolt(dir) },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			next := uint64(1)
			for b.Loop() {
				l := &raft.Log{Index: next, Term: 1, Type: raft.LogCommand, Data: make([]byte, 2000)}
				if err := s.StoreLogs([]*raft.Log{l}); err != nil {
					b.Fatal(err)
				}
				next++
			}
			if err := s.(LogStore).Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
