package fsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// Inspection is what the state of a stopped node says.
type Inspection struct {
	Applied  uint64 // raft index of the last entry in the state that is on disk
	Stamp    int64  // its log time, ms
	Members  []*logpb.Member
	Settings map[string]string
}

// Inspect reads the state in dir without changing it. A directory without a state
// is an empty one. The node must not run.
func Inspect(_ context.Context, dir string) (in Inspection, err error) {
	in.Settings = map[string]string{}
	current, err := os.ReadFile(filepath.Join(dir, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		return in, nil
	}
	if err != nil {
		return in, fmt.Errorf("read the state's %s file: %w", currentFile, err)
	}
	path := filepath.Join(dir, string(current))
	if found, err := pebble.Peek(path, vfs.Default); err != nil || !found.Exists {
		return in, err
	}
	db, err := pebble.Open(path, &pebble.Options{ReadOnly: true, DisableWAL: true, Logger: silent{}})
	if err != nil {
		return in, fmt.Errorf("open the state: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var stamp uint64
	err = errors.Join(
		readUint64(db, metaApplied, &in.Applied),
		readUint64(db, metaStamp, &stamp),
		into(db, keyMember, func(_ string, r *logpb.Member) { in.Members = append(in.Members, r) }),
		each(db, keySetting, func(k, v []byte) error { in.Settings[string(k)] = string(v); return nil }),
	)
	in.Stamp = int64(stamp)
	return in, err
}

// silent is Pebble's logger of a look that has nothing to say.
type silent struct{}

// Infof implements pebble.Logger.
func (silent) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (silent) Errorf(string, ...any) {}

// Fatalf implements pebble.Logger: it does not return.
func (silent) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
