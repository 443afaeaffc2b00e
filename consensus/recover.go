package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

// The names under which raft keeps term and vote.
var (
	keyTerm     = []byte("CurrentTerm")
	keyVoteTerm = []byte("LastVoteTerm")
	keyVoteCand = []byte("LastVoteCand")
)

// ErrNoLog: the directory holds no log.
var ErrNoLog = errors.New("there is no log in the data directory")

// Inspection is what the log of a stopped node says.
type Inspection struct {
	// Term is raft's current term, VoteTerm and VotedFor its last vote.
	Term     uint64 `json:"term"`
	VoteTerm uint64 `json:"vote_term"`
	VotedFor string `json:"voted_for,omitempty"`
	// LastIndex and LastTerm are those of the last entry, or of the snapshot if
	// nothing follows it. Of two survivors the one with the greater (LastTerm,
	// LastIndex) has everything that the other has.
	FirstIndex    uint64 `json:"first_index"`
	LastIndex     uint64 `json:"last_index"`
	LastTerm      uint64 `json:"last_term"`
	SnapshotIndex uint64 `json:"snapshot_index"`
	// Stamp is the log time of the last entry that has one, in ms; 0: none in the
	// log that is left.
	Stamp int64 `json:"stamp"`
	// Written is when the file of the log was last written.
	Written time.Time `json:"written"`
	// Servers are the group by the newest configuration in the log.
	Servers []Server `json:"servers"`

	snapshotTerm uint64
	present      bool
}

// Inspect reads the log in dir without changing it. The node must not run.
func Inspect(dir string) (Inspection, error) {
	path := filepath.Join(dir, "raft.db")
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return Inspection{}, ErrNoLog
	}
	if err != nil {
		return Inspection{}, fmt.Errorf("read the log: %w", err)
	}
	db, err := readLog(dir)
	if err != nil {
		return Inspection{}, err
	}
	in, err := inspect(db, dir)
	in.Written = info.ModTime()
	for n := range 2 {
		if info, err := os.Stat(journalPath(dir, n)); err == nil && info.ModTime().After(in.Written) {
			in.Written = info.ModTime()
		}
	}
	return in, errors.Join(err, db.Close())
}

func inspect(db LogStore, dir string) (in Inspection, err error) {
	if in.Term, err = number(db, keyTerm); err != nil {
		return in, err
	}
	if in.VoteTerm, err = number(db, keyVoteTerm); err != nil {
		return in, err
	}
	cand, err := db.Get(keyVoteCand)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return in, fmt.Errorf("read the vote: %w", err)
	}
	in.VotedFor, _, _ = splitAddress(raft.ServerAddress(cand))
	if in.FirstIndex, err = db.FirstIndex(); err != nil {
		return in, fmt.Errorf("read the log: %w", err)
	}
	last, err := db.LastIndex()
	if err != nil {
		return in, fmt.Errorf("read the log: %w", err)
	}
	conf, err := in.fromSnapshot(dir)
	if err != nil {
		return in, err
	}
	for i := max(in.FirstIndex, in.SnapshotIndex+1); i != 0 && i <= last; i++ {
		var l raft.Log
		if err := db.GetLog(i, &l); err != nil {
			return in, fmt.Errorf("read log entry %d: %w", i, err)
		}
		in.LastIndex, in.LastTerm = l.Index, l.Term
		switch l.Type {
		case raft.LogConfiguration:
			conf = raft.DecodeConfiguration(l.Data)
		case raft.LogCommand:
			if stamp := stampOf(l.Data); stamp > in.Stamp {
				in.Stamp = stamp
			}
		}
	}
	in.Servers = serversOf(conf)
	in.present = in.LastIndex > 0
	return in, nil
}

// fromSnapshot begins with what the newest snapshot says.
func (in *Inspection) fromSnapshot(dir string) (raft.Configuration, error) {
	if _, err := os.Stat(filepath.Join(dir, "snapshots")); errors.Is(err, os.ErrNotExist) {
		return raft.Configuration{}, nil
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, hclogDiscard())
	if err != nil {
		return raft.Configuration{}, fmt.Errorf("open the snapshots: %w", err)
	}
	list, err := snaps.List()
	if err != nil {
		return raft.Configuration{}, fmt.Errorf("list the snapshots: %w", err)
	}
	if len(list) == 0 {
		return raft.Configuration{}, nil
	}
	in.SnapshotIndex, in.snapshotTerm = list[0].Index, list[0].Term
	in.LastIndex, in.LastTerm = list[0].Index, list[0].Term
	return list[0].Configuration, nil
}

// stampOf is the log time of an entry, 0 if it cannot be read: people want to
// know it, nothing depends on it.
func stampOf(data []byte) int64 {
	var e logpb.Entry
	if proto.Unmarshal(data, &e) != nil {
		return 0
	}
	return e.Stamp
}

func number(db raft.StableStore, key []byte) (uint64, error) {
	n, err := db.GetUint64(key)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	return n, nil
}

func serversOf(conf raft.Configuration) (out []Server) {
	for _, s := range conf.Servers {
		node, store := splitID(s.ID)
		_, _, address := splitAddress(s.Address)
		out = append(out, Server{Node: node, Store: store, Address: address, Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// Recover makes this node the only member of its raft group, by an entry of its
// own at the end of the log: every entry before it stays and is committed when the
// node is opened, and the state stays what it is. Raft's own RecoverCluster would
// put a snapshot of a machine in the place of both. It is durable on return, does
// nothing where the node is alone already, and the node must not run.
//
// What the lost members acknowledged among themselves behind the end of this log
// is gone. Entries at its end that were never acknowledged come to count.
//
// The caller has given the group a new Config.Generation before, so that no server
// of the old one is listened to.
func Recover(cfg Config) (err error) {
	if err := cfg.complete(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "raft.db")); err != nil {
		return ErrNoLog
	}
	db, err := openLog(cfg.Dir, cfg.JournalBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	in, err := inspect(db, cfg.Dir)
	if err != nil {
		return err
	}
	if !in.present {
		return ErrNoLog
	}
	self := Server{Node: cfg.Node, Store: cfg.Store, Address: cfg.Address, Voter: true}
	if len(in.Servers) == 1 && in.Servers[0] == self {
		return nil
	}
	// A term of its own: no other server can have an entry with this index and term,
	// and none has a vote in it.
	term := max(in.Term, in.LastTerm) + 1
	if err := db.SetUint64(keyTerm, term); err != nil {
		return fmt.Errorf("store the term: %w", err)
	}
	conf := raft.Configuration{Servers: []raft.Server{{
		ID: serverID(self.Node, self.Store), Address: serverAddress(self.Node, self.Store, self.Address), Suffrage: raft.Voter,
	}}}
	err = db.StoreLog(&raft.Log{
		Index: in.LastIndex + 1, Term: term, Type: raft.LogConfiguration,
		Data: raft.EncodeConfiguration(conf), AppendedAt: time.Now(),
	})
	if err != nil {
		return fmt.Errorf("store the new configuration: %w", err)
	}
	return nil
}
