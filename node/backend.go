package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// backend is the node as the admin API uses it.
type backend struct{ n *Node }

var (
	_ admin.Cluster       = backend{}
	_ admin.Tokens        = backend{}
	_ admin.Users         = backend{}
	_ admin.Acls          = backend{}
	_ admin.Certs         = backend{}
	_ admin.Sessions      = backend{}
	_ admin.Settings      = backend{}
	_ admin.Clock         = backend{}
	_ admin.Backups       = backend{}
	_ admin.Balance       = backend{}
	_ admin.Importer      = backend{}
	_ admin.Authority     = backend{}
	_ admin.Doctor        = backend{}
	_ admin.AclHistory    = backend{}
	_ admin.Bans          = backend{}
	_ admin.Auditor       = backend{}
	_ admin.Verifier      = backend{}
	_ admin.Retained      = backend{}
	_ admin.Tracer        = backend{}
	_ admin.Topper        = backend{}
	_ admin.SessionRepair = backend{}
	_ admin.Observer      = backend{}
	_ admin.Clients       = backend{}
	_ admin.Messages      = backend{}
	_ admin.APITokens     = backend{}
	_ admin.Access        = backend{}
	_ admin.Health        = health{}
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
			History: b, Bans: b, Auditor: b, Authority: b, Doctor: b, Verifier: b, Retained: b, Repair: b, Tracer: b, Topper: b,
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

// askAgain is how long a change waits before it asks another leader.
const askAgain = 100 * time.Millisecond

// enforcedIn is how long it waits then for connections to be ended.
const enforcedIn = 2 * time.Second

// change proposes an item and waits until every leaseholder has applied it.
func (b backend) change(ctx context.Context, item *logpb.Item) (admin.Change, error) {
	item.By = b.n.byAsked(ctx)
	r, err := b.n.proposeResult(ctx, item)
	if f, ok := errors.AsType[*fault](err); item.By != nil && (err == nil || ok && f.status == http.StatusConflict) {
		admin.AskedFrom(ctx).Note() // refused or not, the log says by whom
	}
	if err != nil {
		return admin.Change{}, adminError(err)
	}
	return b.everywhere(ctx, r.Pos.Index())
}

// everywhere waits until every leaseholder has applied the change at an index.
func (b backend) everywhere(ctx context.Context, index uint64) (admin.Change, error) {
	c := admin.Change{Index: index, NotApplied: []string{}}
	for until := time.Now().Add(everywhereIn); ; {
		missing, err := askLeader(ctx, b.n, pathApplied, c.Index, b.n.waitApplied)
		if err == nil {
			c.NotApplied = append(c.NotApplied, missing...)
			return c, nil
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return c, adminError(fmt.Errorf("the change is made, but whether every node has it is not known: %w", err))
		}
		// The lead has changed hands, which the change has survived.
		select {
		case <-ctx.Done():
		case <-time.After(askAgain):
		}
	}
}

func (n *Node) waitApplied(ctx context.Context, index uint64) ([]string, error) {
	within, cancel := context.WithTimeout(ctx, everywhereIn)
	defer cancel()
	missing, err := n.consensus.WaitApplied(within, index)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	if err != nil {
		return missing, err
	}
	return n.waitEnforced(ctx, missing), nil
}

// waitEnforced waits until the members that have applied a change have also ended
// the connections that it forbids, and adds those that were not in time.
func (n *Node) waitEnforced(ctx context.Context, missing []string) []string {
	ctx, cancel := context.WithTimeout(ctx, enforcedIn)
	defer cancel()
	n.expelBroken()
	var mu sync.Mutex
	var wg sync.WaitGroup
	behind := slices.Clone(missing)
	for _, m := range n.store.Members() {
		// One that is down holds no lease and serves nobody; one of an older version
		// does so by itself, a moment later, and knows no such question.
		if m.Node == n.cfg.Node.ID || m.Incarnation == 0 || slices.Contains(missing, m.Node) {
			continue
		}
		wg.Go(func() {
			err := n.call(ctx, m.Node, pathEnforced, none{}, new(none))
			if f, ok := errors.AsType[*fault](err); err == nil || ok && f.status == http.StatusNotFound {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			behind = append(behind, m.Node)
		})
	}
	wg.Wait()
	slices.Sort(behind)
	return behind
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
	if r.Quota != nil {
		if err := b.n.quotaInto(put, *r.Quota); err != nil {
			return admin.Change{}, err
		}
	}
	if err := b.n.hashInto(put, r.Password); err != nil {
		return admin.Change{}, err
	}
	return b.changeUser(ctx, put)
}

// quotaInto puts a user's limits into a change.
func (n *Node) quotaInto(put *logpb.UserPut, q admin.Quota) error {
	for _, l := range []struct {
		name string
		v    int
		most int
	}{
		{"message rate", q.MessageRate, 1 << 30}, {"byte rate", q.ByteRate, 1 << 40}, {"number of connections", q.Connections, 1 << 24},
		{"number of subscriptions", q.Subscriptions, 1 << 24}, {"packet size", q.PacketSize, int(16 * MiB)},
		{"number in flight", q.Inflight, 65535}, {"number of topic levels", q.TopicLevels, 65535},
	} {
		if l.v < 0 || l.v > l.most {
			return invalid(fmt.Errorf("the %s %d is out of range: write 0 for no limit, or up to %d", l.name, l.v, l.most))
		}
	}
	if q.PacketSize != 0 && q.PacketSize < 64 {
		return invalid(fmt.Errorf("the packet size %d is too small for any CONNECT: write at least 64", q.PacketSize))
	}
	put.SetQuota = true
	put.Quota = &logpb.Quota{
		MessageRate: uint32(q.MessageRate), ByteRate: uint64(q.ByteRate), Connections: uint32(q.Connections), Subscriptions: uint32(q.Subscriptions),
		PacketSize: uint32(q.PacketSize), Inflight: uint32(q.Inflight), TopicLevels: uint32(q.TopicLevels),
	}
	if q == (admin.Quota{}) {
		put.Quota = nil
	}
	return n.reached("limits of a user")
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
	n.scramInto(put, password)
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
			out = append(out, admin.User{
				Name: u.Name, Disabled: u.Disabled, HasPassword: u.Hash != "", Scram: u.Scram != "", Roles: u.Roles, Quota: quotaOf(u.Quota),
			})
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
	put, err := b.n.aclRecord(r)
	if err != nil {
		return admin.Change{}, err
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
		out = append(out, admin.Acl{Subject: a.Subject, Rules: ruleTexts(a.Rules)})
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
	return explained(b.n.store.Policy(), q, action), nil
}
