package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// dataDir is where everything of a node is.
type dataDir string

func (d dataDir) tls() string    { return filepath.Join(string(d), "tls") }
func (d dataDir) ca() string     { return filepath.Join(string(d), "ca") }
func (d dataDir) caNext() string { return filepath.Join(string(d), "ca-next") } // of a rotation
func (d dataDir) state() string  { return filepath.Join(string(d), "state") }
func (d dataDir) raft() string   { return filepath.Join(string(d), "raft") }

// marker is written last by init and join: the directory is complete.
func (d dataDir) marker() string { return filepath.Join(string(d), "node.json") }

func (d dataDir) initialised() bool {
	_, err := os.Stat(d.marker())
	return err == nil
}

// marker is what init and join leave in the data directory.
type marker struct {
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	Node        string `json:"node"`
	// Store names this disk: a node that comes back with an empty one is another
	// voter to raft.
	Store string `json:"store"`
	// Peers are mesh addresses by node id as of the join, until the node's own
	// copy of the state knows better.
	Peers map[string]string `json:"peers,omitempty"`
	// Generation of the cluster: see consensus.Config. Init leaves it empty.
	Generation string `json:"generation,omitempty"`
	// Recovering: a recover of the node has begun and not ended.
	Recovering bool `json:"recovering,omitempty"`
}

func (d dataDir) read() (marker, error) {
	var m marker
	data, err := os.ReadFile(d.marker())
	if err != nil {
		return m, fmt.Errorf("read the node's record: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("the node's record %s is damaged: %w", d.marker(), err)
	}
	return m, nil
}

// write is durable on return.
func (d dataDir) write(m marker) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.marker() + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the node's record: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, d.marker())
	}
	if err == nil {
		err = syncDir(string(d))
	}
	if err != nil {
		return fmt.Errorf("write the node's record: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// prepare makes the directory, and empties it of what an init or join that did
// not finish has left.
func (d dataDir) prepare() error {
	if err := d.checkOwner(); err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make the data directory %s: %w; make it, or choose another with --data-dir", d, err)
	}
	for _, part := range []string{d.raft(), d.state()} {
		if err := os.RemoveAll(part); err != nil {
			return fmt.Errorf("remove what an unfinished start left: %w", err)
		}
	}
	return nil
}

// checkOwner keeps root from leaving files that the node's own user may not open.
func (d dataDir) checkOwner() error {
	info, err := os.Stat(string(d))
	if err != nil {
		return nil // it is made, or missed, by whoever asks
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || stat.Uid == 0 {
		return nil
	}
	owner := strconv.FormatUint(uint64(stat.Uid), 10)
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	return fmt.Errorf("the data directory %s belongs to user %s, who could not read what root writes: run this command as that user (runuser -u %s -- mqcluster …)", d, owner, owner)
}

// lock keeps a second process out of the directory.
func (d dataDir) lock() (unlock func() error, err error) {
	if err := d.checkOwner(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(string(d), "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("the data directory %s is in use by another mqcluster process: stop it first", d)
	}
	return f.Close, nil
}

// randomID is 64 random bits in hex.
func randomID() string { return hex.EncodeToString(randomBytes(8)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
