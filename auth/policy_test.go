package auth_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/routing"
	"pgregory.net/rapid"
)

func acl(t *testing.T, subject string, rules ...string) auth.ACL {
	t.Helper()
	a := auth.ACL{Subject: subject}
	for _, text := range rules {
		r, err := auth.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		a.Rules = append(a.Rules, r)
	}
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	return a
}

func policy(t *testing.T) *auth.Policy {
	return auth.NewPolicy(1, slices.Values([]auth.User{
		{Name: "ann", Roles: []string{"sensor", "none", "operator"}},
		{Name: "bob", Roles: []string{"operator"}},
		{Name: "off", Roles: []string{"operator"}, Disabled: true},
		{Name: "a/b", Roles: []string{"sensor"}},
		{Name: "%c", Roles: []string{"sensor"}},
		{Name: "$SYS", Roles: []string{"sensor"}},
	}), slices.Values([]auth.ACL{
		acl(t, "user:ann", "deny publish sensors/ann/locked", "allow subscribe news"),
		acl(t, "role:sensor", "allow publish sensors/%u/#", "allow both dev-%c/+/x", "allow subscribe %u/#"),
		acl(t, "role:operator", "deny both sensors/+/secret", "allow both sensors/#", "allow subscribe $SYS/#"),
		acl(t, "*", "deny both private/#", "allow subscribe public/#", "allow publish +/ping"),
	}))
}

func TestRights(t *testing.T) {
	p := policy(t)
	for _, c := range []struct {
		user, client, op, target string
		want                     bool
	}{
		{"ann", "c1", "publish", "sensors/ann/t", true},
		{"ann", "c1", "publish", "sensors/ann", true},
		{"ann", "c1", "publish", "sensors/ann/locked", false}, // own rules before roles
		{"ann", "c1", "publish", "sensors/bob/t", true},       // by the second role
		{"ann", "c1", "publish", "sensors/ann/secret", true},  // the first role before the second
		{"ann", "c1", "publish", "sensors/bob/secret", false},
		{"ann", "c1", "publish", "dev-c1/a/x", true},
		{"ann", "c1", "publish", "dev-c2/a/x", false},
		{"ann", "a/b", "publish", "dev-a/b/x", false},
		{"ann", "+", "subscribe", "dev-+/a/x", false},
		{"ann", "c1", "subscribe", "dev-c1/+/x", true},
		{"ann", "c1", "subscribe", "dev-c1/#", false},
		{"ann", "c1", "subscribe", "news", true},
		{"ann", "c1", "publish", "news", false},
		{"ann", "c1", "subscribe", "ann/#", true},
		{"bob", "c1", "subscribe", "sensors/#", true}, // the deny inside does not cover it
		{"bob", "c1", "receive", "sensors/x/temp", true},
		{"bob", "c1", "receive", "sensors/x/secret", false}, // but holds on delivery
		{"bob", "c1", "subscribe", "sensors/+/secret", false},
		{"bob", "c1", "subscribe", "$share/g/sensors/#", true},
		{"bob", "c1", "subscribe", "$share/g/sensors/+/secret", false},
		{"bob", "c1", "subscribe", "$share/g", false},
		{"bob", "c1", "subscribe", "#", false},
		{"bob", "c1", "subscribe", "$SYS/broker/#", true},
		{"bob", "c1", "publish", "$SYS/x", false},
		{"bob", "c1", "publish", "any/ping", true},
		{"bob", "c1", "publish", "$any/ping", false},
		{"bob", "c1", "receive", "private", false},
		{"bob", "c1", "publish", "", false},
		{"off", "c1", "publish", "sensors/x", false},
		{"off", "c1", "subscribe", "public/x", false},
		{"nobody", "c1", "subscribe", "public/x", true},
		{"nobody", "c1", "publish", "sensors/nobody/x", false},
		{"", "c1", "subscribe", "public/x", true},
		{"a/b", "c1", "publish", "sensors/a/b", false},
		{"%c", "c1", "publish", "sensors/%c/t", true},
		{"%c", "c1", "publish", "sensors/c1/t", false},
		{"$SYS", "c1", "subscribe", "$SYS/#", false}, // a name opens no $ topics
		{"$SYS", "c1", "publish", "sensors/$SYS/x", true},
	} {
		r := p.Rights(c.user, c.client)
		action, ask := auth.Subscribe, r.MaySubscribe
		switch c.op {
		case "publish":
			action, ask = auth.Publish, r.MayPublish
		case "receive":
			ask = r.MayReceive
		}
		if got := ask(c.target); got != c.want {
			t.Errorf("%s/%s may %s %q: %v", c.user, c.client, c.op, c.target, got)
		}
		e := p.Explain(c.user, c.client, action, c.target)
		if e.Allowed != c.want || e.Why == "" || strings.HasPrefix(e.String(), "allowed: ") != c.want {
			t.Errorf("Explain contradicts: %s", e)
		}
	}
}

