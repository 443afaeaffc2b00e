package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mqcluster/mqcluster/fsm"
)

// stateDir is where a node keeps its state, on its disk.
const stateDir = "state"

// image is everything in a state's store, in the order of keys.
type image struct {
	whose   string
	applied uint64
	keys    []string
	values  []string
}

// readImage reads the store in dir.
func readImage(fs vfs.FS, dir, whose string) (_ *image, err error) {
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, ReadOnly: true, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
	if err != nil {
		return nil, fmt.Errorf("open the state of %s: %w", whose, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	it, err := db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	im := &image{whose: whose}
	for ok := it.First(); ok; ok = it.Next() {
		im.keys = append(im.keys, string(it.Key()))
		im.values = append(im.values, string(it.Value()))
		if string(it.Key()) == "Mapplied" {
			im.applied = binary.BigEndian.Uint64(it.Value())
		}
	}
	return im, it.Close()
}

// imageOf reads the state that is in force on a disk, nil if there is none yet.
func imageOf(d *disk, whose string) (*image, error) {
	f, err := d.fs.Open(path.Join(stateDir, "CURRENT"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	name, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	dir := path.Join(stateDir, string(name))
	if _, err := d.fs.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return readImage(d.fs, dir, whose)
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// oracle is a state that applies what the nodes have agreed on, one entry after
// the other, and was never stopped, snapshotted or cut off.
type oracle struct {
	fs    *vfs.MemFS
	store *fsm.Store
}

func openOracle() (*oracle, error) {
	o := &oracle{fs: vfs.NewMem()}
	var err error
	o.store, err = fsm.Open(context.Background(), fsm.Config{
		Dir: stateDir, Node: "oracle", FS: o.fs, CacheBytes: 1 << 20, MemTableBytes: 4 << 20, KeepDead: true,
	}, fsm.Deps{})
	return o, err
}

// at returns the state after the entry at index.
func (o *oracle) at(t *trace, index uint64) (*image, error) {
	for _, l := range t.upTo(o.store.AppliedIndex(), index) {
		o.store.Apply(l)
	}
	snap, err := o.store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Release()
	return readImage(o.fs, path.Join(stateDir, fmt.Sprintf("snapshot-%d", o.store.AppliedIndex())), "the oracle")
}

// judge compares images of nodes with the oracle's at the same index.
func (t *trace) judge(images []*image, keepDead bool) (err error) {
	slices.SortStableFunc(images, func(a, b *image) int { return int(a.applied) - int(b.applied) })
	o, err := openOracle()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.store.Close()) }()
	var want *image
	for _, im := range images {
		if want == nil || want.applied != im.applied {
			if want, err = o.at(t, im.applied); err != nil {
				return err
			}
			if want.applied != im.applied {
				return fmt.Errorf("%s is at index %d, which nobody was seen to apply (the newest is %d)", im.whose, im.applied, want.applied)
			}
		}
		if err := compare(want, im, keepDead); err != nil {
			return fmt.Errorf("the state of %s at index %d is not what the log makes: %w", im.whose, im.applied, err)
		}
	}
	return nil
}

// collectable tells of keys that each node deletes when it likes, once nothing
// reads them any more. The tallies in postings are each node's own, too: they go on
// from the posting before, which after a restart may be an older one.
func collectable(key string) bool { return key[0] == 'i' || key[0] == 'm' }

func compare(want, got *image, keepDead bool) error {
	have := make(map[string]string, len(got.keys))
	for i, k := range got.keys {
		have[k] = got.values[i]
	}
	for i, k := range want.keys {
		v, ok := have[k]
		delete(have, k)
		switch {
		case !ok && !keepDead && collectable(k):
		case !ok:
			return fmt.Errorf("it lacks %q = %x", k, want.values[i])
		case k[0] == 'i': // a tally
		case v != want.values[i]:
			return fmt.Errorf("%q is %x, not %x", k, v, want.values[i])
		}
	}
	for k, v := range have {
		return fmt.Errorf("it has %q = %x, which nobody wrote", k, bytes.ToUpper([]byte(v)))
	}
	return nil
}
