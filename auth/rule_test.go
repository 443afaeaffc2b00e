package auth_test

import (
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/auth"
	"pgregory.net/rapid"
)

func TestParseRule(t *testing.T) {
	for text, want := range map[string]auth.Rule{
		"allow publish sensors/%c/#":   {Allow: true, Action: auth.Publish, Filter: "sensors/%c/#"},
		"deny subscribe #":             {Action: auth.Subscribe, Filter: "#"},
		"  allow\tboth   a b/c  ":      {Allow: true, Action: auth.Both, Filter: "a b/c"},
		`deny both " a\n"`:             {Action: auth.Both, Filter: " a\n"},
		`allow publish a"b`:            {Allow: true, Action: auth.Publish, Filter: `a"b`},
		"allow publish 100%/%x/$SYS/ü": {Allow: true, Action: auth.Publish, Filter: "100%/%x/$SYS/ü"},
	} {
		got, err := auth.ParseRule(text)
		if err != nil || got != want {
			t.Errorf("ParseRule(%q) = %+v, %v", text, got, err)
		}
		if again, err := auth.ParseRule(got.String()); err != nil || again != got {
			t.Errorf("%q comes back as %+v, %v", got, again, err)
		}
	}
}

func TestParseRuleErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "the rule is empty: write allow or deny, then",
		"permit publish a":           `begins with "permit": write allow or deny`,
		"Allow publish a":            `begins with "Allow"`,
		"allow":                      "has no action: write publish, subscribe or both after allow",
		"allow readwrite a":          `action "readwrite" is unknown: write publish, subscribe or both`,
		"deny both":                  "has no filter: write one after both",
		"allow publish a/#/b":        "must have # as its last character",
		"allow publish a+":           "must have + as a whole level",
		"allow subscribe $share/g/a": `of a shared subscription of group "g": rules are about topics, write "a"`,
		`allow publish "a`:           "is not well quoted",
		`allow publish ""`:           "is empty",
		`allow publish "a" b`:        "is not well quoted",
		"allow publish a\xff":        "is not UTF-8",
		`allow publish "a\x00"`:      "NUL",
	} {
		if r, err := auth.ParseRule(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRule(%q) = %v, %v; want %q", text, r, err, want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("allow publish sensors/%c/#")
	f.Add(`deny both " a\n"`)
	f.Add("deny subscribe a b")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := auth.ParseRule(text)
		if err != nil {
			return
		}
		if again, err := auth.ParseRule(r.String()); err != nil || again != r {
			t.Fatalf("%q is %+v and comes back from %q as %+v, %v", text, r, r.String(), again, err)
		}
		p := auth.NewPolicy(0, nil, func(yield func(auth.ACL) bool) { yield(auth.ACL{Subject: "*", Rules: []auth.Rule{r}}) })
		rights := p.Rights("u", "c")
		if !r.Allow && (rights.MayPublish("a/b") || rights.MayReceive("a/b") || rights.MaySubscribe("a/+")) {
			t.Fatalf("%q allows something", r)
		}
	})
}

func TestRuleTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := auth.Rule{
			Allow:  rapid.Bool().Draw(t, "allow"),
			Action: auth.Action(rapid.IntRange(1, 3).Draw(t, "action")),
			Filter: rapid.StringOf(rapid.RuneFrom([]rune("a/%uc \t\n\"\\\u00a0\u2028ü"))).Draw(t, "filter"),
		}
		if r.Validate() != nil {
			return
		}
		if got, err := auth.ParseRule(r.String()); err != nil || got != r {
			t.Fatalf("%q comes back as %+v, %v", r, got, err)
		}
	})
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "ü x/+#": true, strings.Repeat("x", 255): true,
		"": false, strings.Repeat("x", 256): false, "a\x00": false, "a\n": false, "a\x7f": false, "\u0085": false, "\xff": false,
	} {
		if err := auth.ValidUser(name); (err == nil) != ok {
			t.Errorf("ValidUser(%.20q) = %v", name, err)
		}
		for _, prefix := range []string{"user:", "role:"} {
			if err := auth.ValidSubject(prefix + name); (err == nil) != ok {
				t.Errorf("ValidSubject(%.20q) = %v", prefix+name, err)
			}
		}
	}
	if auth.ValidSubject("*") != nil || auth.ValidSubject("group:x") == nil {
		t.Error("ValidSubject")
	}
	bad := auth.ACL{Subject: "x", Rules: []auth.Rule{{Action: 1, Filter: "a"}, {Action: 5, Filter: "a"}, {Action: 1, Filter: "a#"}}}
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "rule 2: action(5)") || !strings.Contains(err.Error(), "rule 3: filter") {
		t.Error(err)
	}
}
