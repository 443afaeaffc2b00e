package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// rpcTimeout bounds every dial, read and write of raft's transport.
const rpcTimeout = 5 * time.Second

// configTimeout bounds how long a change of membership waits for an earlier one.
const configTimeout = 10 * time.Second

// raftConfig is raft's configuration with our reasons.
func raftConfig(cfg *Config) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = serverID(cfg.Node, cfg.Store)
	rc.NoSnapshotRestoreOnStart = true // the state is on disk; see restoreNewest
	rc.NoLegacyTelemetry = true
	// A node that was removed says so and waits for its operator.
	rc.ShutdownOnRemove = false

	// A follower notices a dead leader after one to two heartbeat timeouts since
	// it last looked, and with pre-vote a majority has to notice: 0.5 to 1.5 s.
	// Heartbeats are sent ten times as often and do not pass the disk or the main
	// loop, so ten in a row must be late, at a majority, for a false election.
	rc.HeartbeatTimeout = cfg.HeartbeatTimeout
	rc.ElectionTimeout = cfg.ElectionTimeout
	rc.LeaderLeaseTimeout = cfg.LeaderLease

	// A follower learns of a commit with the next append or after one to two of
	// these, and its clients' acknowledgements wait for that (DESIGN.md): it is
	// the floor of latency in a quiet cluster. Raft would send an empty append
	// per follower each time; gatedTransport holds back those that say nothing.
	// DESIGN.md has the figures of both.
	rc.CommitTimeout = cfg.CommitTimeout

	// Entries are packs of up to 64 KiB, so a request is at most 4 MiB, save for
	// single large messages. The same figure bounds group commit and the batches
	// that apply gets; raft buffers as many proposals, so that those which come
	// during an fsync share the next.
	rc.MaxAppendEntries = 64
	rc.BatchApplyCh = true

	// At 2,500 packs a second a snapshot every half minute leaves 75,000 entries
	// to read again after a crash, which takes a second or two; a snapshot copies
	// the state, so it must not come for a handful of entries. What stays behind
	// it lets a follower that was away for some seconds catch up without one.
	rc.SnapshotInterval = cfg.SnapshotInterval
	rc.SnapshotThreshold = cfg.SnapshotThreshold
	rc.TrailingLogs = cfg.TrailingLogs
	return rc
}

// logCacheEntries is how many entries replication reads from memory: some
// windows of a few nodes. At 64 KiB an entry it is at most 32 MiB.
const logCacheEntries = 512

// openRaft opens stores, transport and raft itself. On error it leaves nothing
// open.
func (c *Consensus) openRaft(ctx context.Context) (err error) {
	rc := raftConfig(&c.cfg)
	rc.Logger = hclogTo(c.log)
	rc.NotifyCh = c.notify
	storage, err := c.openStorage(rc.Logger)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, storage.Log.Close())
		}
	}()
	list, err := storage.Snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	if len(list) > 0 {
		c.newest.Store(&point{list[0].Index, list[0].Term})
	}
	c.snaps = roomySnapshots{storage.Snapshots, c.deps.Room, func(p point) { c.newest.Store(&p) }}
	c.store = &guardedStore{
		LogStore: storage.Log, deadline: c.cfg.StoreDeadline, fatal: c.deps.Fatal, latency: c.metrics.store,
		storing: func() func() { return c.trans.begin() }, room: c.deps.Room, start: time.Now(),
	}
	if j, ok := storage.Log.(*journaledStore); ok {
		j.run(c.store.watch, c.metrics.drain)
	}
	logs, err := raft.NewLogCache(logCacheEntries, c.store)
	if err != nil {
		return fmt.Errorf("open the log cache: %w", err)
	}
	if err := c.restoreNewest(ctx); err != nil {
		return err
	}
	if err := dropBehind(storage.Log, storage.Snapshots); err != nil {
		return err
	}
	self := serverAddress(c.cfg.Node, c.cfg.Store, c.cfg.Address)
	c.layer = newStreamLayer(c, self)
	c.trans = newGatedTransport(c.ctx, raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.layer, Logger: rc.Logger, MaxPool: 3, Timeout: rpcTimeout,
		// More than one wedges a follower for ever after a short store error
		// (raft's issue #612).
		MaxRPCsInFlight: 1,
	}), c.store, c.now)
	c.raft, err = raft.NewRaft(rc, c.metrics.timed(c.deps.FSM), logs, c.store, c.snaps, c.trans)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), c.trans.Close())
	}
	s := settled{
		newest:  c.newest.Load,
		applied: func() uint64 { return max(c.raft.AppliedIndex(), c.deps.State.AppliedIndex()) },
		term:    func() (uint64, error) { return number(c.store, keyTerm) },
		log:     c.store,
	}
	calls := c.trans.NetworkTransport.Consumer()
	c.wg.Go(func() { s.serve(calls, c.trans.calls, c.ctx.Done()) })
	if c.aloneVoter() {
		if err := elect(c.trans, rc.LocalID, self); err != nil {
			// The heartbeat timeout does the same, later.
			c.log.Debug("lone voter", "err", err)
		}
	}
	return nil
}

// openStorage opens the log and the snapshots in the directory, unless the storage
// was given.
func (c *Consensus) openStorage(logger hclog.Logger) (*Storage, error) {
	if c.deps.Storage != nil {
		return c.deps.Storage, nil
	}
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the raft directory: %w", err)
	}
	db, err := openLog(c.cfg.Dir, c.cfg.JournalBytes)
	if err != nil {
		return nil, err
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(c.cfg.Dir, 2, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshots: %w", err), db.Close())
	}
	return &Storage{Log: db, Snapshots: snaps}, nil
}

