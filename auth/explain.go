package auth

import (
	"fmt"
	"strings"

	"github.com/mqcluster/mqcluster/routing"
)

// Explanation is a decision with its reason.
type Explanation struct {
	Allowed bool
	// Subject, Rule and Index are those of the rule that decided; Rule is nil and
	// Index -1 if none did. Index counts from 0 in the subject's ACL.
	Subject string
	Rule    *Rule
	Index   int
	// Why is a sentence for an operator.
	Why string
}

// String is what an operator reads.
func (e Explanation) String() string {
	if e.Allowed {
		return "allowed: " + e.Why
	}
	return "denied: " + e.Why
}

// Explain says what Rights decide, and why. For Subscribe, target is a filter
// (Receive asks about the delivery of a topic); for Publish a topic. Both needs both to
// be allowed and explains the one that is not.
func (p *Policy) Explain(user, clientID string, action Action, target string) Explanation {
	return p.ExplainTo(Who{User: user, ClientID: clientID}, action, target)
}

// ExplainTo is Explain for a client with a certificate or a token.
func (p *Policy) ExplainTo(w Who, action Action, target string) Explanation {
	if action == Both {
		if e := p.ExplainTo(w, Publish, target); !e.Allowed {
			return e
		}
		return p.ExplainTo(w, Subscribe, target)
	}
	user := w.User
	who := fmt.Sprintf("user %q as client %q", user, w.ClientID)
	if user == "" {
		who = fmt.Sprintf("a client without a user as client %q", w.ClientID)
	}
	e := Explanation{Index: -1}
	inner := target
	var err error
	switch action {
	case Publish:
		err = routing.ValidTopic(target)
	case Subscribe, Request, Receive:
		err = routing.ValidFilter(target)
		_, inner, _ = routing.SplitShared(target)
	default:
		err = fmt.Errorf("%v is unknown: ask about publish, subscribe or both", action)
	}
	if err != nil {
		e.Why = fmt.Sprintf("%q cannot be asked about: the %v", target, err)
		return e
	}
	sets, disabled := p.chain(&w)
	if disabled {
		e.Why = fmt.Sprintf("user %q is disabled and may do nothing", user)
		return e
	}
	x := explainer{who: &w, action: action, inner: inner}
	doing := fmt.Sprintf("%s may not %s %q", who, action, target)
	if !x.find(sets, &e) {
		e.Why = doing + ": " + x.nothing(p, sets, user)
		return e
	}
	if e.Allowed {
		doing = fmt.Sprintf("%s may %s %q", who, action, target)
	}
	e.Why = fmt.Sprintf("%s by rule %d of %s, %q%s", doing, e.Index+1, e.Subject, e.Rule, x.notes())
	return e
}

// explainer walks the rules as Rights do and notes what it sees.
type explainer struct {
	who      *Who
	inner    string
	action   Action
	expanded string   // the deciding filter, if it had placeholders
	skipped  []string // rules that can never match this client
	inside   []string // deny rules that hold inside an allowed filter
	// passed is the first rule that would have decided otherwise, had it come first.
	passed string
}

// find looks for the rule that decides, and then on for one that would have decided
// otherwise, had it come first.
func (x *explainer) find(sets []*ruleset, e *Explanation) (found bool) {
	for _, s := range sets {
		for i, r := range s.acl.Rules {
			if r.Action&x.deciding() == 0 || r.Validate() != nil {
				continue
			}
			filter, never := expand(r.Filter, x.who)
			switch {
			case found:
				if never == "" && r.Allow != e.Allowed && routing.Covers(filter, x.inner) {
					x.passed = fmt.Sprintf("it comes before rule %d of %s, %q, which would decide otherwise", i+1, s.acl.Subject, r)
					return true
				}
			case never != "":
				x.skipped = append(x.skipped, fmt.Sprintf("rule %d of %s, %q, is skipped: %s", i+1, s.acl.Subject, r, never))
			case routing.Covers(filter, x.inner):
				e.Allowed, e.Subject, e.Rule, e.Index = r.Allow, s.acl.Subject, &r, i
				if filter != r.Filter {
					x.expanded = filter
				}
				found = true
			case !r.Allow && routing.Overlaps(filter, x.inner):
				x.inside = append(x.inside, fmt.Sprintf("rule %d of %s, %q, withholds what it matches", i+1, s.acl.Subject, r))
			}
		}
	}
	return found
}

// deciding returns the actions of the rules that count: of a subscription, those
// about its filter, unless deliveries are asked about.
func (x *explainer) deciding() Action {
	switch x.action {
	case Subscribe, Request:
		return ofFilter
	case Receive:
		return ofDelivery
	}
	return x.action
}

func (x *explainer) notes() string {
	var b strings.Builder
	if x.expanded != "" {
		fmt.Fprintf(&b, " (here %q)", x.expanded)
	}
	for _, n := range append(x.skipped, x.inside...) {
		b.WriteString("; " + n)
	}
	if x.passed != "" {
		b.WriteString("; " + x.passed)
	}
	return b.String()
}

// nothing says why no rule matched.
func (x *explainer) nothing(p *Policy, sets []*ruleset, user string) string {
	subjects := make([]string, 0, len(sets))
	for _, s := range sets {
		subjects = append(subjects, s.acl.Subject)
	}
	why := "no rule of " + strings.Join(subjects, ", ") + " matches, and what no rule allows is denied"
	if len(sets) == 0 {
		why = "neither the user, nor its roles, nor * have rules, and what no rule allows is denied"
	}
	if _, known := p.users.get(user); !known && user != "" {
		why += "; there is no such user, so it has no roles"
	}
	if len(x.skipped) > 0 {
		why += "; " + strings.Join(x.skipped, "; ")
	}
	return why
}