func TestExplain(t *testing.T) {
	p := policy(t)
	for _, c := range []struct {
		user, client string
		action       auth.Action
		target, want string
		index        int
	}{
		{"ann", "c1", auth.Publish, "sensors/ann/t", `allowed: user "ann" as client "c1" may publish "sensors/ann/t" by rule 1 of role:sensor, "allow publish sensors/%u/#" (here "sensors/ann/#")`, 0},
		{"bob", "c1", auth.Subscribe, "sensors/#", `allowed: user "bob" as client "c1" may subscribe "sensors/#" by rule 2 of role:operator, "allow both sensors/#"; rule 1 of role:operator, "deny both sensors/+/secret", withholds what it matches`, 1},
		{"bob", "c1", auth.Publish, "x", `denied: user "bob" as client "c1" may not publish "x": no rule of role:operator, * matches, and what no rule allows is denied`, -1},
		{"bob", "c1", auth.Both, "private/x", `denied: user "bob" as client "c1" may not publish "private/x" by rule 1 of *, "deny both private/#"`, 0},
		{"a/b", "c1", auth.Publish, "sensors/a/b", `denied: user "a/b" as client "c1" may not publish "sensors/a/b": no rule of role:sensor, * matches, and what no rule allows is denied; rule 1 of role:sensor, "allow publish sensors/%u/#", is skipped: a user name with /, + or # in it never stands for %u`, -1},
		{"eve", "c1", auth.Publish, "x", `denied: user "eve" as client "c1" may not publish "x": no rule of * matches, and what no rule allows is denied; there is no such user, so it has no roles`, -1},
		{"off", "c1", auth.Publish, "x", `denied: user "off" is disabled and may do nothing`, -1},
		{"bob", "c1", auth.Publish, "a/+", `denied: "a/+" cannot be asked about: the topic contains a wildcard, which only filters may`, -1},
		{"bob", "c1", 9, "a", `denied: "a" cannot be asked about: the action(9) is unknown: ask about publish, subscribe or both`, -1},
	} {
		e := p.Explain(c.user, c.client, c.action, c.target)
		if diff := cmp.Diff(c.want, e.String()); diff != "" {
			t.Error(diff)
		}
		if e.Index != c.index || (e.Rule == nil) != (c.index < 0) {
			t.Errorf("index %d, rule %v: %s", e.Index, e.Rule, e)
		}
	}
	if e := auth.NewPolicy(0, nil, nil).Explain("", "c", auth.Publish, "x"); e.Allowed || !strings.Contains(e.Why, "a client without a user") || !strings.Contains(e.Why, "have rules") {
		t.Error(e)
	}
}

