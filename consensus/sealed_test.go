package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// makeLog writes a raft.db with entries of several sizes, some deleted, and a
// vote, and returns what it holds.
func makeLog(t *testing.T, dir string) []string {
	t.Helper()
	s, err := openBolt(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 60; i += 3 {
		var logs []*raft.Log
		for j := i; j < i+3; j++ {
			logs = append(logs, &raft.Log{Index: j, Term: 1 + j/20, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(j)}, int(j*j))})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		s.DeleteRange(1, 10), s.SetUint64(keyTerm, 4), s.SetUint64(keyVoteTerm, 4), s.Set(keyVoteCand, []byte("n2/store@host:1")),
	); err != nil {
		t.Fatal(err)
	}
	held, err := contents(s)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return held
}

func contents(s *sealedStore) (out []string, err error) {
	term, err1 := s.GetUint64(keyTerm)
	voted, err2 := s.GetUint64(keyVoteTerm)
	cand, err3 := s.Get(keyVoteCand)
	first, err4 := s.FirstIndex()
	last, err5 := s.LastIndex()
	out = append(out, fmt.Sprint(term, voted, string(cand), first, last))
	err = errors.Join(err1, err2, err3, err4, err5)
	for i := first; err == nil && i <= last; i++ {
		var l raft.Log
		err = s.GetLog(i, &l)
		out = append(out, fmt.Sprint(l.Index, l.Term, l.Type, l.Data, l.Extensions))
	}
	return out, err
}

// TestDamagedLog flips bits of raft.db: either the file is refused, with the
// sentence, or it holds what it held. Every byte that matters is in the first
// pages, in the heads of others, and in samples of the rest.
func TestDamagedLog(t *testing.T) {
	good := t.TempDir()
	want := makeLog(t, good)
	data, err := os.ReadFile(filepath.Join(good, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	refused, harmless := 0, 0
	for at := range data {
		if in := at % page; at >= 2*page && in >= 16 && in%997 != 0 || at < 2*page && in >= 16+64 && in%512 != 0 {
			continue
		}
		dir := t.TempDir()
		bad := bytes.Clone(data)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(filepath.Join(dir, "raft.db"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(bad[at/page*page:at/page*page+page], make([]byte, page)) {
			continue
		}
		switch err := examine(filepath.Join(dir, "raft.db")); {
		case errors.Is(err, ErrDamaged):
			refused++
		case err != nil:
			t.Errorf("byte %d of page %d: an error without the sentence: %v", at%page, at/page, err)
		default:
			harmless++
			if got := reread(t, dir); got != nil && fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("byte %d of page %d: taken, and holds something else", at%page, at/page)
			}
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d flips refused, %d harmless", refused, harmless)
	if refused < 50 {
		t.Errorf("only %d flips were refused", refused)
	}
}

// reread reads a raft.db as examine does, without bbolt's free list.
func reread(t *testing.T, dir string) []string {
	t.Helper()
	s, err := openReadOnly(filepath.Join(dir, "raft.db"))
	if err != nil {
		t.Error(err)
		return nil
	}
	got, err := contents(s)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Error(err)
	}
	return got
}

func TestDamagedEntryAtRunTimeIsFatal(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.leased()
	n := c.nodes[0]
	s := n.store.LogStore.(*journaledStore)
	var l raft.Log
	if err := errors.Join(s.drain(), s.GetLog(2, &l)); err != nil {
		t.Fatal(err)
	}
	l.Data = append([]byte("x"), l.Data...)
	l.Extensions = append([]byte(sealMark), 1, 2, 3, 4)
	if err := s.BoltStore.StoreLog(&l); err != nil {
		t.Fatal(err)
	}
	if err := n.store.GetLog(2, &raft.Log{}); !errors.Is(err, ErrDamaged) || n.fatal.Load() == nil {
		t.Errorf("a damaged entry: %v, fatal %v", err, n.fatal.Load())
	}
}

func TestDamagedSnapshot(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"its data":       func(dir string) error { return flip(filepath.Join(dir, "state.bin"), 10) },
		"its braces":     func(dir string) error { return flip(filepath.Join(dir, "meta.json"), 0) },
		"its index":      func(dir string) error { return replace(filepath.Join(dir, "meta.json"), `"Index":`, `"Index":1`) },
		"its term":       func(dir string) error { return replace(filepath.Join(dir, "meta.json"), `"Term":`, `"Term":1`) },
		"no description": func(dir string) error { return os.Remove(filepath.Join(dir, "meta.json")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			c.leased()
			n := c.nodes[0]
			for i := range 20 {
				n.ack(t, "pub", i)
			}
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
			n.halt(true)
			dirs, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*-*-*"))
			if err != nil || len(dirs) != 1 {
				t.Fatal(dirs, err)
			}
			if err := damage(dirs[0]); err != nil {
				t.Fatal(err)
			}
			f := newFakeFSM(n.name) // a state older than the snapshot
			_, err = Open(t.Context(), n.cfg, Deps{FSM: f, State: f, Network: dialer{c.w, n.name}, Fatal: func(error) {}})
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("opened with %v", err)
			}
		})
	}
}

func flip(path string, at int) error {
	b, err := os.ReadFile(path)
	if err == nil {
		b[at] ^= 1
		err = os.WriteFile(path, b, 0o600)
	}
	return err
}

func replace(path, old, new string) error {
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.Replace(b, []byte(old), []byte(new), 1), 0o600)
	}
	return err
}

// TestWholeLogIsNotRefused: what bbolt writes, however it was used, passes.
func TestWholeLogIsNotRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	rng := rand.New(rand.NewPCG(1, 2))
	s, err := openBolt(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, next := uint64(1), uint64(1)
	for round := range 150 {
		var logs []*raft.Log
		for range 1 + rng.IntN(40) {
			// Around whole pages, too.
			size := []int{rng.IntN(200), rng.IntN(5000), 4096*(1+rng.IntN(4)) - rng.IntN(200), rng.IntN(70_000)}[rng.IntN(4)]
			logs = append(logs, &raft.Log{Index: next, Term: 1, Data: make([]byte, size)})
			next++
		}
		err := errors.Join(s.StoreLogs(logs), s.SetUint64(keyTerm, uint64(round)))
		switch {
		case err == nil && round%5 == 1 && next > first+60:
			err = s.DeleteRange(first, next-40)
			first = next - 39
		case err == nil && round%7 == 3:
			from := max(first+1, next-uint64(1+rng.IntN(30)))
			if from < next {
				err = s.DeleteRange(from, next-1)
				next = from
			}
		case err == nil && round%50 == 49:
			err = s.DeleteRange(first, next-1)
			first = next
		}
		if err != nil {
			t.Fatal(err)
		}
		if round%3 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = openBolt(dir); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		} else if err := examinePages(path); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
