package fsm

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// strictFS makes two things sure that Pebble leaves open.
//
// An error of a sync halts the store, whoever asked for it: the kernel may have
// dropped what was to be written, and the next sync would not tell.
//
// Pebble names its newest manifest by a marker file. It syncs the directory
// after it has made the manifest and the marker and removed the older marker;
// where a file system keeps the entries of a directory in another order than
// they were made, a power loss in between leaves a marker without its manifest,
// or none. So each step is synced before the next.
type strictFS struct {
	vfs.FS
	halt func(what string, err error)
}

// Unwrap implements vfs.FS.
func (s strictFS) Unwrap() vfs.FS { return s.FS }

func (s strictFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return strictFile{f, s.halt}, nil
}

// Create implements vfs.FS.
func (s strictFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.before(name); err != nil {
		return nil, err
	}
	return s.wrap(s.FS.Create(name, c))
}

// Remove implements vfs.FS.
func (s strictFS) Remove(name string) error {
	if err := s.before(name); err != nil {
		return err
	}
	return s.FS.Remove(name)
}

// OpenReadWrite implements vfs.FS.
func (s strictFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return s.wrap(s.FS.OpenReadWrite(name, c, o...))
}

// OpenDir implements vfs.FS.
func (s strictFS) OpenDir(name string) (vfs.File, error) { return s.wrap(s.FS.OpenDir(name)) }

// ReuseForWrite implements vfs.FS.
func (s strictFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.wrap(s.FS.ReuseForWrite(from, to, c))
}

// before syncs the directory of a marker that is about to come or go.
func (s strictFS) before(name string) error {
	if !strings.HasPrefix(filepath.Base(name), "marker.") {
		return nil
	}
	return syncDir(s, filepath.Dir(name))
}

// syncDir makes the entries of a directory durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type strictFile struct {
	vfs.File
	halt func(what string, err error)
}

func (f strictFile) check(err error) error {
	if err != nil {
		f.halt("write the state", fmt.Errorf("sync: %w", err))
	}
	return err
}

// Sync implements vfs.File.
func (f strictFile) Sync() error { return f.check(f.File.Sync()) }

// SyncData implements vfs.File.
func (f strictFile) SyncData() error { return f.check(f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f strictFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	return full, f.check(err)
}
