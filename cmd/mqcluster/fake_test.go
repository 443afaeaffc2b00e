package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
)

// fakeApp is the real command line over a node that only pretends: its admin API
// keeps users in a map, its TLS listeners lead to somebody else's broker.
func fakeApp() *App {
	return &App{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ(),
		Build: Build{Version: "v1.2.3", Commit: "abcdef", Go: "go1.26", Level: 7},
		Init:  fakeInit,
		Join:  fakeJoin,
		Open: func(ctx context.Context, config node.Config, logger *slog.Logger) (Node, error) {
			return openFake(ctx, config, logger)
		},
	}
}

const joinToken = "MQ1.hash.secret"

func fakeInit(_ context.Context, config node.Config) (node.InitResult, error) {
	result := node.InitResult{
		ClusterID: "c1", ClusterName: config.Cluster.Name, Node: config.Node.ID,
		MeshAddress: config.Mesh.Listen, CAFile: filepath.Join(config.DataDir, "ca.pem"),
	}
	if _, err := os.Stat(result.CAFile); err == nil {
		result.Already = true
		return result, nil
	}
	if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
		return node.InitResult{}, err
	}
	result.JoinCommand, result.Token = "mqcluster join "+config.Mesh.Listen+" --token "+joinToken, joinToken
	return result, selfSigned(config.DataDir)
}

func fakeJoin(_ context.Context, config node.Config, options node.JoinOptions) (node.JoinResult, error) {
	if options.Token != joinToken {
		return node.JoinResult{}, errors.New("the token is unknown: make a new one with mqcluster token create")
	}
	if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
		return node.JoinResult{}, err
	}
	return node.JoinResult{ClusterID: "c1", Node: config.Node.ID}, selfSigned(config.DataDir)
}

// selfSigned writes ca.pem and node.key for localhost.
func selfSigned(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o644),
		os.WriteFile(filepath.Join(dir, "node.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}

// fakeNode is a running fake.
type fakeNode struct {
	admin  *admin.Server
	broker *mochi.Server
	left   chan struct{}
	asked  chan struct{}
	leave  sync.Once
	log    *slog.Logger

	mu     sync.Mutex
	index  uint64
	users  map[string]admin.User
	acls   map[string]admin.Acl
	tokens map[string]admin.TokenInfo

	apiTokens []admin.APITokenInfo

	limit string // of queue.max_messages
	bans  []admin.Ban
	ca    []byte
}

func openFake(ctx context.Context, config node.Config, logger *slog.Logger) (*fakeNode, error) {
	ca, err := os.ReadFile(filepath.Join(config.DataDir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("the data directory %s holds no node: make one with mqcluster init", config.DataDir)
	}
	f := &fakeNode{
		left: make(chan struct{}), log: logger.With("node", config.Node.ID), ca: ca,
		users: map[string]admin.User{}, acls: map[string]admin.Acl{}, tokens: map[string]admin.TokenInfo{},
	}
	if err := f.serve(config); err != nil {
		return nil, err
	}
	f.admin, err = admin.Open(ctx, admin.Config{Socket: config.Admin.Socket}, admin.Deps{
		Backend: admin.Backend{Cluster: f, Tokens: f, Users: f, Acls: f, Certs: f, Settings: f, Balance: f, History: f, Bans: f, Auditor: f, Authority: f, APITokens: f}, Logger: logger,
	})
	if err != nil {
		return nil, errors.Join(err, f.broker.Close())
	}
	f.log.Info("the fake node serves")
	return f, nil
}

// Ready implements Node.
func (f *fakeNode) Ready() admin.Readiness {
	return admin.Readiness{Lease: true, CaughtUp: true, Serving: true}
}

func (f *fakeNode) serve(config node.Config) error {
	f.broker = mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := f.broker.AddHook(&fakeRules{dir: config.DataDir}, nil); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(config.DataDir, "ca.pem"), filepath.Join(config.DataDir, "node.key"))
	if err != nil {
		return err
	}
	for _, l := range config.Listeners {
		// What the real node's listener reports, so that the error is the same.
		raw, err := net.Listen("tcp", l.Address)
		if err != nil {
			return fmt.Errorf("start: %w", err)
		}
		open := listeners.NewNet(l.Name, tls.NewListener(raw, &tls.Config{Certificates: []tls.Certificate{pair}}))
		if err := f.broker.AddListener(open); err != nil {
			return err
		}
	}
	return f.broker.Serve()
}

// fakeRules lets dev1 in, and tells in a file of each first filter.
type fakeRules struct {
	mochi.HookBase
	dir string
}

// Provides names the hooks below.
func (r *fakeRules) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnSubscribed
}

func (r *fakeRules) OnConnectAuthenticate(_ *mochi.Client, p packets.Packet) bool {
	return string(p.Connect.Username) == "dev1" && string(p.Connect.Password) == "secret"
}

func (r *fakeRules) OnACLCheck(_ *mochi.Client, topic string, _ bool) bool {
	return !strings.HasPrefix(topic, "forbidden/")
}

func (r *fakeRules) OnSubscribed(_ *mochi.Client, p packets.Packet, _ []byte) {
	name := "subscribed-" + strings.ReplaceAll(p.Filters[0].Filter, "/", "_")
	_ = os.WriteFile(filepath.Join(r.dir, name), nil, 0o600)
}

func (f *fakeNode) Left() <-chan struct{} { return f.left }

func (f *fakeNode) Asked() <-chan struct{} { return f.asked }

func (f *fakeNode) Close() error {
	f.log.Info("the fake node stops")
	return errors.Join(f.admin.Close(), f.broker.Close())
}

// change counts a change. Node b is slow with whoever is called slow.
func (f *fakeNode) change(name string) (admin.Change, error) {
	f.index++
	c := admin.Change{Index: f.index}
	if strings.Contains(name, "slow") {
		c.NotApplied = []string{"b"}
	}
	return c, nil
}

func (f *fakeNode) Status(context.Context) (admin.Status, error) {
	return admin.Status{
		ClusterID: "c1", ClusterName: "park", Node: "a", Version: "v1.2.3", Quorum: true,
		Readiness: admin.Readiness{CaughtUp: true, Serving: true, Reasons: []string{"the lease ran out"}},
		Term:      3, LastIndex: 9, CommitIndex: 9, AppliedIndex: 8, Level: 7,
		Members: []admin.Member{
			{Node: "a", Role: admin.RoleVoter, Up: true, Lease: 4200, Applied: 8, Clients: 2, Version: "v1.2.3", Address: "10.0.0.1:7883"},
			{Node: "b", Role: admin.RoleNonVoter, Lease: -1},
		},
	}, nil
}

func (f *fakeNode) Leave(_ context.Context, r admin.LeaveRequest) (admin.Change, error) {
	if r.Node != "" && r.Node != "a" {
		return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: "no member " + r.Node}
	}
	f.leave.Do(func() { close(f.left) })
	return admin.Change{Index: 1}, nil
}