// restoreNewest brings a state that is older than the newest snapshot up to it:
// the entries between may be gone from the log.
func (c *Consensus) restoreNewest(ctx context.Context) error {
	list, err := c.snaps.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	if c.deps.Storage == nil {
		if err := examineSnapshots(c.cfg.Dir, list); err != nil {
			return err
		}
		if err := c.examineEnd(list); err != nil {
			return err
		}
	}
	if len(list) == 0 || c.deps.State.AppliedIndex() >= list[0].Index {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, rd, err := c.snaps.Open(list[0].ID)
	if err != nil {
		return fmt.Errorf("%w (open snapshot %s: %w)", ErrDamaged, list[0].ID, err)
	}
	defer rd.Close()
	if err := c.deps.FSM.Restore(rd); err != nil {
		return fmt.Errorf("restore snapshot %s: %w", list[0].ID, err)
	}
	return nil
}

// examineEnd checks that the log reaches as far as the state: what is applied was in
// the log before. A node that lost its log, and with it its vote, is no voter.
func (c *Consensus) examineEnd(list []*raft.SnapshotMeta) error {
	last, err := c.store.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if len(list) > 0 {
		last = max(last, list[0].Index)
	}
	if applied := c.deps.State.AppliedIndex(); applied > last {
		return fmt.Errorf("%w (the state is of entry %d, the log ends at %d)", ErrDamaged, applied, last)
	}
	return nil
}

func (c *Consensus) aloneVoter() bool {
	voters := 0
	self := false
	for _, s := range c.Servers() {
		if s.Voter {
			voters++
			self = s.Node == c.cfg.Node && s.Store == c.cfg.Store
		}
	}
	return voters == 1 && self
}

func (c *Consensus) closeRaft() error {
	done := c.raft.Shutdown()
	// Calls to dead peers must not hold it up.
	c.trans.CloseStreams()
	err := errors.Join(c.layer.Close(), done.Error(), c.trans.Close())
	// The log is open until then: a leader that stops hands over, and hears at once
	// of its successor's term.
	c.trans.endHeartbeats()
	return errors.Join(err, c.store.Close())
}

// Server is a member of the raft group.
type Server struct {
	Node    string `json:"node"`
	Store   string `json:"store"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// Bootstrap writes the first configuration of a new cluster into cfg.Dir. Only
// the first node of a cluster does that, once, before it is opened.
func Bootstrap(cfg Config, servers []Server) (err error) {
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
	rc := raftConfig(&cfg)
	snaps, err := raft.NewFileSnapshotStoreWithLogger(filepath.Clean(cfg.Dir), 2, hclogDiscard())
	if err != nil {
		return fmt.Errorf("open the snapshots: %w", err)
	}
	// Protocol version 3 encodes nothing through the transport.
	err = raft.BootstrapCluster(rc, db, db, snaps, nil, configurationOf(servers))
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrBootstrapped
	}
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Servers returns the raft group as this node knows it.
func (c *Consensus) Servers() []Server {
	conf := c.raft.GetConfiguration()
	if conf.Error() != nil {
		return nil
	}
	return serversOf(conf.Configuration())
}

// AddNonvoter adds a server that replicates and does not vote, or changes its
// address. It blocks until a majority has the change on disk. Leader only.
func (c *Consensus) AddNonvoter(node, store, address string) error {
	id, at := serverID(node, store), serverAddress(node, store, address)
	return c.changed("add", id, c.raft.AddNonvoter(id, at, 0, configTimeout))
}

// Promote makes a server a voter, as AddNonvoter. The caller has seen that it
// has caught up (Status).
func (c *Consensus) Promote(node, store, address string) error {
	id, at := serverID(node, store), serverAddress(node, store, address)
	return c.changed("promote", id, c.raft.AddVoter(id, at, 0, configTimeout))
}

// Demote makes a voter a server that replicates and does not vote, as AddNonvoter.
func (c *Consensus) Demote(node, store string) error {
	id := serverID(node, store)
	return c.changed("demote", id, c.raft.DemoteVoter(id, 0, configTimeout))
}

// Remove takes a server out of the group, as AddNonvoter. A leader that removes
// itself steps down.
func (c *Consensus) Remove(node, store string) error {
	id := serverID(node, store)
	return c.changed("remove", id, c.raft.RemoveServer(id, 0, configTimeout))
}

func (c *Consensus) changed(verb string, id raft.ServerID, f raft.Future) error {
	if err := leaderError(f.Error()); err != nil {
		return fmt.Errorf("%s server %s: %w", verb, id, err)
	}
	return nil
}

// TransferLeadership hands leadership to the voter that is furthest. It blocks
// for at most about an election timeout. Leader only.
func (c *Consensus) TransferLeadership() error {
	if err := leaderError(c.raft.LeadershipTransfer().Error()); err != nil {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}

// Snapshot takes a snapshot now and truncates the log behind it; nothing new
// since the last one is no error. It blocks until the snapshot is on disk.
func (c *Consensus) Snapshot() error {
	err := c.raft.Snapshot().Error()
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	return nil
}

func leaderError(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) ||
		errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return ErrNotLeader
	}
	if errors.Is(err, raft.ErrRaftShutdown) {
		return ErrClosed
	}
	return err
}
