package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestDamagedState flips bits of every file of a closed state. Either it is told,
// at the start or by the read that meets it, with the sentence where it is a
// checksum that tells, or the state and the log come to what they came to: it is
// never another one.
func TestDamagedState(t *testing.T) {
	c := newScript(t)
	const dir = "state"
	build := func() *vfs.MemFS {
		fs := vfs.NewMem()
		s, err := Open(t.Context(), Config{Dir: dir, Node: "a", FS: fs, KeepDead: true}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		s.ApplyBatch(c.logs[:len(c.logs)/2])
		if snap, err := s.Snapshot(); err != nil {
			t.Fatal(err)
		} else {
			snap.Release()
		}
		s.ApplyBatch(c.logs[len(c.logs)/2 : len(c.logs)-2])
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return fs
	}
	var paths []string
	fs := build()
	for _, d := range []string{dir, dir + "/" + generationName(0)} {
		names, err := fs.List(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if info, err := fs.Stat(d + "/" + n); err == nil && !info.IsDir() && info.Size() > 0 {
				paths = append(paths, d+"/"+n)
			}
		}
	}
	slices.Sort(paths)
	rng := rand.New(rand.NewPCG(3, 4))
	told, harmless := 0, 0
	for _, path := range paths {
		for range 12 {
			fs := build()
			what, err := damage(fs, path, rng)
			if err != nil {
				// Its name differs from one build to the next.
				continue
			}
			got, err := outcome(t, c, fs)
			switch {
			case err != nil && pebble.IsCorruptionError(err) && !errors.Is(err, ErrCorrupt):
				t.Errorf("%s: told without the sentence: %v", what, err)
			case err != nil:
				told++
			default:
				harmless++
				same(t, what, c.want, got)
			}
		}
	}
	t.Logf("%d files, %d flips told, %d harmless", len(paths), told, harmless)
	if told < 10 {
		t.Errorf("only %d flips were told", told)
	}
}

func damage(fs *vfs.MemFS, path string, rng *rand.Rand) (what string, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	at := rng.IntN(len(data))
	data[at] ^= 1 << rng.IntN(8)
	w, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return "", err
	}
	_, err = w.Write(data)
	return fmt.Sprintf("byte %d of %s", at, path), errors.Join(err, w.Close())
}

// outcome opens the state, feeds it the log and reads everything.
func outcome(t *testing.T, c *script, fs vfs.FS) (got []string, err error) {
	type result struct {
		got []string
		err error
	}
	done := make(chan result, 2)
	go func() {
		s, err := Open(t.Context(), Config{Dir: "state", Node: "a", FS: fs, KeepDead: true, CacheBytes: 1 << 20, MemTableBytes: 256 << 10}, Deps{
			Halt: func(err error) { done <- result{err: err}; select {} },
		})
		if err != nil {
			done <- result{err: err}
			return
		}
		s.ApplyBatch(c.logs)
		it, err := s.db.Load().db.NewIter(&pebble.IterOptions{})
		if err != nil {
			done <- result{err: remedy(err)}
			return
		}
		var out []string
		for ok := it.First(); ok; ok = it.Next() {
			v := it.Value()
			if it.Key()[0] == keyPosting {
				v = nil // as in dump
			}
			out = append(out, fmt.Sprintf("%q = %q", it.Key(), v))
		}
		done <- result{out, remedy(errors.Join(it.Close(), s.Close()))}
	}()
	r := <-done
	return r.got, r.err
}

func TestLostOrWrongCurrent(t *testing.T) {
	c := newScript(t)
	for what, breakIt := range map[string]func(fs *vfs.MemFS) error{
		"gone":          func(fs *vfs.MemFS) error { return fs.Remove("state/CURRENT") },
		"another state": func(fs *vfs.MemFS) error { return put(fs, "state/CURRENT", "state-7") },
		"no state":      func(fs *vfs.MemFS) error { return put(fs, "state/CURRENT", "state+1") },
		"empty":         func(fs *vfs.MemFS) error { return put(fs, "state/CURRENT", "") },
	} {
		fs := vfs.NewMem()
		s, err := Open(t.Context(), Config{Dir: "state", Node: "a", FS: fs}, Deps{})
		if err == nil {
			err = s.Restore(io.NopCloser(bytes.NewReader(c.install))) // state-1
		}
		if err := errors.Join(err, s.Close(), breakIt(fs)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{Dir: "state", Node: "a", FS: fs}, Deps{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("CURRENT %s: opened with %v", what, err)
		}
		if _, err := fs.Stat("state/state-1"); err != nil {
			t.Errorf("CURRENT %s: the state was removed: %v", what, err)
		}
	}
}

func put(fs *vfs.MemFS, path, text string) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	return errors.Join(err, f.Close())
}
