package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// openAPITLS makes the TLS settings of the API's listener, nil if there is none. A
// client may show a certificate of the cluster's CA in the place of a token.
func (n *Node) openAPITLS() (*tls.Config, error) {
	c := n.cfg.API
	if c.Listen == "" {
		return nil, nil
	}
	l, err := mtls.OpenListener(mtls.ListenerConfig{
		CertFile: c.CertFile, KeyFile: c.KeyFile, KeyPassFile: c.KeyPassFile,
		RequestClientCert: true, Revoked: n.store.Revoked,
	}, n.identity)
	if err != nil {
		return nil, fmt.Errorf("the certificate of api.listen cannot be used: %w", err)
	}
	n.wg.Go(func() {
		l.Watch(n.ctx, certCheck, func(err error) {
			if err != nil {
				n.log.Error("changed certificate files are not used", "listener", "api", "err", err)
				return
			}
			n.log.Info("certificate files were reloaded", "listener", "api")
		})
	})
	return l.Config(), nil
}

// APIToken implements admin.Access.
func (b backend) APIToken(id string) (admin.APITokenRecord, bool) {
	t := b.n.store.APIToken(id)
	if t == nil {
		return admin.APITokenRecord{}, false
	}
	return admin.APITokenRecord{Name: t.Name, Role: admin.Role(t.Role), Hash: t.Hash}, true
}

// CertUser implements admin.Access.
func (b backend) CertUser(leaf *x509.Certificate) (string, admin.Role, error) {
	name, err := mtls.ClientName(leaf, mtls.FromCN)
	if err != nil {
		return "", "", &admin.Error{Kind: admin.Unauthenticated, Msg: err.Error()}
	}
	// The connection may be older than the revocation.
	if b.n.store.Revoked(mtls.Serial(leaf)) {
		return "", "", &admin.Error{Kind: admin.Unauthenticated, Msg: fmt.Sprintf("the certificate of %q was revoked: issue a new one with mqcluster cert issue", name)}
	}
	policy := b.n.store.Policy()
	if err := admits(policy, name); err != nil {
		return "", "", &admin.Error{Kind: admin.Unauthenticated, Msg: fmt.Sprintf("the certificate is of %q: %s", name, err)}
	}
	u, _ := policy.User(name)
	role := admin.UserRole(u.Roles)
	if role == "" {
		return "", "", &admin.Error{Kind: admin.Denied, Msg: fmt.Sprintf("user %q has no role here: give it api-viewer, api-operator or api-admin with mqcluster user roles %s", name, name)}
	}
	return name, role, nil
}

// maxTokenName is the longest name of a token, in bytes.
const maxTokenName = 100

// CreateAPIToken implements admin.APITokens.
func (b backend) CreateAPIToken(ctx context.Context, r admin.APITokenRequest) (admin.APIToken, error) {
	switch {
	case !r.Role.Valid():
		return admin.APIToken{}, invalid(fmt.Errorf("the role is %q: write viewer, operator or admin", r.Role))
	case r.Name == "" || len(r.Name) > maxTokenName || auth.ValidUser(r.Name) != nil:
		return admin.APIToken{}, invalid(fmt.Errorf("the name of a token has 1 to %d bytes of text: say who or what uses it", maxTokenName))
	case r.TTL < 0:
		return admin.APIToken{}, invalid(errors.New("a token cannot have expired before it is made"))
	}
	if err := b.n.everyoneAt(fsm.LevelAPI, "a token of the API"); err != nil {
		return admin.APIToken{}, err
	}
	text, id, hash := admin.NewAPIToken()
	now := b.n.store.Stamp()
	put := &logpb.ApiTokenPut{Id: id, Hash: hash, Name: r.Name, Role: string(r.Role)}
	if r.TTL > 0 {
		put.ExpiresAt = now + r.TTL.Milliseconds()
	}
	c, err := b.change(ctx, &logpb.Item{Kind: &logpb.Item_ApiTokenPut{ApiTokenPut: put}})
	if err != nil {
		return admin.APIToken{}, err
	}
	info := admin.APITokenInfo{ID: id, Name: r.Name, Role: r.Role, CreatedAt: time.UnixMilli(now), ExpiresAt: moment(put.ExpiresAt)}
	return admin.APIToken{APITokenInfo: info, Token: text, Change: c}, nil
}

// moment is a time of the log; 0 is the zero time.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// ListAPITokens implements admin.APITokens.
func (b backend) ListAPITokens(context.Context) ([]admin.APITokenInfo, error) {
	out := []admin.APITokenInfo{}
	for _, t := range b.n.store.APITokens() {
		out = append(out, admin.APITokenInfo{
			ID: t.Id, Name: t.Name, Role: admin.Role(t.Role), CreatedAt: moment(t.CreatedAt), ExpiresAt: moment(t.ExpiresAt),
		})
	}
	return out, nil
}

// RemoveAPIToken implements admin.APITokens.
func (b backend) RemoveAPIToken(ctx context.Context, id string) (admin.Change, error) {
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_ApiTokenRemove{ApiTokenRemove: &logpb.ApiTokenRemove{Id: id}}})
}
