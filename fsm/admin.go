package fsm

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// adminItem applies a command of an operator or of the cluster itself.
func (a *applier) adminItem(it *logpb.Item, r *Result) error {
	switch k := it.Kind.(type) {
	case *logpb.Item_UserPut:
		r.Err = a.userPut(k.UserPut, r)
	case *logpb.Item_UserRemove:
		r.Err = a.userRemove(k.UserRemove)
	case *logpb.Item_AclPut:
		a.aclPut(it.By.GetActor(), k.AclPut)
	case *logpb.Item_AclReplace:
		r.Err = a.aclReplace(it.By.GetActor(), k.AclReplace)
	case *logpb.Item_BanPut:
		r.Err = a.banPut(k.BanPut)
	case *logpb.Item_BanRemove:
		r.Err = a.banRemove(k.BanRemove)
	case *logpb.Item_AuditPut:
		a.journal(r.Pos, k.AuditPut.By, k.AuditPut.Outcome)
	case *logpb.Item_SecretPut:
		a.secretPut(k.SecretPut)
	case *logpb.Item_TokenPut:
		a.tokenPut(k.TokenPut)
	case *logpb.Item_TokenSpend:
		r.Err = a.tokenSpend(k.TokenSpend)
	case *logpb.Item_TokenRevoke:
		r.Err = a.tokenRevoke(k.TokenRevoke)
	case *logpb.Item_ApiTokenPut:
		r.Err = a.apiTokenPut(k.ApiTokenPut)
	case *logpb.Item_ApiTokenRemove:
		r.Err = a.apiTokenRemove(k.ApiTokenRemove)
	case *logpb.Item_AdminPublish:
		a.adminPublish(k.AdminPublish, r)
	case *logpb.Item_MemberPut:
		a.memberPut(k.MemberPut)
	case *logpb.Item_MemberRemove:
		r.Err = a.memberRemove(k.MemberRemove)
	case *logpb.Item_CertPut:
		a.certPut(k.CertPut)
	case *logpb.Item_SettingPut:
		a.putSetting(k.SettingPut)
	case *logpb.Item_Trim:
		a.trim(k.Trim)
	default:
		return errUnknownCommand
	}
	return nil
}

func (a *applier) userPut(c *logpb.UserPut, r *Result) error {
	old := a.users[c.Name]
	switch {
	case c.Create && old != nil:
		return refused("user %q exists already", c.Name)
	case c.Update && old == nil:
		return refused("there is no user %q", c.Name)
	}
	u := &logpb.User{Name: c.Name}
	if old != nil {
		u = proto.CloneOf(old)
	}
	if c.Replaces != "" {
		if u.Hash != c.Replaces || c.Hash == nil {
			return nil // somebody was first
		}
		u.Hash = *c.Hash // and Version stays: the password is the same
		if c.Scram != "" {
			u.Scram = c.Scram
		}
		c = &logpb.UserPut{Name: c.Name}
	}
	if c.Hash != nil && *c.Hash != u.Hash {
		u.Hash, u.Scram, u.Version = *c.Hash, c.Scram, uint64(r.Pos)
	}
	if c.Disabled != nil && *c.Disabled != u.Disabled {
		u.Disabled, u.Version = *c.Disabled, uint64(r.Pos)
	}
	if c.SetRoles {
		u.Roles = c.Roles
	}
	if c.SetQuota {
		u.Quota = c.Quota
	}
	a.users[c.Name] = u
	a.setProto(appendString(keyUser, c.Name), u)
	a.policy = a.policy.WithUser(userOf(u))
	a.emit(Event{Kind: EventPolicy})
	return nil
}

func (a *applier) userRemove(c *logpb.UserRemove) error {
	if a.users[c.Name] == nil {
		return refused("there is no user %q", c.Name)
	}
	delete(a.users, c.Name)
	a.del(appendString(keyUser, c.Name))
	a.policy = a.policy.WithoutUser(c.Name)
	a.emit(Event{Kind: EventPolicy})
	return nil
}

