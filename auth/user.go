package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// User is somebody who may connect.
type User struct {
	Name string
	// Hash is of the password, as Hash returns it; empty for a user that no
	// password proves.
	Hash     string
	Disabled bool
	// Roles are in the order in which their rules count.
	Roles []string
	// Version is the log position of the last change of Hash or Disabled.
	Version uint64
	// Scram is what SCRAM-SHA-256 needs of the password, in the form of package
	// identity; empty for nothing.
	Scram string
	Quota Quota
}

// Quota bounds what the clients of a user may use, beside what every client may.
// 0 is no limit of the user's own.
type Quota struct {
	// Of all clients of the user on one node.
	MessageRate int // PUBLISH packets a second
	ByteRate    int // bytes of them a second
	Connections int
	// Of each.
	Subscriptions int
	PacketSize    int // bytes
	Inflight      int // QoS 1 and 2 messages without an acknowledgement, each way
	TopicLevels   int
}

// maxName is the longest user or role name, in bytes.
const maxName = 255

// ValidUser tells whether name can be a user's: 1 to 255 bytes of UTF-8 without
// control characters.
func ValidUser(name string) error { return validName("user", name) }

// ValidRole is ValidUser for roles.
func ValidRole(name string) error { return validName("role", name) }

func validName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the %s name is empty: give it 1 to %d bytes", kind, maxName)
	case len(name) > maxName:
		return fmt.Errorf("the %s name %.20q... has %d bytes: give it at most %d", kind, name, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("the %s name %q is not UTF-8", kind, name)
	}
	if i := strings.IndexFunc(name, unicode.IsControl); i >= 0 {
		return fmt.Errorf("the %s name %q has a control character at byte %d: leave it out", kind, name, i)
	}
	return nil
}

// The forms of a subject.
const (
	userPrefix = "user:"
	rolePrefix = "role:"
	// Everyone is the subject whose rules count for all, after their own.
	Everyone = "*"
	// Anonymous is the subject whose rules count for clients without a user, before
	// those of Everyone.
	Anonymous = "anonymous"
)

// UserSubject returns the subject of a user's own rules.
func UserSubject(name string) string { return userPrefix + name }

// RoleSubject returns the subject of a role's rules.
func RoleSubject(name string) string { return rolePrefix + name }

// ValidSubject tells whether subject can have rules.
func ValidSubject(subject string) error {
	if name, ok := strings.CutPrefix(subject, userPrefix); ok {
		return ValidUser(name)
	}
	if name, ok := strings.CutPrefix(subject, rolePrefix); ok {
		return ValidRole(name)
	}
	if subject != Everyone && subject != Anonymous {
		return fmt.Errorf("subject %.40q is none: write user:NAME, role:NAME or * for everyone, or anonymous for clients without a user", subject)
	}
	return nil
}

// ACL are the rules of one subject, in the order in which they count.
type ACL struct {
	Subject string // "user:NAME", "role:NAME", "anonymous" or "*"
	Rules   []Rule
}

// Validate tells whether the subject and all rules are valid.
func (a ACL) Validate() error {
	err := ValidSubject(a.Subject)
	for i, r := range a.Rules {
		if bad := r.Validate(); bad != nil {
			err = errors.Join(err, fmt.Errorf("rule %d: %w", i+1, bad))
		}
	}
	return err
}
