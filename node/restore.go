package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// RestoreOptions are how a backup becomes a cluster.
type RestoreOptions struct {
	// Grace is how long wills and sessions of the clients that were connected wait
	// at least, in the cluster's time, which begins to run with the first start.
	Grace time.Duration
	// DropWills has the wills of those clients not fire.
	DropWills bool
}

// RestoreResult is the first node of the new cluster and what it was made of.
type RestoreResult struct {
	InitResult
	Backup *backup.Whole `json:"backup"`
}

// Restore makes the first node of a new cluster, as Init does, with the state of a
// backup: in reads the stream of it. The cluster has a new CA and a new id, unless
// the backup brings the CA of the old one. It is all or nothing: a node is there
// only when the backup was read to its end, and what a Restore that was interrupted
// has left is made anew by the next one.
func Restore(ctx context.Context, cfg Config, in io.Reader, opts RestoreOptions, log *slog.Logger) (_ RestoreResult, err error) {
	dir := dataDir(cfg.DataDir)
	if dir.initialised() {
		return RestoreResult{}, fmt.Errorf("the data directory %s holds a node: give an empty one, a restore makes the first node of a new cluster", dir)
	}
	if err := dir.prepare(); err != nil {
		return RestoreResult{}, err
	}
	unlock, err := dir.lock()
	if err != nil {
		return RestoreResult{}, err
	}
	defer func() { _ = unlock() }()
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.prepare()) // a state that is not in force takes room only
		}
	}()
	m := marker{Node: cfg.Node.ID, Generation: randomID()}
	if m.Store, err = storeID(dir); err != nil {
		return RestoreResult{}, err
	}
	whole, err := restoreState(ctx, cfg, m, in, opts, log)
	if err != nil {
		return RestoreResult{}, err
	}
	return foundRestored(ctx, cfg, m, whole, log)
}

// restoreState makes state and log of the new cluster.
func restoreState(ctx context.Context, cfg Config, m marker, in io.Reader, opts RestoreOptions, log *slog.Logger) (whole *backup.Whole, err error) {
	dir := dataDir(cfg.DataDir)
	var halted halt
	deps := fsm.Deps{Logger: log, Halt: halted.set}
	// A full disk must be a sentence here, not the end of the process.
	disk, err := newDisk(cfg.Storage, spaceOf(string(dir)), log)
	if err == nil {
		deps.Room = disk.holds
	} else if !errors.Is(err, errNoSpaceFigure) {
		return nil, err
	}
	store, err := fsm.Build(ctx, fsm.Config{Dir: dir.state(), Node: m.Node}, deps, func(put func(k, v []byte) error) (err error) {
		whole, err = backup.Read(in, func(k, v []byte) error {
			if err := errors.Join(ctx.Err(), halted.err()); err != nil {
				return err
			}
			return put(k, v)
		})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, halted.err())
	}
	defer func() { err = errors.Join(err, store.Close(), halted.err()) }()
	err = store.Found(fsm.Founding{Grace: uint32(opts.Grace / time.Second), DropWills: opts.DropWills, SameCA: whole.CA != nil})
	if err != nil {
		return nil, err
	}
	snap, err := store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Release()
	self := consensus.Server{Node: m.Node, Store: m.Store, Address: cfg.Mesh.Advertise, Voter: true}
	return whole, consensus.Seed(consensusConfig(cfg, m, ""), []consensus.Server{self}, store.AppliedIndex(), snap.Persist)
}

// halt is why a state that nobody serves yet cannot go on; it may be set on any
// goroutine.
type halt struct{ why atomic.Pointer[error] }

func (h *halt) set(err error) { h.why.CompareAndSwap(nil, &err) }

func (h *halt) err() error {
	if why := h.why.Load(); why != nil {
		return *why
	}
	return nil
}

// foundRestored gives a restored state its identity and its first entries.
func foundRestored(ctx context.Context, cfg Config, m marker, whole *backup.Whole, log *slog.Logger) (RestoreResult, error) {
	dir := dataDir(cfg.DataDir)
	m.ClusterID, m.ClusterName = randomID(), cfg.Cluster.Name
	if cfg.Cluster.Name == Defaults().Cluster.Name {
		m.ClusterName = whole.ClusterName
	}
	var ca *mtls.CA
	var err error
	if whole.CA != nil {
		if ca, err = mtls.ParseCA(whole.CA.Cert, whole.CA.Key); err != nil {
			return RestoreResult{}, fmt.Errorf("read the CA of the backup: %w", err)
		}
	} else if ca, err = mtls.NewCA(m.ClusterID, time.Now()); err != nil {
		return RestoreResult{}, err
	}
	m.ClusterID = ca.ClusterID()
	cert, err := makeIdentity(dir, ca, cfg)
	if err != nil {
		return RestoreResult{}, err
	}
	token, err := mtls.NewToken(mtls.PinOf(ca.Certificate()))
	if err != nil {
		return RestoreResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var until time.Time
	err = openAlone(ctx, cfg, m, log, func(ctx context.Context, c *consensus.Consensus, store *fsm.Store) error {
		until = tokenEnd(store, whole)
		return proposeEach(ctx, c, firstItems(cfg, m, token, until, ca, cert))
	})
	if err != nil {
		return RestoreResult{}, fmt.Errorf("make the log: %w", err)
	}
	if err := dir.write(m); err != nil {
		return RestoreResult{}, err
	}
	return RestoreResult{InitResult: InitResult{
		ClusterID: m.ClusterID, ClusterName: m.ClusterName, Node: m.Node, MeshAddress: cfg.Mesh.Advertise,
		CAFile:      filepath.Join(dir.tls(), "ca.crt"),
		JoinCommand: joinCommand(cfg.Mesh.Advertise, token), TokenUntil: until,
	}, Backup: whole}, nil
}

// tokenEnd is when the first join token ends, by the cluster's clock: that goes on
// from where the backup was made, unless the cluster is to count the time since.
func tokenEnd(store *fsm.Store, whole *backup.Whole) time.Time {
	from := whole.LogTime
	if v, _ := store.Setting(settingAfterOutage); v == "follow" && time.Now().After(from) {
		from = time.Now()
	}
	return from.Add(initTokenTTL)
}