func userOf(u *logpb.User) auth.User {
	out := auth.User{Name: u.Name, Hash: u.Hash, Disabled: u.Disabled, Roles: u.Roles, Version: u.Version, Scram: u.Scram}
	if q := u.Quota; q != nil {
		out.Quota = auth.Quota{
			MessageRate: int(q.MessageRate), ByteRate: int(min(q.ByteRate, 1<<40)), Connections: int(q.Connections),
			Subscriptions: int(q.Subscriptions), PacketSize: int(q.PacketSize), Inflight: int(q.Inflight), TopicLevels: int(q.TopicLevels),
		}
	}
	return out
}

func aclOf(c *logpb.Acl) auth.ACL {
	return auth.ACL{Subject: c.Subject, Rules: rulesOf(c.Rules)}
}

func rulesOf(rules []*logpb.Rule) (out []auth.Rule) {
	for _, r := range rules {
		out = append(out, auth.Rule{Allow: r.Allow, Action: auth.Action(r.Action), Filter: r.Filter})
	}
	return out
}

func (a *applier) tokenPut(c *logpb.TokenPut) {
	t := &logpb.Token{Id: c.Id, Hash: c.Hash, ExpiresAt: c.ExpiresAt, Uses: c.Uses, CreatedAt: a.stamp}
	a.tokens[c.Id] = t
	a.setProto(appendString(keyToken, c.Id), t)
}

// tokenSpend takes one use of a token for a key; the same key again is free.
func (a *applier) tokenSpend(c *logpb.TokenSpend) error {
	t := a.tokens[c.Id]
	if t == nil || subtle.ConstantTimeCompare(t.Hash, c.Hash) != 1 {
		return refused("the join token is not known: make a new one with mqcluster token create")
	}
	if slices.ContainsFunc(t.KeyHashes, func(h []byte) bool { return bytes.Equal(h, c.KeyHash) }) {
		return nil
	}
	if t.ExpiresAt <= a.stamp {
		return refused("the join token has expired: make a new one with mqcluster token create")
	}
	if len(t.KeyHashes) >= int(t.Uses) {
		return refused("the join token has been used by another node: make a new one with mqcluster token create")
	}
	t = proto.CloneOf(t)
	t.KeyHashes = append(t.KeyHashes, c.KeyHash)
	a.tokens[c.Id] = t
	a.setProto(appendString(keyToken, c.Id), t)
	return nil
}

func (a *applier) tokenRevoke(c *logpb.TokenRevoke) error {
	if a.tokens[c.Id] == nil {
		return refused("there is no token %q", c.Id)
	}
	delete(a.tokens, c.Id)
	a.del(appendString(keyToken, c.Id))
	return nil
}

// memberPut admits a node or changes its address or vote. A node that comes
// with another store is a new member in the old one's place.
func (a *applier) memberPut(c *logpb.MemberPut) {
	m := a.members[c.Node]
	if m == nil {
		m = &member{rec: &logpb.Member{Node: c.Node, JoinedAt: a.stamp}}
		a.members[c.Node] = m
	}
	if m.rec.Incarnation != 0 && m.rec.Store != c.Store {
		a.nodeDown(m)
	}
	rec := proto.CloneOf(m.rec)
	rec.Store, rec.Address, rec.Voter, rec.ServingOnly = c.Store, c.Address, c.Voter, c.ServingOnly
	a.putMember(m, rec)
}

func (a *applier) memberRemove(c *logpb.MemberRemove) error {
	m := a.members[c.Node]
	if m == nil || (c.Store != "" && m.rec.Store != c.Store) {
		return refused("there is no member %q", c.Node)
	}
	if m.rec.Incarnation != 0 {
		a.nodeDown(m)
	}
	delete(a.members, c.Node)
	a.del(appendString(keyMember, c.Node))
	a.del(appendString(keyPack, c.Node))
	a.setMembers()
	a.reach()
	a.emit(Event{Kind: EventMembers})
	return nil
}

func (a *applier) certPut(c *logpb.CertPut) {
	rec := &logpb.Cert{
		Serial: c.Serial, Subject: c.Subject, Kind: c.Kind,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: c.Revoked,
	}
	a.certs[c.Serial] = rec
	a.table.certs.Store(c.Serial, rec)
	a.setProto(appendString(keyCert, c.Serial), rec)
	if c.Revoked {
		a.emit(Event{Kind: EventPolicy})
	}
}