func (f *fakeNode) Balance(context.Context) ([]admin.Share, error) {
	return []admin.Share{{Node: "a", Clients: 30, Share: 20, Sent: 10}, {Node: "b", Out: true}}, nil
}

func (f *fakeNode) Drain(context.Context, admin.DrainRequest) (admin.DrainResult, error) {
	return admin.DrainResult{Sent: 2}, nil
}

func (f *fakeNode) CreateToken(_ context.Context, r admin.TokenRequest) (admin.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := admin.TokenInfo{ID: "t1", Uses: r.Uses, ExpiresAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	f.tokens[info.ID] = info
	return admin.Token{TokenInfo: info, Token: joinToken, JoinCommand: "mqcluster join 10.0.0.1:7883 --token " + joinToken}, nil
}

func (f *fakeNode) CreateAPIToken(_ context.Context, r admin.APITokenRequest) (admin.APIToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := admin.APITokenInfo{ID: "a" + fmt.Sprint(len(f.apiTokens)+1), Name: r.Name, Role: r.Role}
	if r.TTL > 0 {
		info.ExpiresAt = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	f.apiTokens = append(f.apiTokens, info)
	c, err := f.change(r.Name)
	return admin.APIToken{APITokenInfo: info, Token: "MQA1." + info.ID + ".secret", Change: c}, err
}

func (f *fakeNode) ListAPITokens(context.Context) ([]admin.APITokenInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.apiTokens), nil
}

func (f *fakeNode) RemoveAPIToken(_ context.Context, id string) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.apiTokens)
	f.apiTokens = slices.DeleteFunc(f.apiTokens, func(t admin.APITokenInfo) bool { return t.ID == id })
	if len(f.apiTokens) == before {
		return admin.Change{}, &admin.Error{Kind: admin.Conflict, Msg: "there is no API token \"" + id + "\""}
	}
	return f.change(id)
}

func (f *fakeNode) ListTokens(context.Context) ([]admin.TokenInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.tokens)), nil
}

func (f *fakeNode) RevokeToken(_ context.Context, id string) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, found := f.tokens[id]; !found {
		return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: "no token " + id}
	}
	delete(f.tokens, id)
	return f.change(id)
}

func (f *fakeNode) AddUser(_ context.Context, r admin.UserAdd) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, found := f.users[r.Name]; found {
		return admin.Change{}, &admin.Error{Kind: admin.Conflict, Msg: "user " + r.Name + " exists: change its password with mqcluster user passwd"}
	}
	if len(r.Password) > 0 && !bytes.Equal(r.Password, []byte("correct horse")) {
		return admin.Change{}, fmt.Errorf("the fake was given the password %q", r.Password)
	}
	f.users[r.Name] = admin.User{Name: r.Name, HasPassword: len(r.Password) > 0, Roles: r.Roles}
	return f.change(r.Name)
}

func (f *fakeNode) SetUser(_ context.Context, r admin.UserSet) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u, found := f.users[r.Name]
	if !found {
		return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: "there is no user " + r.Name + ": add it with mqcluster user add"}
	}
	if r.Disabled != nil {
		u.Disabled = *r.Disabled
	}
	if r.Roles != nil {
		u.Roles = *r.Roles
	}
	u.HasPassword = u.HasPassword || len(r.Password) > 0
	f.users[r.Name] = u
	return f.change(r.Name)
}

