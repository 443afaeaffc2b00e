package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// Survivor is what a stopped node knows, for the operator who has lost the
// majority of the voters for good and must choose the node to go on with.
type Survivor struct {
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	Node        string `json:"node"`
	// Voter tells whether the node's word counted for acknowledgements.
	Voter bool `json:"voter"`
	// CA tells whether the node holds the key that admits others.
	CA bool `json:"ca_key"`
	consensus.Inspection
	// AppliedIndex is how far the state on disk is; the log has what is behind it.
	AppliedIndex uint64 `json:"applied_index"`
	// LastEntry is the log time of the last entry.
	LastEntry time.Time `json:"last_entry"`
	// Lost are the other members, voters first.
	Lost []consensus.Server `json:"lost"`
	// Recovering tells that a recover has begun here and not ended.
	Recovering bool `json:"recovering,omitempty"`
}

// Position orders survivors: of two the one with the greater position has
// everything that the other has.
func (s *Survivor) Position() string { return fmt.Sprintf("%d.%d", s.LastTerm, s.LastIndex) }

// InspectSurvivor reads what a stopped node knows; it changes nothing.
func InspectSurvivor(ctx context.Context, cfg Config) (*Survivor, error) {
	dir := dataDir(cfg.DataDir)
	if !dir.initialised() {
		return nil, fmt.Errorf("the data directory %s holds no node: give the one of a node that survived", dir)
	}
	unlock, err := dir.lock()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock() }()
	s, _, err := inspectSurvivor(ctx, dir)
	return s, err
}

func inspectSurvivor(ctx context.Context, dir dataDir) (*Survivor, marker, error) {
	m, err := dir.read()
	if err != nil {
		return nil, m, err
	}
	log, err := consensus.Inspect(dir.raft())
	if errors.Is(err, consensus.ErrNoLog) {
		return nil, m, fmt.Errorf("node %s has no log in %s: there is nothing to go on with; choose another survivor", m.Node, dir.raft())
	}
	if err != nil {
		return nil, m, err
	}
	state, err := fsm.Inspect(ctx, dir.state())
	if err != nil {
		return nil, m, err
	}
	s := &Survivor{
		ClusterID: m.ClusterID, ClusterName: m.ClusterName, Node: m.Node, Inspection: log,
		AppliedIndex: state.Applied, LastEntry: time.UnixMilli(max(log.Stamp, state.Stamp)), Recovering: m.Recovering,
	}
	for _, slot := range []string{dir.ca(), dir.caNext()} {
		if _, err := os.Stat(slot); err == nil {
			s.CA = true
		}
	}
	for _, server := range log.Servers {
		if server.Node == m.Node && server.Store == m.Store {
			s.Voter = server.Voter
			continue
		}
		s.Lost = append(s.Lost, server)
	}
	slices.SortFunc(s.Lost, func(a, b consensus.Server) int {
		if a.Voter != b.Voter {
			if a.Voter {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Node, b.Node)
	})
	return s, m, nil
}

// recoverTimeout bounds how long the survivor takes to apply the rest of its log
// and to let the others go.
const recoverTimeout = 10 * time.Minute

// Recover makes a stopped node the only member of its cluster, after the majority
// of the voters was lost for good. Its log and state stay whole; the others are
// expelled: their certificates are revoked, their clients' sessions released, and
// a server of the group as it was is not listened to any more, should one come
// back. Run again after a failure it goes on where it was.
//
// What the lost nodes acknowledged behind the end of this node's log is gone.
func Recover(ctx context.Context, cfg Config, log *slog.Logger) (*Survivor, error) {
	dir := dataDir(cfg.DataDir)
	if !dir.initialised() {
		return nil, fmt.Errorf("the data directory %s holds no node: give the one of a node that survived", dir)
	}
	unlock, err := dir.lock()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock() }()
	s, m, err := inspectSurvivor(ctx, dir)
	if err != nil {
		return nil, err
	}
	if cfg.Node.ID != m.Node {
		return nil, fmt.Errorf("the data directory %s belongs to node %s, not to node %s: correct node.id or data_dir", dir, m.Node, cfg.Node.ID)
	}
	if !m.Recovering && len(s.Lost) == 0 {
		return nil, fmt.Errorf("node %s is alone in its cluster already: start it with mqcluster run", m.Node)
	}
	if !m.Recovering {
		// First, so that what begins to be alone is never listened to by the others.
		m.Generation, m.Recovering, m.Peers = randomID(), true, nil
		if err := dir.write(m); err != nil {
			return nil, err
		}
	}
	if err := consensus.Recover(consensusConfig(cfg, m, "")); err != nil {
		return nil, fmt.Errorf("rewrite the group of node %s: %w", m.Node, err)
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	err = openAlone(ctx, cfg, m, log, func(ctx context.Context, c *consensus.Consensus, store *fsm.Store) error {
		return expelOthers(ctx, cfg, m, c, store)
	})
	if err != nil {
		return nil, fmt.Errorf("let the lost members go: %w; run mqcluster recover again", err)
	}
	m.Recovering = false
	return s, dir.write(m)
}

// expelOthers takes every other member out of the state.
func expelOthers(ctx context.Context, cfg Config, m marker, c *consensus.Consensus, store *fsm.Store) error {
	self := &logpb.MemberPut{Node: m.Node, Store: m.Store, Address: cfg.Mesh.Advertise, Voter: true}
	// The result of the first item comes after everything before it was applied.
	if err := proposeEach(ctx, c, []*logpb.Item{{Kind: &logpb.Item_MemberPut{MemberPut: self}}}); err != nil {
		return err
	}
	var items []*logpb.Item
	for _, cert := range store.Certs() {
		if cert.Kind == "node" && cert.Subject != m.Node && !cert.Revoked {
			items = append(items, revocation(cert))
		}
	}
	for _, other := range store.Members() {
		if other.Node != m.Node {
			items = append(items, &logpb.Item{Kind: &logpb.Item_MemberRemove{MemberRemove: &logpb.MemberRemove{Node: other.Node, Store: other.Store}}})
		}
	}
	return proposeEach(ctx, c, items)
}

// revocation is the item that ends a certificate.
func revocation(c *logpb.Cert) *logpb.Item {
	return &logpb.Item{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{
		Serial: c.Serial, Subject: c.Subject, Kind: c.Kind, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: true,
	}}}
}
