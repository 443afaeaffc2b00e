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

// Rights returns what the user may do as that client id. A user that the policy
// does not know, such as one that only a certificate names, has its own rules
// and those of everyone; a disabled one has no rights.
func (p *Policy) Rights(user, clientID string) *Rights {
	sets, _ := p.chain(user)
	r := &Rights{
		publish:   make([][]check, 0, len(sets)),
		subscribe: make([][]check, 0, len(sets)),
		receive:   make([][]check, 0, len(sets)),
	}
	for _, s := range sets {
		c := s.checks
		if s.template {
			c = compile(s.acl.Rules, user, clientID)
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
	// template: some rule has %u or %c, so that the checks are made per client.
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
		s.template = s.template || strings.Contains(r.Filter, "%u") || strings.Contains(r.Filter, "%c")
	}
	if !s.template {
		s.checks = compile(s.acl.Rules, "", "")
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
func compile(rules []Rule, user, clientID string) (out checks) {
	split := slices.ContainsFunc(rules, func(r Rule) bool { return r.Action == Receive || r.Action == Request })
	for _, r := range rules {
		filter, never := expand(r.Filter, user, clientID)
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

// expand puts user and client id in place of %u and %c. never says why the
// result matches nothing.
func expand(filter, user, clientID string) (_, never string) {
	if !strings.Contains(filter, "%") {
		return filter, ""
	}
	var b strings.Builder
	// One pass, so that a name that contains %c stays what it is.
	for rest := filter; ; {
		i := strings.IndexByte(rest, '%')
		if i < 0 || i+1 == len(rest) {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		switch rest[i+1] {
		case 'u':
			if never = unusable("%u", "user name", user); never != "" {
				return "", never
			}
			b.WriteString(user)
		case 'c':
			if never = unusable("%c", "client id", clientID); never != "" {
				return "", never
			}
			b.WriteString(clientID)
		default:
			b.WriteByte('%')
			rest = rest[i+1:]
			continue
		}
		rest = rest[i+2:]
	}
	out := b.String()
	if out[0] == '$' && filter[0] != '$' {
		// Otherwise a client id would open $SYS.
		return "", "a name that begins with $ never stands at the beginning of a filter"
	}
	return out, ""
}

func unusable(placeholder, what, name string) string {
	switch {
	case name == "":
		return "the " + what + " for " + placeholder + " is empty"
	case strings.ContainsAny(name, "/+#\x00"):
		return "a " + what + " with /, + or # in it never stands for " + placeholder
	}
	return ""
}