func (f *fakeNode) ImportUsers(_ context.Context, r admin.UserImport) (admin.UserImportResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out admin.UserImportResult
	for _, e := range r.Users {
		u, found := f.users[e.Name]
		if found {
			out.Changed++
		} else {
			out.Added++
		}
		u.Name, u.HasPassword = e.Name, true
		if r.Roles != nil {
			u.Roles = *r.Roles
		}
		f.users[e.Name] = u
	}
	var err error
	out.Change, err = f.change("import")
	return out, err
}

func (f *fakeNode) RemoveUser(_ context.Context, name string) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, found := f.users[name]; !found {
		return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: "no user " + name}
	}
	delete(f.users, name)
	return f.change(name)
}

func (f *fakeNode) ListUsers(_ context.Context, name string) ([]admin.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "" {
		u, found := f.users[name]
		if !found {
			return nil, &admin.Error{Kind: admin.NotFound, Msg: "there is no user " + name + ": add it with mqcluster user add"}
		}
		return []admin.User{u}, nil
	}
	return slices.SortedFunc(maps.Values(f.users), func(a, b admin.User) int { return cmp.Compare(a.Name, b.Name) }), nil
}

func (f *fakeNode) SetAcl(_ context.Context, r admin.Acl) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acls[r.Subject] = r
	return f.change(r.Subject)
}

func (f *fakeNode) ListAcls(_ context.Context, subject string) ([]admin.Acl, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if subject != "" {
		return []admin.Acl{f.acls[subject]}, nil
	}
	return slices.SortedFunc(maps.Values(f.acls), func(a, b admin.Acl) int { return cmp.Compare(a.Subject, b.Subject) }), nil
}

func (f *fakeNode) ExplainAcl(_ context.Context, q admin.AclQuestion) (admin.AclAnswer, error) {
	return admin.AclAnswer{Allowed: q.Action == "publish", Reason: fmt.Sprintf("%s as %s on %s", q.User, q.Client, q.Topic)}, nil
}

func (f *fakeNode) IssueCert(_ context.Context, r admin.CertRequest) (admin.IssuedCert, error) {
	return admin.IssuedCert{
		Cert:    admin.Cert{Serial: "0f", Subject: r.Name, Kind: "client", NotAfter: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)},
		CertPEM: []byte("certificate of " + r.Name + "\n"), KeyPEM: []byte(r.Algorithm + " key\n"), CAPEM: f.ca,
	}, nil
}

func (f *fakeNode) ListCerts(context.Context) ([]admin.Cert, error) {
	return []admin.Cert{
		{Serial: "0f", Subject: "dev1", Kind: "client", NotAfter: time.Date(2130, 1, 1, 0, 0, 0, 0, time.UTC), Revoked: true},
		{Serial: "10", Subject: "evil\x1b[2J", Kind: "client", NotAfter: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
	}, nil
}

func (f *fakeNode) RevokeCert(_ context.Context, serial string) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.change(serial)
}

// CAStatus is of a cluster in the middle of a rotation.
func (f *fakeNode) CAStatus(context.Context) (admin.CAStatus, error) {
	return admin.CAStatus{
		Stage:      admin.CAOverlap,
		CAs:        []admin.CAInfo{{Subject: "old", Pin: "p1", SignsNodes: true}, {Subject: "new", Pin: "p2", SignsClients: true}},
		Nodes:      []admin.CANode{{Node: "a", Trusted: []string{"p1", "p2"}, Signer: "p1", Holds: []string{"p1"}, Sealed: true}, {Node: "b", Trusted: []string{"p1"}, Error: "does not answer"}},
		OldClients: []admin.Cert{{Serial: "0f", Subject: "dev1"}},
	}, nil
}

// RotateCA is not done on node b.
func (f *fakeNode) RotateCA(context.Context, admin.CARequest) (admin.CAResult, error) {
	return admin.CAResult{Change: admin.Change{NotApplied: []string{"b"}}, Stage: admin.CAOverlap}, nil
}

func (f *fakeNode) RetireCA(context.Context, admin.CARequest) (admin.CAResult, error) {
	return admin.CAResult{Stage: admin.CASettled}, nil
}

func (f *fakeNode) CA(context.Context) ([]byte, error) { return f.ca, nil }

func (f *fakeNode) ListSettings(_ context.Context, key string) ([]admin.Setting, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if key != "" && key != "queue.max_messages" {
		return nil, &admin.Error{Kind: admin.NotFound, Msg: "there is no setting " + key}
	}
	s := admin.Setting{Key: "queue.max_messages", Value: "1000000", Default: "1000000", Help: "messages that may wait"}
	if f.limit != "" {
		s.Value, s.Changed = f.limit, true
	}
	return []admin.Setting{s}, nil
}

func (f *fakeNode) SetSetting(_ context.Context, r admin.SettingChange) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Value == "many" {
		return admin.Change{}, &admin.Error{Kind: admin.Invalid, Msg: r.Key + ": \"many\" is not a number of messages: write a whole number from 1"}
	}
	f.limit = r.Value
	return f.change(r.Key)
}
