package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// WriteFile makes the file at path out of what write writes, or no file at all: it
// has its name only when it is whole and on disk, and one that was there before
// stays until then. The directory is synced before it returns the size in bytes.
func WriteFile(path string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+partial)
	if err != nil {
		return 0, fmt.Errorf("make the backup's file: %w", err)
	}
	defer func() {
		if err != nil {
			// Once it has its name there is nothing to remove, and it is whole.
			_, _ = f.Close(), os.Remove(f.Name())
			err = remedy(err, path)
		}
	}()
	if err := write(f); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	// In this order: a name for what is on disk, and then the name on disk.
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("sync the backup: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, fmt.Errorf("name the backup: %w", err)
	}
	if err := errors.Join(f.Close(), syncDir(filepath.Dir(path))); err != nil {
		return 0, fmt.Errorf("sync the backup's directory: %w", err)
	}
	return info.Size(), nil
}

// partial ends the names of files that are being written.
const partial = ".partial"

func remedy(err error, path string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("there is no room for the backup in %s: make room or choose another place; nothing of it was left there: %w", filepath.Dir(path), err)
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemovePartial removes what writers of files in dir whose names begin with prefix
// left when their process was killed. No such writer may be at work.
func RemovePartial(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for unfinished backups: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "."+prefix) || !strings.HasSuffix(e.Name(), partial) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove an unfinished backup: %w", err)
		}
	}
	return nil
}
