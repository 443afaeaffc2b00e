package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// Settings of the cluster, in the log.
const (
	settingClusterID   = "cluster.id"
	settingClusterName = "cluster.name"
)

// The first join token, which init prints.
const (
	initTokenUses = 10
	initTokenTTL  = 24 * time.Hour
)

// Init makes the first node of a new cluster: its CA, the node's identity, the
// log with one voter in it and a first join token. It is all or nothing: what an
// Init that was interrupted has left is made anew by the next one. On a
// directory that holds a node already it changes nothing.
func Init(ctx context.Context, cfg Config, log *slog.Logger) (InitResult, error) {
	dir := dataDir(cfg.DataDir)
	if dir.initialised() {
		m, err := dir.read()
		if err != nil {
			return InitResult{}, err
		}
		return InitResult{
			Already: true, ClusterID: m.ClusterID, ClusterName: m.ClusterName, Node: m.Node,
			MeshAddress: cfg.Mesh.Advertise, CAFile: filepath.Join(dir.tls(), "ca.crt"),
		}, nil
	}
	if err := dir.prepare(); err != nil {
		return InitResult{}, err
	}
	unlock, err := dir.lock()
	if err != nil {
		return InitResult{}, err
	}
	defer func() { _ = unlock() }()

	m := marker{ClusterID: randomID(), ClusterName: cfg.Cluster.Name, Node: cfg.Node.ID}
	if m.Store, err = storeID(dir); err != nil {
		return InitResult{}, err
	}
	ca, err := mtls.NewCA(m.ClusterID, time.Now())
	if err != nil {
		return InitResult{}, err
	}
	cert, err := makeIdentity(dir, ca, cfg)
	if err != nil {
		return InitResult{}, err
	}
	token, err := mtls.NewToken(mtls.PinOf(ca.Certificate()))
	if err != nil {
		return InitResult{}, err
	}
	until := time.Now().Add(initTokenTTL)
	// Nothing is allowed by default but what a client is told about itself.
	items := append(firstItems(cfg, m, token, until, ca, cert),
		&logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "*", Rules: defaultRules()}}})
	if err := bootstrap(ctx, cfg, m, items, log); err != nil {
		return InitResult{}, fmt.Errorf("make the log: %w", err)
	}
	if err := dir.write(m); err != nil {
		return InitResult{}, err
	}
	return InitResult{
		ClusterID: m.ClusterID, ClusterName: m.ClusterName, Node: m.Node, MeshAddress: cfg.Mesh.Advertise,
		CAFile:      filepath.Join(dir.tls(), "ca.crt"),
		JoinCommand: joinCommand(cfg.Mesh.Advertise, token), Token: token.String(), TokenUntil: until,
	}, nil
}

// firstItems make a node the first member of a cluster whose log is empty or came
// of a backup.
func firstItems(cfg Config, m marker, token mtls.Token, until time.Time, ca *mtls.CA, cert *mtls.Identity) []*logpb.Item {
	return []*logpb.Item{
		newCARecord(ca).item(), // in the place of the one that a backup may have
		{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: settingClusterID, Value: m.ClusterID}}},
		{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: settingClusterName, Value: m.ClusterName}}},
		{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: m.Node, Store: m.Store, Address: cfg.Mesh.Advertise, Voter: true}}},
		{Kind: &logpb.Item_TokenPut{TokenPut: &logpb.TokenPut{Id: token.ID(), Hash: token.Hash(), ExpiresAt: until.UnixMilli(), Uses: initTokenUses}}},
		{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{
			Serial: mtls.Serial(cert.Leaf()), Subject: m.Node, Kind: "node",
			NotBefore: cert.Leaf().NotBefore.Unix(), NotAfter: cert.Leaf().NotAfter.Unix(),
		}}},
	}
}

// defaultRules are the ACL of everybody in a new cluster: none. "*" is written
// all the same, so that acl get shows where to begin.
func defaultRules() []*logpb.Rule {
	r := auth.Rule{Allow: false, Action: auth.Both, Filter: "#"}
	return []*logpb.Rule{{Allow: r.Allow, Action: uint32(r.Action), Filter: r.Filter}}
}

