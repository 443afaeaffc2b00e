package auth

import (
	"iter"
	"slices"
)

// Policy is all users and access rules at one time. It is immutable and safe for
// concurrent use. A changed one shares what did not change: users and rules are
// in 1,024 shards by name, and a change copies one of them and the list.
//
// A decision takes the rules of the user in order, then those that a token brings,
// then those of each of its roles, then those of "*"; the first that matches
// decides, and nothing that matches means no.
type Policy struct {
	version uint64
	users   shards[*User]
	acls    shards[*ruleset]
}

// NewPolicy returns the policy of those users and ACLs; either may be nil. Of
// several with the same name the last one counts. Rules that are not valid match
// nothing: ACL.Validate is for whoever accepts them. version is the first one;
// in place of an earlier Policy it must be greater than that one's.
func NewPolicy(version uint64, users iter.Seq[User], acls iter.Seq[ACL]) *Policy {
	return &Policy{
		version: version,
		users: newShards(func(yield func(string, *User) bool) {
			if users == nil {
				return
			}
			for u := range users {
				if !yield(u.Name, u.clone()) {
					return
				}
			}
		}),
		acls: newShards(func(yield func(string, *ruleset) bool) {
			if acls == nil {
				return
			}
			for a := range acls {
				if len(a.Rules) > 0 && !yield(a.Subject, newRuleset(a)) {
					return
				}
			}
		}),
	}
}

// Version changes, and only grows, with every change of the policy.
func (p *Policy) Version() uint64 { return p.version }

// WithUser returns a policy, one version on, in which u takes the place of any
// user of that name.
func (p *Policy) WithUser(u User) *Policy {
	return &Policy{version: p.version + 1, users: p.users.with(u.Name, u.clone()), acls: p.acls}
}

// WithoutUser returns a policy, one version on, without that user. Rules whose
// subject is the user stay.
func (p *Policy) WithoutUser(name string) *Policy {
	return &Policy{version: p.version + 1, users: p.users.without(name), acls: p.acls}
}

// WithACL returns a policy, one version on, in which a takes the place of the
// subject's rules. No rules remove them.
func (p *Policy) WithACL(a ACL) *Policy {
	next := &Policy{version: p.version + 1, users: p.users}
	if len(a.Rules) == 0 {
		next.acls = p.acls.without(a.Subject)
	} else {
		next.acls = p.acls.with(a.Subject, newRuleset(a))
	}
	return next
}

// User returns the user of that name. Its Roles are read-only.
func (p *Policy) User(name string) (User, bool) {
	u, ok := p.users.get(name)
	if !ok {
		return User{}, false
	}
	return *u, true
}

// ACL returns the subject's rules, which are read-only.
func (p *Policy) ACL(subject string) (ACL, bool) {
	s, ok := p.acls.get(subject)
	if !ok {
		return ACL{}, false
	}
	return s.acl, true
}

// Users yields all users by name, for listings.
func (p *Policy) Users() iter.Seq[User] {
	return func(yield func(User) bool) {
		p.users.all()(func(u *User) bool { return yield(*u) })
	}
}

// ACLs yields the rules of all subjects that have some, by subject.
func (p *Policy) ACLs() iter.Seq[ACL] {
	return func(yield func(ACL) bool) {
		p.acls.all()(func(s *ruleset) bool { return yield(s.acl) })
	}
}

// Len returns the number of users and of subjects with rules.
func (p *Policy) Len() (users, subjects int) { return p.users.n, p.acls.n }

func (u User) clone() *User {
	u.Roles = slices.Clone(u.Roles)
	return &u
}

// TokenSubject is the subject of rules that a token brings.
const TokenSubject = "token"

// chain returns the rules that count for a client, in order. The name "" is nobody
// and has the rules of Anonymous and everyone; a disabled user has none at all.
func (p *Policy) chain(w *Who) (sets []*ruleset, disabled bool) {
	u, known := p.users.get(w.User)
	if known && u.Disabled {
		return nil, true
	}
	add := func(subject string) {
		if s, ok := p.acls.get(subject); ok {
			sets = append(sets, s)
		}
	}
	if w.User == "" {
		add(Anonymous)
	} else {
		add(UserSubject(w.User))
	}
	if w.Grant != nil && len(w.Grant.Rules) > 0 {
		sets = append(sets, newRuleset(ACL{Subject: TokenSubject, Rules: w.Grant.Rules}))
	}
	if known {
		for _, role := range u.Roles {
			add(RoleSubject(role))
		}
	}
	if w.Grant != nil {
		for _, role := range w.Grant.Roles {
			add(RoleSubject(role))
		}
	}
	add(Everyone)
	return sets, false
}
