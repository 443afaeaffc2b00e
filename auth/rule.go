package auth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mqcluster/mqcluster/routing"
)

// Action is what a rule is about; a set of bits.
type Action byte

// The actions. Subscribe is about subscriptions and about what is delivered;
// Request is about subscriptions alone and Receive about deliveries alone, for
// rights such as mosquitto's, where a client may subscribe to # and gets what it
// may read.
const (
	Publish   Action = 1
	Subscribe Action = 2
	Both      Action = Publish | Subscribe
	Receive   Action = 4
	Request   Action = 8
)

// The actions that decide on a SUBSCRIBE and on a delivery.
const (
	ofFilter   = Subscribe | Request
	ofDelivery = Subscribe | Receive
)

// Wide tells whether members of feature level 1 and 2 know the action.
func (a Action) Wide() bool { return a >= Publish && a <= Both }

// String returns the word of the rule language.
func (a Action) String() string {
	switch a {
	case Publish:
		return "publish"
	case Subscribe:
		return "subscribe"
	case Both:
		return "both"
	case Receive:
		return "receive"
	case Request:
		return "request"
	}
	return "action(" + strconv.Itoa(int(a)) + ")"
}

// ParseAction is the inverse of Action.String.
func ParseAction(word string) (Action, error) {
	switch word {
	case "publish":
		return Publish, nil
	case "subscribe":
		return Subscribe, nil
	case "both":
		return Both, nil
	case "receive":
		return Receive, nil
	case "request":
		return Request, nil
	}
	return 0, fmt.Errorf("action %.40q is unknown: write publish, subscribe or both, or receive or request for half of subscribe", word)
}

// Rule allows or denies an action on what Filter matches. In Filter, %u stands
// for the user name and %c for the client id, %{cert.cn}, %{cert.o}, %{cert.ou} and
// %{cert.san.dns} for names in the client's certificate; a rule whose placeholder
// stands for nothing matches nothing.
type Rule struct {
	Allow  bool
	Action Action
	Filter string
}

// Validate tells whether r can be part of an ACL.
func (r Rule) Validate() error {
	if !r.Action.Wide() && r.Action != Receive && r.Action != Request {
		return fmt.Errorf("%v is unknown: write publish, subscribe, both, receive or request", r.Action)
	}
	if !utf8.ValidString(r.Filter) {
		return fmt.Errorf("filter %.40q is not UTF-8", r.Filter)
	}
	if group, inner, shared := routing.SplitShared(r.Filter); shared {
		return fmt.Errorf("filter %.40q is of a shared subscription of group %.20q: rules are about topics, write %.40q", r.Filter, group, inner)
	}
	if err := routing.ValidFilter(r.Filter); err != nil {
		return fmt.Errorf("filter %.40q is not valid: the %w", r.Filter, err)
	}
	return nil
}

// String is the text form: "allow publish sensors/%c/#". The filter is quoted
// as in Go where it could not be read back otherwise.
func (r Rule) String() string {
	word := "deny"
	if r.Allow {
		word = "allow"
	}
	filter := r.Filter
	if plain := strings.TrimSpace(filter); plain != filter || plain == "" || plain[0] == '"' || strings.ContainsFunc(plain, unicode.IsControl) || !utf8.ValidString(plain) {
		filter = strconv.Quote(filter)
	}
	return word + " " + r.Action.String() + " " + filter
}

// ParseRule reads the text form: "allow" or "deny", then "publish", "subscribe"
// or "both", then the filter, which may contain spaces. An error names the word
// that is wrong and what is possible.
func ParseRule(text string) (Rule, error) {
	first, rest := word(text)
	second, filter := word(rest)
	var r Rule
	switch first {
	case "allow":
		r.Allow = true
	case "deny":
	case "":
		return Rule{}, fmt.Errorf("the rule is empty: write allow or deny, then publish, subscribe or both, then a filter")
	default:
		return Rule{}, fmt.Errorf("rule %.60q begins with %.40q: write allow or deny", text, first)
	}
	var err error
	if second == "" {
		return Rule{}, fmt.Errorf("rule %.60q has no action: write publish, subscribe or both after %s", text, first)
	}
	if r.Action, err = ParseAction(second); err != nil {
		return Rule{}, fmt.Errorf("rule %.60q: %w", text, err)
	}
	if filter == "" {
		return Rule{}, fmt.Errorf("rule %.60q has no filter: write one after %s, such as sensors/%%c/#", text, second)
	}
	r.Filter = filter
	if filter[0] == '"' {
		if r.Filter, err = strconv.Unquote(filter); err != nil {
			return Rule{}, fmt.Errorf("rule %.60q: filter %.40s is not well quoted: end it with a quote and write quotes inside as \\\"", text, filter)
		}
	}
	// Not in Validate: a rule of before there were placeholders with names stays what
	// it was.
	if err := errors.Join(r.Validate(), checkPlaceholders(r.Filter)); err != nil {
		return Rule{}, fmt.Errorf("rule %.60q: %w", text, err)
	}
	return r, nil
}

// word cuts the first word off text.
func word(text string) (first, rest string) {
	text = strings.TrimSpace(text)
	i := strings.IndexFunc(text, unicode.IsSpace)
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(text[i:])
}
