package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/mesh"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// joinRequest is what a machine asks for. Its certificate is made from what the
// cluster decides, not from the request's subject.
type joinRequest struct {
	Token   string   `json:"token"`
	Node    string   `json:"node"`
	Store   string   `json:"store"`
	Address string   `json:"address"`
	Replace string   `json:"replace,omitempty"` // the dead member whose place it takes
	Names   []string `json:"names"`             // DNS names and IPs that clients dial it by
	// ServingOnly: it never votes.
	ServingOnly bool   `json:"serving_only,omitempty"`
	CSR         []byte `json:"csr"` // DER
}

type joinAnswer struct {
	ClusterID   string            `json:"cluster_id"`
	ClusterName string            `json:"cluster_name"`
	Cert        []byte            `json:"cert"` // PEM
	CA          []byte            `json:"ca"`   // PEM
	Peers       map[string]string `json:"peers"`
	Generation  string            `json:"generation,omitempty"`
}

// Join makes this machine a node of the cluster that opts.Address belongs to.
// The key is made here and stays here; the secret is sent only after the other
// side has proved that it holds a certificate of the CA that the token pins. The
// node starts as a non-voter when it is run. Running Join again after a failure
// uses the same key, and so the same use of the token.
func Join(ctx context.Context, cfg Config, opts JoinOptions, log *slog.Logger) (JoinResult, error) {
	dir := dataDir(cfg.DataDir)
	if dir.initialised() {
		m, err := dir.read()
		if err != nil {
			return JoinResult{}, err
		}
		return JoinResult{Already: true, ClusterID: m.ClusterID, Node: m.Node, CAFile: filepath.Join(dir.tls(), "ca.crt")}, nil
	}
	token, err := mtls.ParseToken(opts.Token)
	if err != nil {
		return JoinResult{}, err
	}
	if err := dir.prepare(); err != nil {
		return JoinResult{}, err
	}
	unlock, err := dir.lock()
	if err != nil {
		return JoinResult{}, err
	}
	defer func() { _ = unlock() }()
	if err := os.MkdirAll(dir.tls(), 0o700); err != nil {
		return JoinResult{}, fmt.Errorf("make the directory of the node's certificate: %w", err)
	}
	key, err := mtls.NodeKey(dir.tls())
	if err != nil {
		return JoinResult{}, err
	}
	csr, err := mtls.NewNodeRequest(key)
	if err != nil {
		return JoinResult{}, err
	}
	store, err := storeID(dir)
	if err != nil {
		return JoinResult{}, err
	}
	req := joinRequest{
		Token: opts.Token, Node: cfg.Node.ID, Store: store, Address: cfg.Mesh.Advertise,
		Names: certificateNames(cfg), CSR: csr, Replace: opts.Replace, ServingOnly: opts.ServingOnly,
	}
	out, err := askToJoin(ctx, opts.Address, token, req)
	if err != nil {
		return JoinResult{}, err
	}
	keyPEM, err := mtls.MarshalKey(key)
	if err != nil {
		return JoinResult{}, err
	}
	if _, err := mtls.CreateIdentity(dir.tls(), out.ClusterID, mtls.Material{Cert: out.Cert, Key: keyPEM, CA: out.CA}); err != nil {
		return JoinResult{}, err
	}
	m := marker{ClusterID: out.ClusterID, ClusterName: out.ClusterName, Node: cfg.Node.ID, Store: store, Peers: out.Peers, Generation: out.Generation}
	if err := dir.write(m); err != nil {
		return JoinResult{}, err
	}
	log.Info("joined", "node", cfg.Node.ID, "cluster", out.ClusterID)
	return JoinResult{ClusterID: out.ClusterID, Node: cfg.Node.ID, CAFile: filepath.Join(dir.tls(), "ca.crt")}, nil
}

// storeID returns the name of the disk under dir, made at the first call.
func storeID(dir dataDir) (string, error) {
	path := filepath.Join(string(dir), "store.id")
	if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
		return string(data), nil
	}
	id := randomID()
	if err := mtls.WritePrivate(path, []byte(id)); err != nil {
		return "", fmt.Errorf("write the store's id: %w", err)
	}
	return id, nil
}

// askToJoin dials with the pinned CA and makes the one call.
func askToJoin(ctx context.Context, address string, token mtls.Token, req joinRequest) (joinAnswer, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: controlTimeout}, Config: mtls.JoinClient(token, mesh.ProtoJoin)}
	c := &http.Client{
		Timeout: 3 * controlTimeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", address)
			},
			DisableKeepAlives: true,
		},
	}
	var out joinAnswer
	err := post(ctx, c, "http://cluster"+pathJoin, req, &out)
	if _, ok := errors.AsType[*fault](err); err != nil && !ok {
		return out, fmt.Errorf("reach the cluster at %s: %s; give the address of a node's mesh port (7883 unless configured) and a token of this cluster", address, mtls.Describe(err))
	}
	return out, err
}

