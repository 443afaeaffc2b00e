package fakeaws

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// texts is a JSON value that is one text or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// A policy is a document of IAM, as far as those of the nodes go.
type policy struct {
	Version   string
	Statement []struct {
		Sid, Effect      string
		Action, Resource texts
		Condition        map[string]map[string]texts
	}
}

// allows tells whether the document lets somebody do an action on a resource, where
// facts are what conditions may ask for.
func (p policy) allows(action, resource string, facts map[string]string) (bool, error) {
	allowed := false
	for _, s := range p.Statement {
		if !matchAny(s.Action, action) || !matchAny(s.Resource, resource) {
			continue
		}
		holds := true
		for operator, keys := range s.Condition {
			if operator != "StringEquals" {
				return false, fmt.Errorf("the condition %s is not known", operator)
			}
			for key, values := range keys {
				holds = holds && matchAny(values, facts[key])
			}
		}
		if holds && s.Effect == "Deny" {
			return false, nil
		}
		allowed = allowed || holds && s.Effect == "Allow"
	}
	return allowed, nil
}

// matchAny compares as IAM does: * is anything, slashes too.
func matchAny(patterns texts, text string) bool {
	flat := func(s string) string { return strings.ReplaceAll(s, "/", "\x00") }
	for _, p := range patterns {
		if ok, _ := path.Match(flat(p), flat(text)); ok {
			return true
		}
	}
	return false
}
