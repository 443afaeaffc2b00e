package mosquitto

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const aclFile = `# Sensors.
topic read public/#
user ann
topic write  sensors/a b/+
topic readwrite both/#
topic deny both/secret
topic plain
pattern read to/%c
pattern deny to/%u/hidden
user bob
topic read x
user ann
topic read later
`

func TestParseACL(t *testing.T) {
	got, notes, err := ParseACL("acl", []byte(aclFile))
	if err != nil {
		t.Fatal(err)
	}
	want := &ACL{
		Anonymous: []Rule{{2, Read, "public/#"}},
		Users: []UserRules{
			{Line: 3, Name: "ann", Rules: []Rule{
				{6, Deny, "both/secret"}, {4, Write, "sensors/a b/+"}, {5, ReadWrite, "both/#"}, {7, ReadWrite, "plain"}, {13, Read, "later"},
			}},
			{Line: 10, Name: "bob", Rules: []Rule{{11, Read, "x"}}},
		},
		Patterns: []Rule{{9, Deny, "to/%u/hidden"}, {8, Read, "to/%c"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(aclFile, "\n") - 1; len(notes) != n {
		t.Errorf("%d notes for %d lines", len(notes), n)
	}
}

func TestACLErrors(t *testing.T) {
	for line, want := range map[string]string{
		"user":                                 "names no user",
		"topic":                                "no topic",
		"topic a/#/b":                          "whole level",
		"pattern a+":                           "whole level",
		"topic may x":                          "none of read",
		"allow x":                              "begins with user, topic or pattern",
		"topic read a\x00b":                    "NUL",
		"user " + strings.Repeat("x", maxLine): "longer than",
	} {
		acl, notes, err := ParseACL("acl", []byte(line+"\n"))
		if err != nil || len(notes) != 1 || notes[0].Verdict != NotSupported || !strings.Contains(notes[0].Why, want) {
			t.Errorf("%.40q: %v, %v", line, notes, err)
		}
		if acl != nil && len(acl.Users)+len(acl.Anonymous)+len(acl.Patterns) > 0 {
			t.Errorf("%.40q left something: %v", line, acl)
		}
	}
}

func FuzzACL(f *testing.F) {
	f.Add([]byte(aclFile))
	f.Fuzz(func(t *testing.T, data []byte) {
		acl, notes, err := ParseACL("acl", data)
		if err != nil {
			return
		}
		rules := len(acl.Anonymous) + len(acl.Patterns)
		for _, u := range acl.Users {
			rules += len(u.Rules)
		}
		if rules > len(notes) {
			t.Errorf("%d rules of %d lines", rules, len(notes))
		}
	})
}
