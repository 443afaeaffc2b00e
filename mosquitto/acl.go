package mosquitto

import (
	"fmt"
	"slices"
	"strings"
)

// Access is what an ACL line is about.
type Access byte

// The accesses. Deny is about reading and writing.
const (
	Read Access = 1 << iota
	Write
	Deny

	ReadWrite = Read | Write
)

// Rule is one line of an ACL file.
type Rule struct {
	Line   int
	Access Access
	Topic  string
}

// ACL is an ACL file. Mosquitto asks, of a client, first the rules of its user
// (Anonymous without one), then Patterns; in each the denials before the rest. The
// first that matches decides, and none means no. SUBSCRIBE itself is always
// allowed: what may be read is decided at each delivery.
type ACL struct {
	Anonymous []Rule
	Users     []UserRules // in the order of the file
	// Patterns count for all; %u and %c stand for user name and client id.
	Patterns []Rule
}

// UserRules are those of one user.
type UserRules struct {
	Line  int // of the first "user" line
	Name  string
	Rules []Rule
}

// ParseACL reads an ACL file. In every list the denials come first, which is the
// order in which mosquitto looks at them. A line that has an error is in the notes
// and nowhere else; mosquitto would refuse the file.
func ParseACL(file string, data []byte) (*ACL, []Note, error) {
	if err := bounded(file, data); err != nil {
		return nil, nil, err
	}
	p := aclParser{acl: new(ACL), at: map[string]int{}, user: -1}
	var notes []Note
	for n, line := range lines(data) {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		v, why := p.line(n, line)
		notes = append(notes, noted(file, n, line, v, why))
	}
	denialsFirst(p.acl.Anonymous)
	denialsFirst(p.acl.Patterns)
	for _, u := range p.acl.Users {
		denialsFirst(u.Rules)
	}
	return p.acl, notes, nil
}

func denialsFirst(rules []Rule) {
	slices.SortStableFunc(rules, func(a, b Rule) int {
		return int(b.Access&Deny) - int(a.Access&Deny)
	})
}

type aclParser struct {
	acl  *ACL
	at   map[string]int // of users in acl.Users
	user int            // whose section it is; -1: anonymous
}

// line takes one line that is neither empty nor a comment.
func (p *aclParser) line(n int, line string) (Verdict, string) {
	if len(line) > maxLine {
		return NotSupported, fmt.Sprintf("the line is longer than %d bytes: write the rule with mqcluster acl set", maxLine)
	}
	word, rest, _ := strings.Cut(strings.TrimRight(line, " \t"), " ")
	rest = strings.TrimLeft(rest, " ")
	switch word {
	case "user":
		return p.section(n, rest)
	case "topic", "pattern":
		return p.rule(n, word, rest)
	}
	return NotSupported, fmt.Sprintf("a line begins with user, topic or pattern, this with %.20q: mosquitto refuses such a file, correct it", word)
}

func (p *aclParser) section(n int, name string) (Verdict, string) {
	if name == "" {
		return NotSupported, "it names no user: mosquitto refuses such a file, correct it"
	}
	i, known := p.at[name]
	if !known {
		i = len(p.acl.Users)
		p.at[name] = i
		p.acl.Users = append(p.acl.Users, UserRules{Line: n, Name: name})
	}
	p.user = i
	return Taken, fmt.Sprintf("the rules that follow are those of user:%s", name)
}

func (p *aclParser) rule(n int, word, rest string) (Verdict, string) {
	access := ReadWrite
	if first, topic, more := strings.Cut(rest, " "); more {
		switch first {
		case "read":
			access, rest = Read, topic
		case "write":
			access, rest = Write, topic
		case "readwrite":
			rest = topic
		case "deny":
			access, rest = Deny, topic
		default:
			return NotSupported, fmt.Sprintf("%.20q is none of read, write, readwrite and deny, which a topic with blanks needs: mosquitto refuses such a file, correct it", first)
		}
		rest = strings.TrimLeft(rest, " ")
	}
	if why := badFilter(rest); why != "" {
		return NotSupported, why + ": mosquitto refuses such a file, correct it"
	}
	r := Rule{Line: n, Access: access, Topic: rest}
	if word == "pattern" {
		p.acl.Patterns = append(p.acl.Patterns, r)
		why := "a rule of *"
		if !strings.Contains(rest, "%u") && !strings.Contains(rest, "%c") {
			why += " (without %u and %c it holds for everybody)"
		}
		return Taken, why
	}
	if p.user < 0 {
		p.acl.Anonymous = append(p.acl.Anonymous, r)
		return Taken, "a rule of anonymous, the clients without a user name"
	}
	u := &p.acl.Users[p.user]
	u.Rules = append(u.Rules, r)
	return Taken, "a rule of user:" + u.Name
}

// badFilter says what is wrong with a topic filter, or "".
func badFilter(filter string) string {
	if filter == "" {
		return "it has no topic"
	}
	if len(filter) > 65535 || strings.ContainsRune(filter, 0) {
		return "the topic is too long or has a NUL"
	}
	levels := strings.Split(filter, "/")
	for i, l := range levels {
		if l == "+" || l == "#" && i == len(levels)-1 {
			continue
		}
		if strings.ContainsAny(l, "+#") {
			return "+ and # stand for a whole level, # only at the end"
		}
	}
	return ""
}
