package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// boltPages reads the pages of raft.db beside bbolt, which believes their heads:
// a page that says that it has fewer elements than were written would be a log
// without its end. What bbolt writes leaves no gaps, so that a page can be checked
// against itself: the data of its first element begins where the elements end, and
// that of each next one where the data of the one before does.
type boltPages struct {
	f    io.ReaderAt
	page int64
}

// The layout of bbolt's pages: a header of id, flags, count and overflow, then
// elements of one size, then their keys and values.
const (
	boltHeader  = 16
	boltElement = 16
	boltBranch  = 0x01
	boltLeaf    = 0x02
	boltBucket  = 0x01 // a flag of a leaf's element
	boltMagic   = 0xED0CDAED
	boltSummed  = 56 // bytes of a meta page that the checksum behind them covers
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w (%w)", ErrDamaged, fmt.Errorf(format, args...))
}

// examinePages checks both meta pages and all that the newer one leads to.
//
// Where the newer one does not hold, bbolt would go on with the older, which is
// the log without its last write: a vote or an entry that others rely on. A write
// of one is a single sector, so that a loss of power leaves it old or new.
func examinePages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	b := boltPages{f: f, page: int64(os.Getpagesize())}
	var root, newest uint64
	for n := range int64(2) {
		m := make([]byte, boltSummed+8)
		if _, err := f.ReadAt(m, n*b.page+boltHeader); err != nil {
			if errors.Is(err, io.EOF) && n == 0 {
				return nil // made and never written
			}
			return damaged("meta page %d: %w", n, err)
		}
		sum := fnv.New64a()
		_, _ = sum.Write(m[:boltSummed]) // never fails
		if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint64(m[boltSummed:]) != sum.Sum64() {
			return damaged("meta page %d has a wrong checksum", n)
		}
		if tx := binary.NativeEndian.Uint64(m[48:]); tx >= newest {
			root, newest = binary.NativeEndian.Uint64(m[16:]), tx
		}
	}
	if newest <= 1 {
		return nil // as bbolt makes it, with an empty root
	}
	return b.walk(root, 0)
}

// boltItem is an element of a page.
type boltItem struct {
	bucket     bool
	key, value []byte
	child      uint64
}

// walk checks a page and those below it. bbolt's trees are a few levels deep.
func (b boltPages) walk(id uint64, depth int) error {
	if depth > 32 {
		return damaged("the pages of the log lead to each other")
	}
	buf, err := b.read(id)
	if err != nil {
		return err
	}
	items, branch, err := pageItems(buf, id, b.page)
	if err != nil {
		return err
	}
	for i, it := range items {
		switch {
		case i > 0 && bytes.Compare(items[i-1].key, it.key) >= 0:
			err = damaged("the keys of page %d are out of order", id)
		case branch:
			err = b.walk(it.child, depth+1)
		case it.bucket:
			err = b.bucket(it, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks what a bucket's root leads to: a page, or one within the value.
func (b boltPages) bucket(it boltItem, depth int) error {
	if len(it.value) < 16 || string(it.key) != "logs" && string(it.key) != "conf" {
		return damaged("there is a bucket %q", it.key)
	}
	if root := binary.NativeEndian.Uint64(it.value); root != 0 {
		return b.walk(root, depth+1)
	}
	items, _, err := pageItems(it.value[16:], 0, 0)
	if err == nil && string(it.key) == "conf" {
		for _, v := range items {
			if _, err := unseal(v.key, v.value); err != nil {
				return err
			}
		}
	}
	return err
}

func (b boltPages) read(id uint64) ([]byte, error) {
	head := make([]byte, boltHeader)
	if id < 2 || id > 1<<40 {
		return nil, damaged("there is no page %d", id)
	}
	if _, err := b.f.ReadAt(head, int64(id)*b.page); err != nil {
		return nil, damaged("page %d: %w", id, err)
	}
	pages := int64(binary.NativeEndian.Uint32(head[12:])) + 1
	if pages*b.page > 1<<30 {
		return nil, damaged("page %d has %d more", id, pages-1)
	}
	buf := make([]byte, pages*b.page)
	if _, err := b.f.ReadAt(buf, int64(id)*b.page); err != nil {
		return nil, damaged("page %d: %w", id, err)
	}
	return buf, nil
}

// pageItems checks one page against itself. size is that of a page, 0 for one
// within a value.
func pageItems(p []byte, id uint64, size int64) (items []boltItem, branch bool, err error) {
	if len(p) < boltHeader {
		return nil, false, damaged("page %d is cut short", id)
	}
	flags, count := binary.NativeEndian.Uint16(p[8:]), int(binary.NativeEndian.Uint16(p[10:]))
	branch = flags == boltBranch
	end := boltHeader + count*boltElement
	if got := binary.NativeEndian.Uint64(p); got != id || !branch && flags != boltLeaf || end > len(p) {
		return nil, false, damaged("page %d has a wrong head", id)
	}
	for i := range count {
		at := boltHeader + i*boltElement
		e := p[at : at+boltElement]
		var it boltItem
		// A branch: position, length of the key, page. A leaf: flags, position,
		// lengths of key and value.
		pos, key, value := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), uint32(0)
		if branch {
			it.child = binary.NativeEndian.Uint64(e[8:])
		} else {
			it.bucket = binary.NativeEndian.Uint32(e) == boltBucket
			if f := binary.NativeEndian.Uint32(e); f > boltBucket {
				return nil, false, damaged("page %d has an element of kind %d", id, f)
			}
			pos, key, value = key, binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		}
		from := int64(at) + int64(pos)
		to := from + int64(key) + int64(value)
		if from != int64(end) || to > int64(len(p)) {
			return nil, false, damaged("element %d of page %d is not where it was written", i, id)
		}
		it.key, it.value = p[from:from+int64(key)], p[from+int64(key):to]
		items, end = append(items, it), int(to)
	}
	// A page of its own is never empty, and has no more pages than it needs; one
	// within a value ends with it.
	if size > 0 && (count == 0 || int64(len(p))-int64(end) > size || int64(end) > int64(len(p))) || size == 0 && end != len(p) {
		return nil, false, damaged("page %d has another length than what it holds", id)
	}
	return items, branch, nil
}