func TestPolicyChanges(t *testing.T) {
	p := policy(t)
	roles := []string{"operator"}
	q := p.WithUser(auth.User{Name: "new", Roles: roles, Version: 9})
	roles[0] = "changed"
	if !q.Rights("new", "c").MayPublish("sensors/x") || p.Rights("new", "c").MayPublish("sensors/x") {
		t.Error("WithUser")
	}
	if u, ok := q.User("new"); !ok || u.Version != 9 || !slices.Equal(u.Roles, []string{"operator"}) {
		t.Error(u, ok)
	}
	r := q.WithACL(acl(t, "role:operator", "deny both #"))
	if r.Rights("new", "c").MayPublish("sensors/x") || !q.Rights("new", "c").MayPublish("sensors/x") {
		t.Error("WithACL")
	}
	s := r.WithACL(auth.ACL{Subject: "role:operator"}).WithoutUser("new").WithoutUser("none")
	if _, ok := s.ACL("role:operator"); ok {
		t.Error("the ACL stays")
	}
	if a, ok := r.ACL("role:operator"); !ok || len(a.Rules) != 1 {
		t.Error(a, ok)
	}
	if _, ok := s.User("new"); ok {
		t.Error("the user stays")
	}
	if p.Version() != 1 || q.Version() != 2 || r.Version() != 3 || s.Version() != 6 {
		t.Error(p.Version(), q.Version(), r.Version(), s.Version())
	}
	names := []string{}
	for u := range s.Users() {
		names = append(names, u.Name)
	}
	subjects := []string{}
	for a := range s.ACLs() {
		subjects = append(subjects, a.Subject)
	}
	if diff := cmp.Diff([]string{"$SYS", "%c", "a/b", "ann", "bob", "off"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"*", "role:sensor", "user:ann"}, subjects); diff != "" {
		t.Error(diff)
	}
	for range s.Users() {
		break
	}
}

// A policy that was changed step by step is the one made at once, and its
// predecessors are what they were.
func TestPolicyChangesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := auth.NewPolicy(0, nil, nil)
		model := map[string]auth.User{}
		type old struct {
			p     *auth.Policy
			model map[string]auth.User
		}
		var olds []old
		for i := range rapid.IntRange(0, 40).Draw(t, "changes") {
			olds = append(olds, old{p, maps.Clone(model)})
			name := rapid.StringMatching(`[a-d]{1,2}`).Draw(t, "name")
			if rapid.Bool().Draw(t, "put") {
				u := auth.User{Name: name, Version: uint64(i)}
				p, model[name] = p.WithUser(u), u
			} else {
				p = p.WithoutUser(name)
				delete(model, name)
			}
		}
		olds = append(olds, old{p, model}, old{auth.NewPolicy(0, maps.Values(model), nil), model})
		for _, o := range olds {
			got := map[string]auth.User{}
			for u := range o.p.Users() {
				got[u.Name] = u
			}
			if diff := cmp.Diff(o.model, got); diff != "" {
				t.Fatal(diff)
			}
			if n, _ := o.p.Len(); n != len(o.model) {
				t.Fatalf("Len %d, want %d", n, len(o.model))
			}
		}
	})
}

// Of many users by one name the last one counts.
func TestNewPolicyDuplicates(t *testing.T) {
	p := auth.NewPolicy(0, slices.Values([]auth.User{{Name: "a", Version: 1}, {Name: "b"}, {Name: "a", Version: 2}}), nil)
	if u, _ := p.User("a"); u.Version != 2 {
		t.Error(u)
	}
	if n, _ := p.Len(); n != 2 {
		t.Error(n)
	}
}

