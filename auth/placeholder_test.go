package auth_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/auth"
)

func rules(t *testing.T, subject string, texts ...string) auth.ACL {
	t.Helper()
	a := auth.ACL{Subject: subject}
	for _, text := range texts {
		r, err := auth.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		a.Rules = append(a.Rules, r)
	}
	return a
}

func TestCertificatePlaceholders(t *testing.T) {
	p := auth.NewPolicy(0, nil, slices.Values([]auth.ACL{rules(t, "*",
		"deny publish plant/%{cert.ou}/secret", "allow publish plant/%{cert.ou}/+/%u", "allow publish by/%{cert.cn}/#",
		"allow subscribe host/%{cert.san.dns}", "allow subscribe of/%{cert.o}/%c/#", "allow publish odd/100%/%x",
	)}))
	cert := auth.CertFields{CN: "gw7", O: "ACME", OU: "hall7", DNS: "gw7.example.org"}
	for _, tt := range []struct {
		name   string
		w      auth.Who
		action auth.Action
		topic  string
		want   bool
	}{
		{"the unit's", auth.Who{User: "u", Cert: cert}, auth.Publish, "plant/hall7/x/u", true},
		{"another unit's", auth.Who{User: "u", Cert: cert}, auth.Publish, "plant/hall8/x/u", false},
		{"the deny before it", auth.Who{User: "u", Cert: cert}, auth.Publish, "plant/hall7/secret", false},
		{"without a certificate", auth.Who{User: "u"}, auth.Publish, "plant/hall7/x/u", false},
		{"an empty unit is no level", auth.Who{User: "u"}, auth.Publish, "plant//x/u", false},
		{"the common name", auth.Who{Cert: cert}, auth.Publish, "by/gw7/a/b", true},
		{"a name with a wildcard", auth.Who{Cert: auth.CertFields{CN: "+"}}, auth.Publish, "by/gw7/a", false},
		{"a name of two levels", auth.Who{Cert: auth.CertFields{CN: "gw7/a"}}, auth.Publish, "by/gw7/a/b", false},
		{"a name that is a placeholder", auth.Who{User: "u", Cert: auth.CertFields{CN: "%u"}}, auth.Publish, "by/u/a", false},
		{"the DNS name", auth.Who{Cert: cert}, auth.Subscribe, "host/gw7.example.org", true},
		{"organization and client", auth.Who{ClientID: "c", Cert: cert}, auth.Subscribe, "of/ACME/c/x/#", true},
		{"no placeholder", auth.Who{Cert: cert}, auth.Publish, "odd/100%/%x", true},
	} {
		r := p.RightsOf(tt.w)
		got := r.MayPublish(tt.topic)
		if tt.action == auth.Subscribe {
			got = r.MaySubscribe(tt.topic)
		}
		e := p.ExplainTo(tt.w, tt.action, tt.topic)
		if got != tt.want || e.Allowed != tt.want {
			t.Errorf("%s: %v, explained %s", tt.name, got, e)
		}
	}
	for _, bad := range []string{"allow publish a/%{cert.xx}", "allow publish a/%{cert.cn", "allow publish a/%{}", "allow publish a/%{u}"} {
		if _, err := auth.ParseRule(bad); err == nil || !strings.Contains(err.Error(), "cert.") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestTokenRights: the rules of a token count after the user's own, its roles after
// the user's.
func TestTokenRights(t *testing.T) {
	users := []auth.User{{Name: "u", Roles: []string{"r"}}, {Name: "off", Disabled: true}}
	p := auth.NewPolicy(0, slices.Values(users), slices.Values([]auth.ACL{
		rules(t, "user:u", "deny publish a/secret"), rules(t, "role:r", "allow publish b"), rules(t, "role:s", "deny publish b", "allow publish c"),
	}))
	grant := &auth.Grant{Rules: rules(t, "*", "allow publish a/#", "allow publish own/%u").Rules, Roles: []string{"s"}}
	for topic, want := range map[string]bool{"a/x": true, "a/secret": false, "own/u": true, "own/x": false, "b": true, "c": true, "d": false} {
		if got := p.RightsOf(auth.Who{User: "u", Grant: grant}).MayPublish(topic); got != want {
			t.Errorf("publish %s: %v", topic, got)
		}
	}
	if p.RightsOf(auth.Who{User: "u"}).MayPublish("a/x") || p.RightsOf(auth.Who{User: "off", Grant: grant}).MayPublish("a/x") {
		t.Error("without a token, or disabled, the user has the token's rights")
	}
	if !p.RightsOf(auth.Who{User: "unknown", Grant: grant}).MayPublish("own/unknown") {
		t.Error("a user that only the token knows has not its rights")
	}
}

// TestExplainPriority: it is told before which rule the deciding one comes.
func TestExplainPriority(t *testing.T) {
	p := auth.NewPolicy(0, slices.Values([]auth.User{{Name: "u", Roles: []string{"first", "second"}}}), slices.Values([]auth.ACL{
		rules(t, "role:first", "deny publish x", "allow publish #"), rules(t, "role:second", "allow publish x"), rules(t, "*", "deny publish y"),
	}))
	for topic, want := range map[string][]string{
		"x": {`rule 1 of role:first`, `before rule 2 of role:first, "allow publish #"`},
		"y": {`rule 2 of role:first`, `before rule 1 of *, "deny publish y"`},
	} {
		e := p.Explain("u", "c", auth.Publish, topic)
		for _, part := range want {
			if !strings.Contains(e.Why, part) {
				t.Errorf("%s: %q does not say %q", topic, e.Why, part)
			}
		}
	}
	if e := p.Explain("u", "c", auth.Publish, "z"); strings.Contains(e.Why, "before") {
		t.Errorf("z: %s", e.Why)
	}
}

func FuzzPlaceholders(f *testing.F) {
	f.Add("a/%{cert.cn}/%u", "name", "client")
	f.Add("%{cert.o}%c%", "$x", "+")
	f.Fuzz(func(t *testing.T, filter, name, client string) {
		r, err := auth.ParseRule("allow both " + filter)
		if err != nil {
			return
		}
		p := auth.NewPolicy(0, nil, slices.Values([]auth.ACL{{Subject: "*", Rules: []auth.Rule{r}}}))
		w := auth.Who{User: name, ClientID: client, Cert: auth.CertFields{CN: name, O: client, OU: name, DNS: name}}
		rights := p.RightsOf(w)
		// Whatever a name is, it is one level, and opens nothing that begins with $.
		if !strings.HasPrefix(r.Filter, "$") && rights.MayPublish("$SYS/x") {
			t.Fatalf("%q opens $SYS to %q", r, name)
		}
	})
}
