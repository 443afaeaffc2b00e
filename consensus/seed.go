package consensus

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/raft"
)

// seedTerm is the term of a snapshot that no log led to. The first leader's is
// greater.
const seedTerm = 1

// Seed is Bootstrap for a group that begins with a state instead of an empty one:
// its log begins behind index, and what came before is a snapshot that write
// writes. The state that the group is opened with is of that index. It is durable
// on return.
func Seed(cfg Config, servers []Server, index uint64, write func(raft.SnapshotSink) error) (err error) {
	if err := cfg.complete(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create the raft directory: %w", err)
	}
	db, err := openBolt(cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, 2, hclogDiscard())
	if err != nil {
		return fmt.Errorf("open the snapshots: %w", err)
	}
	term, err := number(db, keyTerm)
	if err != nil {
		return err
	}
	list, err := snaps.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	if term != 0 || len(list) > 0 {
		return ErrBootstrapped
	}
	sink, err := snaps.Create(raft.SnapshotVersionMax, index, seedTerm, configurationOf(servers), index, encoder{})
	if err != nil {
		return fmt.Errorf("begin the snapshot: %w", err)
	}
	if err := write(sink); err != nil { // it ends the sink, one way or the other
		return err
	}
	// The snapshot first: a log with a term and without it would be an empty voter.
	if err := db.SetUint64(keyTerm, seedTerm); err != nil {
		return fmt.Errorf("store the term: %w", err)
	}
	return nil
}

// encoder is what a snapshot store wants of a transport: how it writes addresses
// for versions of raft before 1.0.
type encoder struct{ raft.Transport }

// EncodePeer implements raft.Transport.
func (encoder) EncodePeer(_ raft.ServerID, at raft.ServerAddress) []byte { return []byte(at) }

func configurationOf(servers []Server) (conf raft.Configuration) {
	for _, s := range servers {
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		conf.Servers = append(conf.Servers, raft.Server{
			ID: serverID(s.Node, s.Store), Address: serverAddress(s.Node, s.Store, s.Address), Suffrage: suffrage,
		})
	}
	return conf
}