// The three checks and Explain against the sentence of the contract.
func TestRightsAgainstModel(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "$x", "%u", "%c", "p%cq", "+", "+"})
	filter := rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(level, 1, 3).Draw(t, "levels")
		if rapid.IntRange(0, 2).Draw(t, "multi") == 0 {
			parts = append(parts, "#")
		}
		return strings.Join(parts, "/")
	})
	name := rapid.SampledFrom([]string{"a", "b", "$x", "x/y", "+", "%u", ""})
	rule := rapid.Custom(func(t *rapid.T) auth.Rule {
		return auth.Rule{Allow: rapid.Bool().Draw(t, "allow"), Action: auth.Action(rapid.IntRange(1, 3).Draw(t, "action")), Filter: filter.Draw(t, "filter")}
	})
	rapid.Check(t, func(t *rapid.T) {
		user, client := name.Draw(t, "user"), name.Draw(t, "client")
		subjects := []string{"user:" + user, "role:r1", "role:r2", "*"}
		var acls []auth.ACL
		for _, s := range subjects {
			acls = append(acls, auth.ACL{Subject: s, Rules: rapid.SliceOfN(rule, 0, 4).Draw(t, s)})
		}
		p := auth.NewPolicy(0, slices.Values([]auth.User{{Name: user, Roles: []string{"r1", "r2"}}}), slices.Values(acls))
		if user == "" {
			acls = acls[1:]
		}
		model := func(action auth.Action, target string) bool {
			for _, a := range acls {
				for _, r := range a.Rules {
					if f, ok := expandModel(r.Filter, user, client); ok && r.Action&action != 0 && routing.Covers(f, target) {
						return r.Allow
					}
				}
			}
			return false
		}
		rights := p.Rights(user, client)
		for range 5 {
			topic := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "$x", "paq", "%u"}), 1, 4).Draw(t, "topic"), "/")
			sub := rapid.SampledFrom([]string{topic, "+/" + topic, topic + "/#", topic + "/+", "#"}).Draw(t, "sub")
			for _, c := range []struct {
				name   string
				got    bool
				action auth.Action
				target string
			}{
				{"MayPublish", rights.MayPublish(topic), auth.Publish, topic},
				{"MayReceive", rights.MayReceive(topic), auth.Subscribe, topic},
				{"MaySubscribe", rights.MaySubscribe(sub), auth.Subscribe, sub},
				{"MaySubscribe shared", rights.MaySubscribe("$share/g/" + sub), auth.Subscribe, sub},
			} {
				want := model(c.action, c.target)
				if c.got != want {
					t.Fatalf("%s(%q) = %v for user %q client %q, rules %v", c.name, c.target, c.got, user, client, acls)
				}
				if e := p.Explain(user, client, c.action, c.target); e.Allowed != want {
					t.Fatalf("Explain: %s", e)
				}
			}
		}
	})
}

func expandModel(filter, user, client string) (string, bool) {
	for what, name := range map[string]string{"%u": user, "%c": client} {
		if strings.Contains(filter, what) && (name == "" || strings.ContainsAny(name, "/+#")) {
			return "", false
		}
	}
	out := strings.NewReplacer("%u", user, "%c", client).Replace(filter)
	return out, filter[0] == '$' || out[0] != '$'
}

func TestRightsDoNotAllocate(t *testing.T) {
	r := policy(t).Rights("ann", "c1")
	if n := testing.AllocsPerRun(100, func() {
		r.MayPublish("sensors/x/y")
		r.MayReceive("sensors/x/y")
		r.MaySubscribe("$share/g/sensors/+/y")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPolicy(b *testing.B) {
	p := auth.NewPolicy(0, func(yield func(auth.User) bool) {
		for i := range 100_000 {
			if !yield(auth.User{Name: fmt.Sprint("user", i), Roles: []string{"sensor"}}) {
				return
			}
		}
	}, slices.Values([]auth.ACL{{Subject: "role:sensor", Rules: []auth.Rule{
		{Allow: true, Action: auth.Publish, Filter: "sensors/%u/#"},
		{Allow: true, Action: auth.Subscribe, Filter: "commands/%u/#"},
	}}}))
	b.Run("WithUser", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			p.WithUser(auth.User{Name: fmt.Sprint("user", i%200_000)})
			i++
		}
	})
	b.Run("Rights", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Rights("user77", "client77")
		}
	})
	b.Run("MayPublish", func(b *testing.B) {
		r := p.Rights("user77", "client77")
		b.ReportAllocs()
		for b.Loop() {
			r.MayPublish("sensors/user77/temperature")
		}
	})
}
