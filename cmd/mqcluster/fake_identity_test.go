package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

// TestAcl lets users do what is in their own subtree, and says by which rules.
func (f *fakeNode) TestAcl(_ context.Context, t admin.AclTest) (out []admin.AclCaseResult, _ error) {
	for _, c := range t.Cases {
		allowed := c.User != "" && strings.HasPrefix(c.Topic, c.User+"/") || len(t.Rules) > 0
		out = append(out, admin.AclCaseResult{AclAnswer: admin.AclAnswer{Allowed: allowed, Reason: "the fake says so"}, Passed: allowed == c.Allowed})
	}
	return out, nil
}

func (f *fakeNode) ListAclVersions(context.Context) ([]admin.AclVersion, error) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	return []admin.AclVersion{
		{Version: 3, At: at, Actor: "uid 0 (root)", Changes: []admin.AclChange{{Subject: "*", Before: []string{}, After: []string{"allow both a", "deny both b"}}}},
		{Version: 4, At: at, Actor: "uid 7", Changes: []admin.AclChange{{Subject: "*", Before: []string{"allow both a", "deny both b"}, After: []string{"deny both b", "allow both c"}}}},
	}, nil
}

func (f *fakeNode) RollbackAcl(_ context.Context, r admin.AclRollback) (admin.AclRolledBack, error) {
	if r.Version > 4 {
		return admin.AclRolledBack{}, &admin.Error{Kind: admin.NotFound, Msg: "version 9 of the ACLs is not kept"}
	}
	if r.Version == 4 {
		return admin.AclRolledBack{}, nil
	}
	return admin.AclRolledBack{Changes: []admin.AclChange{{Subject: "*", Before: []string{"a"}, After: []string{"b"}}}, Change: admin.Change{Index: 5}}, nil
}

func (f *fakeNode) AddBan(_ context.Context, r admin.BanRequest) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := admin.Ban{Kind: r.Kind, Value: r.Value, Since: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Reason: r.Reason}
	if r.Lifetime > 0 {
		b.ExpiresAt = b.Since.Add(r.Lifetime)
	}
	f.bans = append(f.bans, b)
	return f.change(r.Value)
}

func (f *fakeNode) ListBans(context.Context) ([]admin.Ban, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bans), nil
}

func (f *fakeNode) RemoveBan(_ context.Context, r admin.BanRequest) (admin.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.bans)
	f.bans = slices.DeleteFunc(f.bans, func(b admin.Ban) bool { return b.Kind == r.Kind && b.Value == r.Value })
	if len(f.bans) == n {
		return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: "no such ban"}
	}
	return f.change(r.Value)
}

func (f *fakeNode) Audited(context.Context, *admin.Asked, error) {}

func (f *fakeNode) ListAudit(_ context.Context, q admin.AuditQuery) ([]admin.AuditRecord, error) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	out := []admin.AuditRecord{{At: at, Actor: "uid 0 (root)", Node: "a", Operation: "user/add", Subject: "evil\x1b[2J", Detail: "password", Refused: "it exists"}}
	if q.Operation == "acl" {
		return nil, nil
	}
	return out, nil
}
