package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// backend is the node as the admin API uses it.
type backend struct{ n *Node }

var (
	_ admin.Cluster   = backend{}
	_ admin.Tokens    = backend{}
	_ admin.Users     = backend{}
	_ admin.Acls      = backend{}
	_ admin.Certs     = backend{}
	_ admin.Sessions  = backend{}
	_ admin.Settings  = backend{}
	_ admin.Clock     = backend{}
	_ admin.Backups   = backend{}
	_ admin.Balance   = backend{}
	_ admin.Importer  = backend{}
	_ admin.Observer  = backend{}
	_ admin.Clients   = backend{}
	_ admin.Messages  = backend{}
	_ admin.APITokens = backend{}
	_ admin.Access    = backend{}
	_ admin.Health    = health{}
)

func (n *Node) openAdmin(ctx context.Context) (err error) {
	b := backend{n}
	settings, err := n.openAPITLS()
	if err != nil {
		return err
	}
	n.admin, err = admin.Open(ctx, admin.Config{
		Node: n.cfg.Node.ID, Socket: n.cfg.Admin.Socket, HealthListen: n.cfg.Health.Listen, APIListen: n.cfg.API.Listen,
	}, admin.Deps{
		Backend: admin.Backend{
			Cluster: b, Tokens: b, Users: b, Acls: b, Certs: b, Sessions: b, Settings: b, Clock: b, Backups: b, Balance: b, Importer: b,
			Observer: b, Clients: b, Messages: b, APITokens: b,
		},
		TLS: settings, Access: b,
		Health: health{n}, Gatherer: n.reg, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.push("admin", n.admin.Close)
	return nil
}

// adminError gives an error the kind that the admin API knows.
func adminError(err error) error {
	if err == nil {
		return nil
	}
	f, ok := errors.AsType[*fault](err)
	if !ok {
		return err
	}
	kind := admin.Internal
	switch f.status {
	case http.StatusNotFound:
		kind = admin.NotFound
	case http.StatusConflict:
		kind = admin.Conflict
	case http.StatusBadRequest:
		kind = admin.Invalid
	case http.StatusServiceUnavailable:
		kind = admin.Unavailable
	case http.StatusForbidden:
		kind = admin.Denied
	}
	return &admin.Error{Kind: kind, Msg: f.text}
}

func invalid(err error) error { return &admin.Error{Kind: admin.Invalid, Msg: err.Error()} }

// everywhereIn is how long a change waits for all leaseholders.
const everywhereIn = 5 * time.Second

// change proposes an item and waits until every leaseholder has applied it.
func (b backend) change(ctx context.Context, item *logpb.Item) (admin.Change, error) {
	r, err := b.n.proposeResult(ctx, item)
	if err != nil {
		return admin.Change{}, adminError(err)
	}
	return b.everywhere(ctx, r.Pos.Index())
}

// everywhere waits until every leaseholder has applied the change at an index.
func (b backend) everywhere(ctx context.Context, index uint64) (admin.Change, error) {
	c := admin.Change{Index: index, NotApplied: []string{}}
	missing, err := askLeader(ctx, b.n, pathApplied, c.Index, b.n.waitApplied)
	if err != nil {
		return c, adminError(fmt.Errorf("the change is made, but whether every node has it is not known: %w", err))
	}
	c.NotApplied = append(c.NotApplied, missing...)
	return c, nil
}

func (n *Node) waitApplied(ctx context.Context, index uint64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, everywhereIn)
	defer cancel()
	missing, err := n.consensus.WaitApplied(ctx, index)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return missing, err
}

func (n *Node) serveApplied(ctx context.Context, _ string, index uint64) ([]string, error) {
	return n.waitApplied(ctx, index)
}

// The defaults of a join token.
const (
	tokenUses = 1
	tokenTTL  = time.Hour
)

// CreateToken implements admin.Tokens.
func (b backend) CreateToken(ctx context.Context, r admin.TokenRequest) (admin.Token, error) {
	if r.Uses == 0 {
		r.Uses = tokenUses
	}
	if r.TTL == 0 {
		r.TTL = tokenTTL
	}
	if r.Uses < 0 || r.Uses > 1000 || r.TTL < 0 || r.TTL > 366*24*time.Hour {
		return admin.Token{}, invalid(errors.New("a join token has 1 to 1000 uses and lives at most a year"))
	}
	token, err := mtls.NewToken(b.n.identity.Pin())
	if err != nil {
		return admin.Token{}, err
	}
	created := b.n.store.Stamp()
	until := created + r.TTL.Milliseconds()
	c, err := b.change(ctx, &logpb.Item{Kind: &logpb.Item_TokenPut{TokenPut: &logpb.TokenPut{
		Id: token.ID(), Hash: token.Hash(), ExpiresAt: until, Uses: uint32(r.Uses),
	}}})
	if err != nil {
		return admin.Token{}, err
	}
	return admin.Token{
		TokenInfo: admin.TokenInfo{ID: token.ID(), CreatedAt: time.UnixMilli(created), ExpiresAt: time.UnixMilli(until), Uses: r.Uses},
		Token:     token.String(), JoinCommand: joinCommand(b.n.cfg.Mesh.Advertise, token), Change: c,
	}, nil
}

// ListTokens implements admin.Tokens.
func (b backend) ListTokens(context.Context) ([]admin.TokenInfo, error) {
	var out []admin.TokenInfo
	for _, t := range b.n.store.Tokens() {
		out = append(out, admin.TokenInfo{
			ID: t.Id, CreatedAt: time.UnixMilli(t.CreatedAt), ExpiresAt: time.UnixMilli(t.ExpiresAt),
			Uses: int(t.Uses), Used: len(t.KeyHashes),
		})
	}
	return out, nil
}

// RevokeToken implements admin.Tokens.
func (b backend) RevokeToken(ctx context.Context, id string) (admin.Change, error) {
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_TokenRevoke{TokenRevoke: &logpb.TokenRevoke{Id: id}}})
}

