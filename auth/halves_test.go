package auth_test

import (
	"slices"
	"testing"

	"github.com/mqcluster/mqcluster/auth"
)

// TestHalves: request decides on subscriptions and receive on deliveries, in the
// order of all rules, and anonymous has rules of its own before everyone's.
func TestHalves(t *testing.T) {
	acl := func(subject string, rules ...string) auth.ACL {
		a := auth.ACL{Subject: subject}
		for _, text := range rules {
			r, err := auth.ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			if r.String() != text {
				t.Errorf("%q is written %q", text, r)
			}
			a.Rules = append(a.Rules, r)
		}
		return a
	}
	p := auth.NewPolicy(0, slices.Values([]auth.User{{Name: "ann"}}), slices.Values([]auth.ACL{
		acl("user:ann", "deny receive a/secret", "allow receive a/#", "allow subscribe whole/#"),
		acl("anonymous", "allow receive public/#"),
		acl("*", "allow request #"),
	}))
	for _, tt := range []struct {
		user                        string
		filter, topic               string
		subscribes, receives, sends bool
	}{
		{"ann", "#", "a/b", true, true, false},
		{"ann", "a/#", "a/secret", true, false, false},
		{"ann", "b", "b", true, false, false},
		{"ann", "whole/+", "whole/x", true, true, false},
		{"ann", "$SYS/#", "$SYS/x", false, false, false},
		{"", "public/#", "public/x", true, true, false},
		{"", "a/#", "a/b", true, false, false},
		{"bob", "a/#", "a/b", true, false, false},
		{"bob", "public/#", "public/x", true, false, false},
	} {
		r := p.Rights(tt.user, "c")
		if got := r.MaySubscribe(tt.filter); got != tt.subscribes {
			t.Errorf("%q subscribes to %s: %v", tt.user, tt.filter, got)
		}
		if got := r.MayReceive(tt.topic); got != tt.receives {
			t.Errorf("%q receives %s: %v", tt.user, tt.topic, got)
		}
		if got := r.MayPublish(tt.topic); got != tt.sends {
			t.Errorf("%q publishes %s: %v", tt.user, tt.topic, got)
		}
		if e := p.Explain(tt.user, "c", auth.Request, tt.filter); e.Allowed != tt.subscribes {
			t.Errorf("Explain: %s", e)
		}
		if e := p.Explain(tt.user, "c", auth.Receive, tt.topic); e.Allowed != tt.receives {
			t.Errorf("Explain: %s", e)
		}
	}
}
