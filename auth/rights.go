package auth

import (
	"slices"
	"strings"

	"github.com/mqcluster/mqcluster/routing"
)

// Rights are what one user may do as one client id under one Policy. They are
// immutable and safe for concurrent use; no check allocates.
type Rights struct {
	publish   [][]check // one list per subject, in the order that counts
	subscribe [][]check
	receive   [][]check
}

// Who is a client, as far as rights depend on it.
type Who struct {
	User     string // "" is nobody
	ClientID string
	Cert     CertFields // of its certificate; empty without one
	// Grant is what a token says beside the user's name; nil without one.
	Grant *Grant
}

// Grant is rights that a token brings along. It is read-only.
type Grant struct {
	Roles []string // after the user's own
	Rules []Rule   // after those of user:NAME, before those of roles
}

// Rights returns what the user may do as that client id, without a certificate.
func (p *Policy) Rights(user, clientID string) *Rights {
	return p.RightsOf(Who{User: user, ClientID: clientID})
}

// RightsOf returns what a client may do. A user that the policy does not know, such
// as one that only a certificate names, has its own rules and those of everyone; a
// disabled one has no rights.
func (p *Policy) RightsOf(w Who) *Rights {
	sets, _ := p.chain(&w)
	r := &Rights{
		publish:   make([][]check, 0, len(sets)),
		subscribe: make([][]check, 0, len(sets)),
		receive:   make([][]check, 0, len(sets)),
	}
	for _, s := range sets {
		c := s.checks
		if s.template {
			c = compile(s.acl.Rules, &w)
		}
		if len(c.publish) > 0 {
			r.publish = append(r.publish, c.publish)
		}
		if len(c.subscribe) > 0 {
			r.subscribe = append(r.subscribe, c.subscribe)
		}
		if len(c.receive) > 0 {
			r.receive = append(r.receive, c.receive)
		}
	}
	return r
}

// MayPublish tells whether the client may publish to topic, its will included.
func (r *Rights) MayPublish(topic string) bool { return mayTopic(r.publish, topic) }

// MayReceive tells whether a message of topic may be delivered to the client. A
// deny rule inside a filter that the client may subscribe to holds by it.
func (r *Rights) MayReceive(topic string) bool { return mayTopic(r.receive, topic) }

// MaySubscribe tells whether the client may subscribe to filter; of a shared one
// the inner filter counts. A rule decides if it covers the whole filter.
func (r *Rights) MaySubscribe(filter string) bool {
	_, inner, _ := routing.SplitShared(filter)
	if inner == "" {
		return false
	}
	for _, list := range r.subscribe {
		for i := range list {
			if routing.Covers(list[i].filter, inner) {
				return list[i].allow
			}
		}
	}
	return false
}

func mayTopic(lists [][]check, topic string) bool {
	if topic == "" {
		return false
	}
	for _, list := range lists {
		for i := range list {
			if list[i].match(topic) {
				return list[i].allow
			}
		}
	}
	return false
}

// ruleset is one ACL, compiled.
type ruleset struct {
	acl ACL
	// template: some rule has a placeholder, so that the checks are made per client.
	template bool
	checks
}

// checks are the rules of a subject by what they decide on.
type checks struct {
	publish, subscribe, receive []check
}

func newRuleset(a ACL) *ruleset {
	s := &ruleset{acl: ACL{Subject: a.Subject, Rules: slices.Clone(a.Rules)}}
	for _, r := range a.Rules {
		s.template = s.template || hasPlaceholder(r.Filter)
	}
	if !s.template {
		s.checks = compile(s.acl.Rules, &Who{})
	}
	return s
}

// check is a rule, ready to be asked.
type check struct {
	filter string
	// base is what a topic must be, or be below where tree is set. With loose set
	// only routing.Match knows.
	base        string
	tree, loose bool
	allow       bool
}

// compile makes the checks of rules for a client, in order. Rules that cannot
// match are left out.
func compile(rules []Rule, w *Who) (out checks) {
	split := slices.ContainsFunc(rules, func(r Rule) bool { return r.Action == Receive || r.Action == Request })
	for _, r := range rules {
		filter, never := expand(r.Filter, w)
		if never != "" || r.Validate() != nil {
			continue
		}
		c := newCheck(filter, r.Allow)
		if r.Action&Publish != 0 {
			out.publish = append(out.publish, c)
		}
		if r.Action&ofFilter != 0 {
			out.subscribe = append(out.subscribe, c)
		}
		if split && r.Action&ofDelivery != 0 {
			out.receive = append(out.receive, c)
		}
	}
	if !split {
		out.receive = out.subscribe
	}
	return out
}

func newCheck(filter string, allow bool) check {
	c := check{filter: filter, allow: allow, base: filter}
	c.base, c.tree = strings.CutSuffix(filter, "/#")
	c.loose = strings.ContainsAny(c.base, "+#")
	return c
}

func (c *check) match(topic string) bool {
	if c.loose {
		return routing.Match(c.filter, topic)
	}
	rest, ok := strings.CutPrefix(topic, c.base)
	return ok && (rest == "" || c.tree && rest[0] == '/')
}