// AddUser implements admin.Users.
func (b backend) AddUser(ctx context.Context, r admin.UserAdd) (admin.Change, error) {
	if err := auth.ValidUser(r.Name); err != nil {
		return admin.Change{}, invalid(err)
	}
	put := &logpb.UserPut{Name: r.Name, Roles: r.Roles, SetRoles: true, Create: true}
	if err := b.n.hashInto(put, r.Password); err != nil {
		return admin.Change{}, err
	}
	return b.changeUser(ctx, put)
}

// SetUser implements admin.Users.
func (b backend) SetUser(ctx context.Context, r admin.UserSet) (admin.Change, error) {
	put := &logpb.UserPut{Name: r.Name, Disabled: r.Disabled, Update: true}
	if r.Roles != nil {
		put.Roles, put.SetRoles = *r.Roles, true
	}
	if err := b.n.hashInto(put, r.Password); err != nil {
		return admin.Change{}, err
	}
	return b.changeUser(ctx, put)
}

func (b backend) changeUser(ctx context.Context, put *logpb.UserPut) (admin.Change, error) {
	for _, role := range put.Roles {
		if err := auth.ValidRole(role); err != nil {
			return admin.Change{}, invalid(err)
		}
	}
	if put.Update && b.n.findUser(put.Name) == nil {
		return admin.Change{}, noUser(put.Name)
	}
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: put}})
}

func noUser(name string) error {
	return &admin.Error{Kind: admin.NotFound, Msg: fmt.Sprintf("there is no user %q: add it with mqcluster user add %s", name, name)}
}

func (n *Node) findUser(name string) *logpb.User {
	for _, u := range n.store.Users() {
		if u.Name == name {
			return u
		}
	}
	return nil
}

// hashInto hashes a password here, so that the log holds no more than its hash.
func (n *Node) hashInto(put *logpb.UserPut, password []byte) error {
	if len(password) == 0 {
		return nil
	}
	h, err := auth.Hash(password, n.hashCost())
	put.Hash = &h
	return err
}

// RemoveUser implements admin.Users.
func (b backend) RemoveUser(ctx context.Context, name string) (admin.Change, error) {
	if b.n.findUser(name) == nil {
		return admin.Change{}, noUser(name)
	}
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_UserRemove{UserRemove: &logpb.UserRemove{Name: name}}})
}

// ListUsers implements admin.Users.
func (b backend) ListUsers(_ context.Context, name string) ([]admin.User, error) {
	var out []admin.User
	for _, u := range b.n.store.Users() {
		if name == "" || name == u.Name {
			out = append(out, admin.User{Name: u.Name, Disabled: u.Disabled, HasPassword: u.Hash != "", Roles: u.Roles})
		}
	}
	if name != "" && len(out) == 0 {
		return nil, noUser(name)
	}
	return out, nil
}

// SetAcl implements admin.Acls.
func (b backend) SetAcl(ctx context.Context, r admin.Acl) (admin.Change, error) {
	if err := auth.ValidSubject(r.Subject); err != nil {
		return admin.Change{}, invalid(err)
	}
	put := &logpb.AclPut{Subject: r.Subject}
	for _, text := range r.Rules {
		rule, err := auth.ParseRule(text)
		if err != nil {
			return admin.Change{}, invalid(err)
		}
		put.Rules = append(put.Rules, &logpb.Rule{Allow: rule.Allow, Action: uint32(rule.Action), Filter: rule.Filter})
		if !rule.Action.Wide() {
			if err := b.n.everyoneAt(fsm.LevelImport, "a rule about "+rule.Action.String()); err != nil {
				return admin.Change{}, err
			}
		}
	}
	if r.Subject == auth.Anonymous {
		if err := b.n.everyoneAt(fsm.LevelImport, "the subject anonymous"); err != nil {
			return admin.Change{}, err
		}
	}
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: put}})
}

// ListAcls implements admin.Acls.
func (b backend) ListAcls(_ context.Context, subject string) ([]admin.Acl, error) {
	var out []admin.Acl
	for _, a := range b.n.store.ACLs() {
		if subject != "" && a.Subject != subject {
			continue
		}
		acl := admin.Acl{Subject: a.Subject, Rules: []string{}}
		for _, r := range a.Rules {
			acl.Rules = append(acl.Rules, auth.Rule{Allow: r.Allow, Action: auth.Action(r.Action), Filter: r.Filter}.String())
		}
		out = append(out, acl)
	}
	if subject != "" && len(out) == 0 {
		return nil, &admin.Error{Kind: admin.NotFound, Msg: fmt.Sprintf("%s has no rules: set some with mqcluster acl set %s RULE...", subject, subject)}
	}
	return out, nil
}

// ExplainAcl implements admin.Acls.
func (b backend) ExplainAcl(_ context.Context, q admin.AclQuestion) (admin.AclAnswer, error) {
	action, err := auth.ParseAction(q.Action)
	if err != nil {
		return admin.AclAnswer{}, invalid(err)
	}
	e := b.n.store.Policy().Explain(q.User, q.Client, action, q.Topic)
	a := admin.AclAnswer{Allowed: e.Allowed, Subject: e.Subject, Reason: e.Why}
	if e.Rule != nil {
		a.Rule = e.Rule.String()
	}
	return a, nil
}
