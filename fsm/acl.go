package fsm

import (
	"encoding/binary"
	"slices"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

// Bounds of the versions that are kept; the newest always is.
const (
	maxVersions     = 100
	maxVersionBytes = 4 << 20
)

func versionKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyVersion}, n) }

func (a *applier) aclPut(actor string, c *logpb.AclPut) {
	a.noteVersion(actor, a.setACLs(c))
	a.emit(Event{Kind: EventPolicy})
}

// aclReplace changes several subjects at once, or none where somebody else was
// first.
func (a *applier) aclReplace(actor string, c *logpb.AclReplace) error {
	if c.Version != a.version() {
		return refused("the ACLs were changed meanwhile, version %d is the newest: look at it and try again", a.version())
	}
	a.noteVersion(actor, a.setACLs(c.Acls...))
	a.emit(Event{Kind: EventPolicy})
	return nil
}

// setACLs replaces the rules of subjects and returns what is other than before.
func (a *applier) setACLs(puts ...*logpb.AclPut) (changes []*logpb.AclChange) {
	for _, c := range puts {
		before := a.acls[c.Subject].GetRules()
		rec := &logpb.Acl{Subject: c.Subject, Rules: c.Rules}
		if len(c.Rules) == 0 {
			delete(a.acls, c.Subject)
			a.del(appendString(keyACL, c.Subject))
		} else {
			a.acls[c.Subject] = rec
			a.setProto(appendString(keyACL, c.Subject), rec)
		}
		a.policy = a.policy.WithACL(aclOf(rec))
		if !slices.EqualFunc(before, c.Rules, func(x, y *logpb.Rule) bool { return proto.Equal(x, y) }) {
			changes = append(changes, &logpb.AclChange{Subject: c.Subject, Before: before, After: c.Rules})
		}
	}
	return changes
}

// version is the number of the newest version, 0 before the first.
func (st *state) version() uint64 {
	if len(st.versions) == 0 {
		return 0
	}
	return st.versions[len(st.versions)-1].Version
}

func (a *applier) noteVersion(actor string, changes []*logpb.AclChange) {
	if len(changes) == 0 || a.reached < LevelIdentity {
		return // a member that does not know versions would come to another state
	}
	v := &logpb.AclVersion{Version: a.version() + 1, Stamp: a.stamp, Actor: actor, Changes: changes}
	a.setProto(versionKey(v.Version), v)
	a.versions = append(a.versions, v)
	size, first := 0, len(a.versions)-1
	for ; first >= 0; first-- {
		size += proto.Size(a.versions[first])
		if len(a.versions)-first > maxVersions || size > maxVersionBytes {
			break
		}
	}
	first = min(first+1, len(a.versions)-1)
	for _, old := range a.versions[:first] {
		a.del(versionKey(old.Version))
	}
	a.versions = slices.Clone(a.versions[first:])
}

// Versions returns the versions of the ACLs that are kept, the oldest first. They
// are read-only.
func (s *Store) Versions() []*logpb.AclVersion {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.state.versions)
}

// VersionedACLs returns the rules of every subject, by subject, and the version
// that they are.
func (s *Store) VersionedACLs() ([]*logpb.Acl, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*logpb.Acl, 0, len(s.state.acls))
	for _, k := range sortedKeys(s.state.acls) {
		out = append(out, s.state.acls[k])
	}
	return out, s.state.version()
}
