package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// marker is the file by which the demo knows a directory as its own.
const marker = ".mqcluster-demo"

const markerText = "This directory belongs to mqcluster demo, which empties it at every start.\n"

// workdir is the directory of a demo. It is locked until Close, or the end of
// the process.
type workdir struct {
	path string // absolute
	lock *os.File
}

// openWorkdir makes the directory, or empties it if an earlier demo made it. A
// directory of anybody else is refused.
func openWorkdir(path string) (*workdir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("the working directory is unknown: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("directory %s cannot be made: choose another with --dir: %w", path, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("directory %s cannot be read: choose another with --dir: %w", path, err)
	}
	if len(entries) > 0 {
		info, err := os.Lstat(filepath.Join(path, marker))
		if err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("directory %s was not made by the demo and is left alone: choose another with --dir", path)
		}
	}
	w := &workdir{path: path}
	if err := w.claim(); err != nil {
		return nil, err
	}
	if err := w.empty(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// claim writes the marker and locks it, so that no second demo empties the
// directory of one that runs.
func (w *workdir) claim() error {
	file, err := os.OpenFile(filepath.Join(w.path, marker), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("directory %s cannot be written: choose another with --dir: %w", w.path, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return fmt.Errorf("a demo runs in %s: stop it, or choose another directory with --dir", w.path)
	}
	if err := os.WriteFile(file.Name(), []byte(markerText), 0o600); err != nil {
		file.Close()
		return fmt.Errorf("directory %s cannot be written: choose another with --dir: %w", w.path, err)
	}
	w.lock = file
	return nil
}

// empty removes everything but the marker, and nothing outside the directory
// whatever the names in it point to.
func (w *workdir) empty() error {
	root, err := os.OpenRoot(w.path)
	if err != nil {
		return fmt.Errorf("directory %s cannot be opened: %w", w.path, err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("directory %s cannot be read: %w", w.path, err)
	}
	for _, entry := range entries {
		if entry.Name() == marker {
			continue
		}
		if err := root.RemoveAll(entry.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("what an earlier demo left in %s cannot be removed: remove it by hand: %w", w.path, err)
		}
	}
	return nil
}

// join returns the path of something in the directory.
func (w *workdir) join(elem ...string) string {
	return filepath.Join(append([]string{w.path}, elem...)...)
}

// Close lets another demo have the directory. What is in it stays, for whoever
// wants to read the logs.
func (w *workdir) Close() error {
	if w.lock == nil {
		return nil
	}
	err := w.lock.Close()
	w.lock = nil
	return err
}

// shown is a path as a user would type it: relative where that is shorter.
func shown(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(here, path)
	if err != nil || len(relative) >= len(path) {
		return path
	}
	return relative
}

// typed is shown for a shell.
func typed(path string) string {
	path = shown(path)
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