// certificateNames are the names that clients may dial this node by.
func certificateNames(cfg Config) []string {
	names := slices.Clone(cfg.ServerNames)
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	hosts := []string{cfg.Mesh.Advertise, cfg.API.Listen}
	for _, l := range cfg.Listeners {
		hosts = append(hosts, l.Address)
	}
	for _, a := range hosts {
		host, _, err := net.SplitHostPort(a)
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			names = append(names, host)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// serveJoin admits a machine. Any node takes the request; the leader decides.
func (n *Node) serveJoin(ctx context.Context, _ string, req joinRequest) (joinAnswer, error) {
	return askLeader(ctx, n, pathJoin, req, n.admit)
}

// admit spends the token for the key of the request, makes the node a member and
// a non-voter of the log, and signs its certificate.
func (n *Node) admit(ctx context.Context, req joinRequest) (joinAnswer, error) {
	token, err := mtls.ParseToken(req.Token)
	if err != nil {
		return joinAnswer{}, faultf(http.StatusForbidden, "%s", err)
	}
	pub, err := mtls.RequestKey(req.CSR)
	if err != nil {
		return joinAnswer{}, faultf(http.StatusBadRequest, "%s", err)
	}
	if _, _, err := net.SplitHostPort(req.Address); err != nil || req.Store == "" || req.Node == "" {
		return joinAnswer{}, faultf(http.StatusBadRequest, "the node id, store id or mesh address %q is missing or no host:port: set node.id and mesh.advertise", req.Address)
	}
	if req.ServingOnly {
		if err := n.everyoneAt(fsm.LevelServing, "a node that serves only"); err != nil {
			return joinAnswer{}, faultf(http.StatusConflict, "%s", err)
		}
	}
	ca, err := n.nodesCA()
	if err != nil {
		return joinAnswer{}, err
	}
	spend := &logpb.TokenSpend{Id: token.ID(), Hash: token.Hash(), KeyHash: mtls.KeyHash(pub), Node: req.Node}
	by := n.byNode("token "+token.ID(), "join", req.Node, "at "+req.Address)
	if err := n.propose(ctx, &logpb.Item{Kind: &logpb.Item_TokenSpend{TokenSpend: spend}, By: by}); err != nil {
		n.log.Warn("a join was refused", "member", req.Node, "token", token.ID(), "err", err)
		return joinAnswer{}, err
	}
	n.votersMu.Lock()
	defer n.votersMu.Unlock()
	if req.Replace != "" {
		if err := n.replace(ctx, req); err != nil {
			return joinAnswer{}, err
		}
	} else if err := n.mayTakeName(req); err != nil {
		return joinAnswer{}, err
	}
	cert, err := n.signNode(ctx, ca, req.Node, req.Names, req.CSR)
	if err != nil {
		return joinAnswer{}, err
	}
	put := &logpb.MemberPut{Node: req.Node, Store: req.Store, Address: req.Address, Voter: n.votesNow(req.Node, req.Store), ServingOnly: req.ServingOnly}
	if err := n.propose(ctx, &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: put}}); err != nil {
		return joinAnswer{}, err
	}
	if !put.Voter {
		if err := n.consensus.AddNonvoter(req.Node, req.Store, req.Address); err != nil {
			return joinAnswer{}, fmt.Errorf("add node %s to the log: %w", req.Node, err)
		}
	}
	n.log.Info("a node joined", "member", req.Node, "token", token.ID())
	name, _ := n.store.Setting(settingClusterName)
	out := joinAnswer{ClusterID: n.identity.ClusterID(), ClusterName: name, Cert: cert, CA: n.caRecord().Trusted, Peers: map[string]string{}, Generation: n.generation}
	for _, m := range n.store.Members() {
		out.Peers[m.Node] = m.Address
	}
	return out, nil
}

// votesNow tells whether a server votes, by raft's configuration.
func (n *Node) votesNow(node, store string) bool {
	for _, s := range n.consensus.Servers() {
		if s.Node == node && s.Store == store {
			return s.Voter
		}
	}
	return false
}

// mayTakeName refuses a name that another disk has.
func (n *Node) mayTakeName(req joinRequest) error {
	for _, m := range n.store.Members() {
		if m.Node == req.Node && m.Store != req.Store {
			return faultf(http.StatusConflict, "a member named %s exists already: choose another node.id, or, if that one is dead or has lost its disk, take its place with --replace %s", req.Node, req.Node)
		}
	}
	return nil
}

// signNode signs a node's certificate and notes it in the log.
func (n *Node) signNode(ctx context.Context, ca *mtls.CA, id string, names []string, csr []byte) ([]byte, error) {
	dns, ips, err := mtls.ParseNames(names)
	if err != nil {
		return nil, faultf(http.StatusBadRequest, "%s", err)
	}
	cert, err := ca.IssueNode(csr, mtls.NodeProfile{ID: id, DNSNames: dns, IPs: ips}, time.Now())
	if err != nil {
		return nil, faultf(http.StatusBadRequest, "%s", err)
	}
	return cert, n.noteCert(ctx, cert, id, kindNode)
}

// noteCert writes an issued certificate into the log, for listings and
// revocation.
func (n *Node) noteCert(ctx context.Context, certPEM []byte, subject, kind string) error {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return errors.New("the issued certificate is no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("read the issued certificate: %w", err)
	}
	return n.propose(ctx, &logpb.Item{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{
		Serial: mtls.Serial(c), Subject: subject, Kind: kind,
		NotBefore: c.NotBefore.Unix(), NotAfter: c.NotAfter.Unix(),
	}}})
}

// propose proposes an item and waits until it is applied here.
func (n *Node) propose(ctx context.Context, item *logpb.Item) error {
	_, err := n.proposeResult(ctx, item)
	return err
}

func (n *Node) proposeResult(ctx context.Context, item *logpb.Item) (fsm.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	r, err := n.consensus.Propose(ctx, item)
	switch {
	case errors.Is(err, fsm.ErrRefused):
		return r, faultf(http.StatusConflict, "%s", trimRefused(err))
	case errors.Is(err, fsm.ErrNotProposed), errors.Is(err, fsm.ErrUnknown), errors.Is(err, context.DeadlineExceeded):
		return r, faultf(http.StatusServiceUnavailable, "%s", err)
	}
	return r, err
}
