package node

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// aclRecord reads the rules of a subject. Those that some member would not
// understand are refused.
func (n *Node) aclRecord(r admin.Acl) (*logpb.AclPut, error) {
	a, err := parseACL(r)
	if err != nil {
		return nil, invalid(err)
	}
	for _, rule := range a.Rules {
		if !rule.Action.Wide() {
			err = n.everyoneAt(fsm.LevelImport, "a rule about "+rule.Action.String())
		}
		if err == nil && rule.Named() {
			err = n.reached("a rule about certificates")
		}
		if err != nil {
			return nil, err
		}
	}
	if r.Subject == auth.Anonymous {
		if err := n.everyoneAt(fsm.LevelImport, "the subject anonymous"); err != nil {
			return nil, err
		}
	}
	return &logpb.AclPut{Subject: r.Subject, Rules: ruleRecords(a.Rules)}, nil
}

// parseACL reads the rules of a subject.
func parseACL(r admin.Acl) (auth.ACL, error) {
	a := auth.ACL{Subject: r.Subject}
	if err := auth.ValidSubject(r.Subject); err != nil {
		return a, err
	}
	for _, text := range r.Rules {
		rule, err := auth.ParseRule(text)
		if err != nil {
			return a, err
		}
		a.Rules = append(a.Rules, rule)
	}
	return a, nil
}

func ruleTexts(rules []*logpb.Rule) []string {
	out := []string{}
	for _, r := range rules {
		out = append(out, auth.Rule{Allow: r.Allow, Action: auth.Action(r.Action), Filter: r.Filter}.String())
	}
	return out
}

func quotaOf(q *logpb.Quota) (out admin.Quota) {
	if q == nil {
		return out
	}
	return admin.Quota{
		MessageRate: int(q.MessageRate), ByteRate: int(q.ByteRate), Connections: int(q.Connections), Subscriptions: int(q.Subscriptions),
		PacketSize: int(q.PacketSize), Inflight: int(q.Inflight), TopicLevels: int(q.TopicLevels),
	}
}

// explained answers a question by a policy.
func explained(p *auth.Policy, q admin.AclQuestion, action auth.Action) admin.AclAnswer {
	w := auth.Who{User: q.User, ClientID: q.Client, Cert: auth.CertFields(q.Cert)}
	if len(q.Roles) > 0 {
		w.Grant = &auth.Grant{Roles: q.Roles}
	}
	e := p.ExplainTo(w, action, q.Topic)
	a := admin.AclAnswer{Allowed: e.Allowed, Subject: e.Subject, Reason: e.Why}
	if e.Rule != nil {
		a.Rule = e.Rule.String()
	}
	return a
}

// TestAcl implements admin.AclHistory.
func (b backend) TestAcl(_ context.Context, t admin.AclTest) ([]admin.AclCaseResult, error) {
	if len(t.Cases) > admin.MaxAclCases {
		return nil, invalid(fmt.Errorf("%d cases are too many: send at most %d at once", len(t.Cases), admin.MaxAclCases))
	}
	policy := b.n.store.Policy()
	for _, r := range t.Rules {
		a, err := parseACL(r)
		if err != nil {
			return nil, invalid(err)
		}
		policy = policy.WithACL(a)
	}
	out := make([]admin.AclCaseResult, 0, len(t.Cases))
	for i, c := range t.Cases {
		action, err := auth.ParseAction(c.Action)
		if err != nil {
			return nil, invalid(fmt.Errorf("case %d: %w", i+1, err))
		}
		a := explained(policy, c.AclQuestion, action)
		out = append(out, admin.AclCaseResult{AclAnswer: a, Passed: a.Allowed == c.Allowed})
	}
	return out, nil
}

// ListAclVersions implements admin.AclHistory.
func (b backend) ListAclVersions(context.Context) ([]admin.AclVersion, error) {
	var out []admin.AclVersion
	for _, v := range b.n.store.Versions() {
		a := admin.AclVersion{Version: v.Version, At: time.UnixMilli(v.Stamp), Actor: v.Actor}
		for _, c := range v.Changes {
			a.Changes = append(a.Changes, aclChange(c.Subject, c.Before, c.After))
		}
		out = append(out, a)
	}
	return out, nil
}

func aclChange(subject string, before, after []*logpb.Rule) admin.AclChange {
	return admin.AclChange{Subject: subject, Before: ruleTexts(before), After: ruleTexts(after)}
}

// RollbackAcl implements admin.AclHistory.
func (b backend) RollbackAcl(ctx context.Context, r admin.AclRollback) (admin.AclRolledBack, error) {
	out := admin.AclRolledBack{Changes: []admin.AclChange{}, Change: admin.Change{NotApplied: []string{}}}
	if err := b.n.reached("a rollback"); err != nil {
		return out, err
	}
	// The rules first: should a version come between the two, the log refuses.
	acls, current := b.n.store.VersionedACLs()
	then, err := aclsAt(b.n.store.Versions(), r.Version, current)
	if err != nil {
		return out, adminError(err)
	}
	replace := &logpb.AclReplace{Version: current}
	for _, subject := range slices.Sorted(maps.Keys(then)) {
		if r.Subject != "" && r.Subject != subject {
			continue
		}
		var now []*logpb.Rule
		if i := slices.IndexFunc(acls, func(a *logpb.Acl) bool { return a.Subject == subject }); i >= 0 {
			now = acls[i].Rules
		}
		if c := aclChange(subject, now, then[subject]); !slices.Equal(c.Before, c.After) {
			out.Changes = append(out.Changes, c)
			replace.Acls = append(replace.Acls, &logpb.AclPut{Subject: subject, Rules: then[subject]})
		}
	}
	if len(replace.Acls) == 0 {
		return out, nil
	}
	out.Change, err = b.change(ctx, &logpb.Item{Kind: &logpb.Item_AclReplace{AclReplace: replace}})
	return out, err
}

// aclsAt returns the rules at a version of every subject that was changed since.
func aclsAt(versions []*logpb.AclVersion, at, current uint64) (map[string][]*logpb.Rule, error) {
	oldest := current
	if len(versions) > 0 {
		oldest = versions[0].Version - 1 // what was before the oldest change is in it
	}
	if at < oldest || at > current {
		return nil, faultf(http.StatusNotFound, "version %d of the ACLs is not kept, there are %d to %d: see mqcluster acl history", at, oldest, current)
	}
	then := map[string][]*logpb.Rule{}
	for _, v := range slices.Backward(versions) {
		if v.Version <= at {
			break
		}
		for _, c := range v.Changes {
			then[c.Subject] = c.Before
		}
	}
	return then, nil
}
