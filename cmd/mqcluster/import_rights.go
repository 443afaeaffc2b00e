package main

import (
	"fmt"
	"strings"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/mosquitto"
)

// The subjects besides users and roles.
const (
	everyone  = "*"
	anonymous = "anonymous"
)

// anyRequest are the last rules of * for a mosquitto with an ACL file, where every
// SUBSCRIBE is allowed and each delivery is decided by itself.
var anyRequest = []string{"allow request #", "allow request $SYS/#"}

func (p *importPlan) readACL(file string) error {
	data, err := p.files.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the ACL file cannot be read: %w", err)
	}
	acl, notes, err := mosquitto.ParseACL(file, data)
	if err != nil {
		return err
	}
	p.notes = append(p.notes, notes...)
	for _, u := range acl.Users {
		if p.byCertificate() {
			p.addUser(admin.ImportUser{Name: u.Name}, file)
		}
	}
	p.acls = append(p.acls, p.fileRights(file, acl)...)
	return nil
}

// fileRights says in rules what mosquitto decides by an ACL file: the user's
// denials, what it is granted, the patterns' denials, what they grant, in this
// order.
func (p *importPlan) fileRights(file string, acl *mosquitto.ACL) (out []admin.Acl) {
	patterns := p.fileRules(file, acl.Patterns, true)
	own := map[string][]string{}
	var names []string
	for _, u := range acl.Users {
		names = append(names, u.Name)
		own[u.Name] = p.fileRules(file, u.Rules, false)
	}
	for _, u := range p.users {
		if _, listed := own[u.Name]; !listed && strings.ContainsAny(u.Name, "/+#") {
			names = append(names, u.Name)
		}
	}
	for _, name := range names {
		rules := own[name]
		switch {
		case strings.ContainsAny(name, "+#"):
			// No pattern grants such a user anything.
			rules = append(rules, "deny publish #", "deny receive #", "deny publish $SYS/#", "deny receive $SYS/#")
		case strings.Contains(name, "/"):
			// Here %u never stands for it: its patterns are written out.
			for _, r := range patterns {
				rules = append(rules, strings.ReplaceAll(r, "%u", name))
			}
		}
		if len(rules) > 0 {
			out = append(out, admin.Acl{Subject: "user:" + name, Rules: rules})
		}
	}
	if rules := p.fileRules(file, acl.Anonymous, false); len(rules) > 0 {
		out = append(out, admin.Acl{Subject: anonymous, Rules: rules})
	}
	return append(out, admin.Acl{Subject: everyone, Rules: append(patterns, anyRequest...)})
}

func (p *importPlan) fileRules(file string, rules []mosquitto.Rule, pattern bool) (out []string) {
	for _, r := range rules {
		if !pattern && (strings.Contains(r.Topic, "%u") || strings.Contains(r.Topic, "%c")) {
			p.notes = append(p.notes, mosquitto.Note{
				File: file, Line: r.Line, Text: r.Topic, Verdict: mosquitto.NotSupported,
				Why: "%u and %c stand for names in every rule here, and in mosquitto only in patterns: rename the topic",
			})
			continue
		}
		if r.Access&mosquitto.Deny != 0 {
			out = append(out, "deny publish "+filterText(r.Topic), "deny receive "+filterText(r.Topic))
			continue
		}
		// Mosquitto lets nobody publish below $SYS but bridges.
		if r.Access&mosquitto.Write != 0 && (!strings.HasPrefix(r.Topic, "$SYS") || strings.HasPrefix(r.Topic, "$SYS/broker/connection/")) {
			out = append(out, "allow publish "+filterText(r.Topic))
		}
		if r.Access&mosquitto.Read != 0 {
			out = append(out, "allow receive "+filterText(r.Topic))
		}
	}
	return out
}

// filterText writes a filter as a rule has it.
func filterText(filter string) string {
	if strings.TrimSpace(filter) != filter || strings.HasPrefix(filter, `"`) {
		return fmt.Sprintf("%q", filter)
	}
	return filter
}

func (p *importPlan) readDynsec(file string) error {
	data, err := p.files.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the file of dynamic security cannot be read: %w", err)
	}
	d, notes, err := mosquitto.ParseDynsec(file, data)
	if err != nil {
		return err
	}
	p.notes = append(p.notes, notes...)
	for _, c := range d.Clients {
		p.addUser(admin.ImportUser{Name: c.Name, Hash: c.Hash, Disabled: c.Disabled, Roles: c.Roles}, file)
	}
	p.acls = append(p.acls, p.dynsecRights(file, d)...)
	return nil
}

func (p *importPlan) dynsecRights(file string, d *mosquitto.Dynsec) (out []admin.Acl) {
	of := map[string][]string{}
	for _, role := range d.Roles {
		rules := p.dynsecRules(file, role)
		of[role.Name] = rules
		if len(rules) > 0 {
			out = append(out, admin.Acl{Subject: "role:" + role.Name, Rules: rules})
		}
	}
	var nobody []string
	for _, role := range d.AnonymousRoles {
		nobody = append(nobody, of[role]...)
	}
	if len(nobody) > 0 {
		out = append(out, admin.Acl{Subject: anonymous, Rules: nobody})
	}
	var last []string
	for _, x := range []struct {
		allow  bool
		action string
	}{{d.Default.Send, "publish"}, {d.Default.Receive, "receive"}, {d.Default.Subscribe, "request"}} {
		if x.allow {
			last = append(last, "allow "+x.action+" #")
			if x.action != "publish" {
				last = append(last, "allow "+x.action+" $SYS/#")
			}
		}
	}
	if len(last) > 0 {
		out = append(out, admin.Acl{Subject: everyone, Rules: last})
	}
	return out
}

func (p *importPlan) dynsecRules(file string, role mosquitto.DynsecRole) (out []string) {
	for _, a := range role.ACLs {
		if strings.Contains(a.Topic, "%u") || strings.Contains(a.Topic, "%c") {
			p.notes = append(p.notes, mosquitto.Note{
				File: file, Text: fmt.Sprintf("role %q: %s %s", role.Name, a.Type, a.Topic), Verdict: mosquitto.NotSupported,
				Why: "%u and %c stand for names in rules here, and not in dynamic security of 2.0: rename the topic, or write the rule with mqcluster acl set if names were meant",
			})
			continue
		}
		word := map[bool]string{true: "allow", false: "deny"}[a.Allow]
		switch a.Type {
		case mosquitto.PublishClientSend:
			out = append(out, word+" publish "+filterText(a.Topic))
		case mosquitto.PublishClientReceive:
			out = append(out, word+" receive "+filterText(a.Topic))
		case mosquitto.SubscribeLiteral, mosquitto.SubscribePattern:
			out = append(out, word+" request "+filterText(a.Topic))
		}
	}
	return out
}
