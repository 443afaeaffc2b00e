package mosquitto

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dynsec is the state of the dynamic-security plugin. Priorities are already in
// the order: what mosquitto asks first comes first.
type Dynsec struct {
	Clients []DynsecClient
	Roles   []DynsecRole
	// AnonymousRoles are those of clients without a user name, by the group that
	// the file names for them.
	AnonymousRoles []string
	Default        DynsecDefault
}

// DynsecClient is a user.
type DynsecClient struct {
	Name string
	// Hash is $7$ITERATIONS$SALT$SUM as in a password file; empty without one.
	Hash     string
	Disabled bool
	// ClientID, if set, is the only one that the user may connect as.
	ClientID string
	// Roles are its own, then those of its groups.
	Roles []string
}

// DynsecRole is a role with its rules.
type DynsecRole struct {
	Name string
	ACLs []DynsecACL
}

// DynsecACL is one rule of a role.
type DynsecACL struct {
	Type  string // one of the types below
	Topic string
	Allow bool
}

// The types of DynsecACL.
const (
	PublishClientSend    = "publishClientSend"
	PublishClientReceive = "publishClientReceive"
	SubscribeLiteral     = "subscribeLiteral"
	SubscribePattern     = "subscribePattern"
	UnsubscribeLiteral   = "unsubscribeLiteral"
	UnsubscribePattern   = "unsubscribePattern"
)

// DynsecDefault is what is allowed where no rule matches.
type DynsecDefault struct {
	Send, Receive, Subscribe, Unsubscribe bool
}

// dynsecFile is the JSON. Texts and descriptions are not read.
type dynsecFile struct {
	Default   map[string]bool `json:"defaultACLAccess"`
	Anonymous string          `json:"anonymousGroup"`
	Clients   []struct {
		Username   string     `json:"username"`
		ClientID   string     `json:"clientid"`
		Password   string     `json:"password"`
		Salt       string     `json:"salt"`
		Iterations int        `json:"iterations"`
		Encoded    string     `json:"encoded_password"` // of later versions
		Disabled   bool       `json:"disabled"`
		Roles      []roleRef  `json:"roles"`
		Groups     []groupRef `json:"groups"`
	} `json:"clients"`
	Groups []struct {
		Groupname string      `json:"groupname"`
		Roles     []roleRef   `json:"roles"`
		Clients   []clientRef `json:"clients"`
	} `json:"groups"`
	Roles []struct {
		Rolename string   `json:"rolename"`
		ACLs     []aclRef `json:"acls"`
	} `json:"roles"`
}

type aclRef struct {
	Type     string `json:"acltype"`
	Topic    string `json:"topic"`
	Priority int    `json:"priority"`
	Allow    bool   `json:"allow"`
}

type roleRef struct {
	Rolename string `json:"rolename"`
	Priority int    `json:"priority"`
}

type groupRef struct {
	Groupname string `json:"groupname"`
	Priority  int    `json:"priority"`
}

type clientRef struct {
	Username string `json:"username"`
	Priority int    `json:"priority"`
}

func (a aclRef) rank() int {
	if a.Type == SubscribeLiteral {
		return 0
	}
	return 1
}

// ParseDynsec reads dynamic-security.json. The notes have a line for every
// client, group, rule and default.
func ParseDynsec(file string, data []byte) (*Dynsec, []Note, error) {
	if err := bounded(file, data); err != nil {
		return nil, nil, err
	}
	var f dynsecFile
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&f); err != nil {
		return nil, nil, fmt.Errorf("%s is no file of the dynamic security plugin: %w", file, err)
	}
	r := dynsecReader{file: file, f: &f, out: new(Dynsec)}
	r.defaults()
	r.roles()
	r.groups()
	r.clients()
	return r.out, r.notes, nil
}

type dynsecReader struct {
	file  string
	f     *dynsecFile
	out   *Dynsec
	notes []Note
	known map[string]bool       // roles
	group map[string][]string   // their roles, in order
	in    map[string][]groupRef // of clients, as the groups list them
}

func (r *dynsecReader) note(v Verdict, why, format string, args ...any) {
	r.notes = append(r.notes, noted(r.file, 0, fmt.Sprintf(format, args...), v, why))
}

func (r *dynsecReader) defaults() {
	d := &r.out.Default
	for _, k := range slices.Sorted(maps.Keys(r.f.Default)) {
		allow := r.f.Default[k]
		v, why := Taken, "the last rules of *"
		switch k {
		case PublishClientSend:
			d.Send = allow
		case PublishClientReceive:
			d.Receive = allow
		case "subscribe":
			d.Subscribe = allow
		case "unsubscribe":
			d.Unsubscribe = allow
			v, why = NotNeeded, "a client may always unsubscribe"
			if !allow {
				v, why = NotSupported, "a client may always unsubscribe: nothing to do unless something relies on it"
			}
		default:
			v, why = NotSupported, "the default is not known: write rules of * with mqcluster acl set"
		}
		r.note(v, why, "defaultACLAccess %s: %v", k, allow)
	}
}

