package node

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// spaceOf asks for the volume that dir is on: what this process may still write,
// and all of it.
func spaceOf(dir string) func() (free, total uint64, err error) {
	return func() (uint64, uint64, error) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return 0, 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
		}
		unit := uint64(s.Bsize)
		return s.Bavail * unit, s.Blocks * unit, nil
	}
}