func joinCommand(address string, token mtls.Token) string {
	return fmt.Sprintf("mqcluster join %s --token %s", address, token)
}

// makeIdentity makes the first node's certificate and saves it with the CA.
func makeIdentity(dir dataDir, ca *mtls.CA, cfg Config) (*mtls.Identity, error) {
	for _, part := range []string{dir.ca(), dir.caNext(), dir.tls()} {
		if err := os.RemoveAll(part); err != nil {
			return nil, fmt.Errorf("remove what an unfinished init left: %w", err)
		}
	}
	if err := os.MkdirAll(dir.tls(), 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir.tls(), err)
	}
	key, err := mtls.NodeKey(dir.tls())
	if err != nil {
		return nil, err
	}
	csr, err := mtls.NewNodeRequest(key)
	if err != nil {
		return nil, err
	}
	dns, ips, err := mtls.ParseNames(certificateNames(cfg))
	if err != nil {
		return nil, err
	}
	cert, err := ca.IssueNode(csr, mtls.NodeProfile{ID: cfg.Node.ID, DNSNames: dns, IPs: ips}, time.Now())
	if err != nil {
		return nil, err
	}
	keyPEM, err := mtls.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	id, err := mtls.CreateIdentity(dir.tls(), ca.ClusterID(), mtls.Material{Cert: cert, Key: keyPEM, CA: ca.CertPEM()})
	if err != nil {
		return nil, err
	}
	return id, newKeyring(&cfg).save(ca)
}

// bootstrap makes the log with this node as its only voter and applies items as
// the first commands.
func bootstrap(ctx context.Context, cfg Config, m marker, items []*logpb.Item, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	self := consensus.Server{Node: m.Node, Store: m.Store, Address: cfg.Mesh.Advertise, Voter: true}
	if err := consensus.Bootstrap(consensusConfig(cfg, m, ""), []consensus.Server{self}); err != nil {
		return err
	}
	return openAlone(ctx, cfg, m, log, func(ctx context.Context, c *consensus.Consensus, _ *fsm.Store) error {
		return proposeEach(ctx, c, items)
	})
}

func proposeEach(ctx context.Context, c *consensus.Consensus, items []*logpb.Item) error {
	for _, it := range items {
		if _, err := c.Propose(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// openAlone opens log and state of a node that is the only voter, without a
// network, runs f and closes everything again.
func openAlone(ctx context.Context, cfg Config, m marker, log *slog.Logger, f func(context.Context, *consensus.Consensus, *fsm.Store) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir := dataDir(cfg.DataDir)
	var events gate
	var fatal error
	halt := func(e error) { fatal = e; cancel() }
	store, err := fsm.Open(ctx, fsm.Config{Dir: dir.state(), Node: m.Node}, fsm.Deps{
		Logger: log, Halt: halt, Observe: events.observe,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), fatal) }()
	c, err := consensus.Open(ctx, consensusConfig(cfg, m, ""), consensus.Deps{
		FSM: store, State: store, Network: alone{}, Fatal: halt, Logger: log, Due: store.Due,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	events.open(func(es []fsm.Event) {
		for _, e := range es {
			c.Applied(e)
		}
	})
	return f(ctx, c, store)
}

// alone is the network of a node without peers.
type alone struct{}

var errAlone = errors.New("there is no other node yet")

func (alone) Dial(context.Context, string, string) (net.Conn, error) { return nil, errAlone }

func consensusConfig(cfg Config, m marker, version string) consensus.Config {
	return consensus.Config{
		Dir: dataDir(cfg.DataDir).raft(), Node: m.Node, Store: m.Store, Address: cfg.Mesh.Advertise,
		Generation: m.Generation,
		Level:      fsm.Level, Version: version,
		HeartbeatTimeout: cfg.Raft.Heartbeat, ElectionTimeout: cfg.Raft.Election,
		CommitTimeout: cfg.Raft.Commit, Lease: cfg.Raft.Lease,
		SnapshotInterval: cfg.Raft.SnapshotInterval, SnapshotThreshold: uint64(cfg.Raft.SnapshotThreshold), TrailingLogs: uint64(cfg.Raft.TrailingLogs),
	}
}