func (r *dynsecReader) roles() {
	r.known = map[string]bool{}
	for _, role := range r.f.Roles {
		if role.Rolename == "" || r.known[role.Rolename] {
			r.note(NotSupported, "it has no name or one that an earlier role has: rename it and import again", "role %q", role.Rolename)
			continue
		}
		r.known[role.Rolename] = true
		r.note(Taken, "it becomes role:"+role.Rolename, "role %q", role.Rolename)
		acls := slices.Clone(role.ACLs)
		// Of a role, literal filters are looked at before patterns, whatever the priority.
		slices.SortStableFunc(acls, func(a, b aclRef) int {
			return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.Priority, a.Priority))
		})
		out := DynsecRole{Name: role.Rolename}
		for _, a := range acls {
			acl := DynsecACL{Type: a.Type, Topic: a.Topic, Allow: a.Allow}
			v, why := acl.verdict()
			if v == Taken {
				out.ACLs = append(out.ACLs, acl)
			}
			r.note(v, why, "role %q: %s %s, allow %v, priority %d", role.Rolename, a.Type, a.Topic, a.Allow, a.Priority)
		}
		r.out.Roles = append(r.out.Roles, out)
	}
}

// verdict says whether the rule can be expressed.
func (a DynsecACL) verdict() (Verdict, string) {
	if why := badFilter(a.Topic); why != "" {
		return NotSupported, why + ": correct the rule"
	}
	wild := strings.ContainsAny(a.Topic, "+#")
	switch a.Type {
	case PublishClientSend, PublishClientReceive, SubscribePattern:
		return Taken, "a rule of the role"
	case SubscribeLiteral:
		switch {
		case !wild:
			return Taken, "a rule of the role"
		case a.Allow:
			return Taken, "a rule of the role; it allows narrower filters as well, mosquitto this one alone"
		}
		return NotSupported, "a rule about one filter with wildcards is not known, one about it and all narrower ones would refuse more: allow what may be subscribed to, and nothing else is"
	case UnsubscribeLiteral, UnsubscribePattern:
		if a.Allow {
			return NotNeeded, "a client may always unsubscribe"
		}
		return NotSupported, "a client may always unsubscribe: nothing to do unless something relies on it"
	}
	return NotSupported, "the type of the rule is not known: write it with mqcluster acl set"
}

func (r *dynsecReader) groups() {
	r.group, r.in = map[string][]string{}, map[string][]groupRef{}
	for _, g := range r.f.Groups {
		r.group[g.Groupname] = r.roleNames(g.Roles, "group", g.Groupname)
		for _, c := range g.Clients {
			r.in[c.Username] = append(r.in[c.Username], groupRef{g.Groupname, c.Priority})
		}
		r.note(Taken, "its roles are given to its clients themselves", "group %q", g.Groupname)
	}
	if name := r.f.Anonymous; name != "" {
		roles, ok := r.group[name]
		if !ok {
			r.note(NotSupported, "there is no such group: correct it", "anonymousGroup %q", name)
			return
		}
		r.out.AnonymousRoles = roles
		r.note(Taken, "the rules of its roles become those of anonymous", "anonymousGroup %q", name)
	}
}

// roleNames returns the names of roles by priority, those that exist.
func (r *dynsecReader) roleNames(refs []roleRef, kind, name string) []string {
	refs = slices.Clone(refs)
	slices.SortStableFunc(refs, func(a, b roleRef) int { return cmp.Compare(b.Priority, a.Priority) })
	var out []string
	for _, ref := range refs {
		if !r.known[ref.Rolename] {
			r.note(NotSupported, "there is no such role: correct it", "%s %q: role %q", kind, name, ref.Rolename)
			continue
		}
		out = append(out, ref.Rolename)
	}
	return out
}

func (r *dynsecReader) clients() {
	seen := map[string]bool{}
	for _, c := range r.f.Clients {
		if c.Username == "" || seen[c.Username] {
			r.note(NotSupported, "it has no user name or one that an earlier client has: rename it and import again", "client %q", c.Username)
			continue
		}
		seen[c.Username] = true
		out := DynsecClient{Name: c.Username, Disabled: c.Disabled, ClientID: c.ClientID}
		v, why := Taken, "the same password goes on working and is hashed with argon2id at the next login"
		switch {
		case c.Encoded != "":
			out.Hash = c.Encoded
		case c.Password != "":
			out.Hash = fmt.Sprintf("$7$%d$%s$%s", c.Iterations, c.Salt, c.Password)
		default:
			why = "it has no password, and only a certificate can prove it"
		}
		if out.Hash != "" && unusableHash(c.Username, out.Hash) != "" {
			v, why = NotSupported, "its password cannot be verified: the user is taken without one, set it with mqcluster user passwd"
			out.Hash = ""
		}
		out.Roles = r.roleNames(c.Roles, "client", c.Username)
		// Either list may name the groups; the client's own has the priorities.
		refs := slices.Concat(c.Groups, r.in[c.Username])
		slices.SortStableFunc(refs, func(a, b groupRef) int { return cmp.Compare(b.Priority, a.Priority) })
		for _, g := range refs {
			out.Roles = append(out.Roles, r.group[g.Groupname]...)
		}
		out.Roles = firsts(out.Roles)
		r.out.Clients = append(r.out.Clients, out)
		r.note(v, why, "client %q", c.Username)
		if c.ClientID != "" {
			r.note(NotSupported, "a user is not bound to a client id: write rules with %c, or give the client a certificate", "client %q: clientid %q", c.Username, c.ClientID)
		}
	}
}

// firsts leaves the first of equal names.
func firsts(names []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(n string) bool {
		was := seen[n]
		seen[n] = true
		return was
	})
}
