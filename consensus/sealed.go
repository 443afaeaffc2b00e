package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// ErrDamaged: what was read from the disk is not what was written.
var ErrDamaged = errors.New("the log on disk is damaged: replace this node's data directory (mqcluster join --replace) and look for a failing disk")

// sealedStore is raft.db with a checksum on every entry and value: bbolt itself
// has them on its two meta pages only, and would serve what a failing disk made
// of the rest. Entries and numbers without one, of an older version, are taken as
// they are.
type sealedStore struct{ *raftboltdb.BoltStore }

// sealMark begins a checksum.
const sealMark = "#1"

// sealSize is the length of a mark and a checksum.
const sealSize = len(sealMark) + 4

func castagnoli(parts ...[]byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := uint32(0)
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return sum
}

// sealOf is what stands in the extensions of an entry on disk. It covers what
// raft and the state act on.
func sealOf(l *raft.Log) []byte {
	head := make([]byte, 17)
	binary.BigEndian.PutUint64(head, l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return binary.BigEndian.AppendUint32([]byte(sealMark), castagnoli(head, l.Data))
}

// StoreLog implements raft.LogStore.
func (s *sealedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. It leaves the entries as they are: others
// read them at the same time.
func (s *sealedStore) StoreLogs(logs []*raft.Log) error {
	copies, all := make([]raft.Log, len(logs)), make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = sealOf(l)
		all[i] = &copies[i]
	}
	return s.BoltStore.StoreLogs(all)
}

// GetLog implements raft.LogStore.
func (s *sealedStore) GetLog(index uint64, l *raft.Log) error {
	err := s.BoltStore.GetLog(index, l)
	if err != nil {
		if !errors.Is(err, raft.ErrLogNotFound) {
			err = fmt.Errorf("%w (entry %d: %w)", ErrDamaged, index, err)
		}
		return err
	}
	if l.Index != index || len(l.Extensions) > 0 && !bytes.Equal(l.Extensions, sealOf(l)) {
		return fmt.Errorf("%w (entry %d has a wrong checksum)", ErrDamaged, index)
	}
	l.Extensions = nil
	return nil
}

// Set implements raft.StableStore.
func (s *sealedStore) Set(k, v []byte) error {
	b := append(append([]byte(nil), v...), sealMark...)
	return s.BoltStore.Set(k, binary.BigEndian.AppendUint32(b, castagnoli(k, v)))
}

// Get implements raft.StableStore.
func (s *sealedStore) Get(k []byte) ([]byte, error) {
	b, err := s.BoltStore.Get(k)
	if err != nil {
		return nil, err
	}
	return unseal(k, b)
}

// unseal returns the value that was stored under k.
func unseal(k, b []byte) ([]byte, error) {
	if len(b) == 8 {
		return b, nil // a number of an older version
	}
	n := len(b) - sealSize
	if n < 0 || string(b[n:n+len(sealMark)]) != sealMark || binary.BigEndian.Uint32(b[n+len(sealMark):]) != castagnoli(k, b[:n]) {
		return nil, fmt.Errorf("%w (%s has a wrong checksum)", ErrDamaged, k)
	}
	return b[:n], nil
}

// SetUint64 implements raft.StableStore.
func (s *sealedStore) SetUint64(k []byte, v uint64) error {
	return s.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 implements raft.StableStore.
func (s *sealedStore) GetUint64(k []byte) (uint64, error) {
	b, err := s.Get(k)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w (%s has %d bytes)", ErrDamaged, k, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// examine reads all of raft.db before it is used, on a goroutine whose panics and
// faults can be caught: bbolt follows what damaged pages say, and raft panics
// where it cannot read an entry. It takes as long as reading the file.
func examine(path string) (err error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := examinePages(path); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", ErrDamaged, p)
		}
	}()
	s, err := openReadOnly(path)
	if err != nil {
		return err
	}
	return errors.Join(s.examineAll(), s.Close())
}

// openReadOnly leaves the file as it is, and needs no list of its free pages.
func openReadOnly(path string) (*sealedStore, error) {
	db, err := raftboltdb.New(raftboltdb.Options{
		Path: path, BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: time.Second, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &sealedStore{db}, nil
}

func (s *sealedStore) examineAll() error {
	for _, k := range [][]byte{keyTerm, keyVoteTerm, keyVoteCand} {
		if _, err := s.Get(k); err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return err
		}
	}
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	var l raft.Log
	for i := first; i != 0 && i <= last; i++ {
		l = raft.Log{}
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			err = fmt.Errorf("%w (entry %d of %d to %d is missing)", ErrDamaged, i, first, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// examineSnapshots checks that the newest snapshot is there with what raft needs
// of it: raft would pass over one whose description it cannot read, and go on
// with an older one or none.
func examineSnapshots(dir string, list []*raft.SnapshotMeta) error {
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, e := range entries {
		var term, index uint64
		var millis int64
		if _, err := fmt.Sscanf(e.Name(), "%d-%d-%d", &term, &index, &millis); err != nil || filepath.Ext(e.Name()) == ".tmp" {
			continue
		}
		if len(list) == 0 || term > list[0].Term || term == list[0].Term && index > list[0].Index {
			return fmt.Errorf("%w (snapshot %s cannot be read)", ErrDamaged, e.Name())
		}
	}
	for _, m := range list {
		var term, index uint64
		if _, err := fmt.Sscanf(m.ID, "%d-%d-", &term, &index); err != nil || term != m.Term || index != m.Index {
			return fmt.Errorf("%w (snapshot %s says that it is of entry %d in term %d)", ErrDamaged, m.ID, m.Index, m.Term)
		}
	}
	return nil
}
