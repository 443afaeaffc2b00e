package fsm

import (
	"maps"
	"slices"
	"strings"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

// Bounds of the bans. Those that nodes make by themselves leave room for an
// operator's.
const (
	maxBans       = 10_000
	maxAutomatic  = 9_000
	maxBanReason  = 256 // bytes
	banKeyDivider = "\x00"
)

func banKey(kind, value string) string { return kind + banKeyDivider + value }

func banOf(b *logpb.Ban) auth.Ban {
	return auth.Ban{Kind: b.Kind, Value: b.Value, Reason: b.Reason}
}

func (a *applier) banPut(c *logpb.BanPut) error {
	if err := (auth.Ban{Kind: c.Kind, Value: c.Value}).Validate(); err != nil {
		return refused("%v", err)
	}
	if len(c.Reason) > maxBanReason {
		return refused("the reason has %d bytes: give it at most %d", len(c.Reason), maxBanReason)
	}
	key := banKey(c.Kind, c.Value)
	old, most := a.bans[key], maxBans
	if c.Automatic {
		most = maxAutomatic
	}
	switch {
	case old == nil && len(a.bans) >= most:
		return refused("there are %d bans already: remove some with mqcluster ban remove", len(a.bans))
	case c.Automatic && old != nil && !old.Automatic:
		return nil // an operator's word stands
	}
	rec := &logpb.Ban{Kind: c.Kind, Value: c.Value, Since: a.stamp, Reason: c.Reason, Automatic: c.Automatic}
	if c.Lifetime > 0 {
		rec.ExpiresAt = a.stamp + c.Lifetime
	}
	a.bans[key] = rec
	a.setProto(appendString(keyBan, key), rec)
	a.setBans(a.table.bans.With(banOf(rec)))
	a.emit(Event{Kind: EventPolicy})
	return nil
}

func (a *applier) banRemove(c *logpb.BanRemove) error {
	key := banKey(c.Kind, c.Value)
	if a.bans[key] == nil {
		return refused("there is no ban of %s %q", c.Kind, c.Value)
	}
	a.dropBan(key)
	return nil
}

func (a *applier) dropBan(key string) {
	rec := a.bans[key]
	delete(a.bans, key)
	a.del(appendString(keyBan, key))
	a.setBans(a.table.bans.Without(rec.Kind, rec.Value))
}

// endBans ends those whose time is over by the log's clock.
func (a *applier) endBans() {
	if a.banDue == 0 || a.banDue > a.stamp {
		return
	}
	for _, key := range sortedKeys(a.bans) {
		if at := a.bans[key].ExpiresAt; at != 0 && at <= a.stamp {
			a.dropBan(key)
		}
	}
}

// setBans publishes the bans, and notes when the first ends.
func (st *state) setBans(b *auth.Bans) {
	st.banDue = 0
	for _, rec := range st.bans {
		if rec.ExpiresAt != 0 && (st.banDue == 0 || rec.ExpiresAt < st.banDue) {
			st.banDue = rec.ExpiresAt
		}
	}
	t := *st.table
	t.bans = b
	st.table = &t
}

// Bans are those in force. It does not block.
func (s *Store) Bans() *auth.Bans { return s.table.Load().bans }

// ListBans returns the bans by kind and value.
func (s *Store) ListBans() []*logpb.Ban {
	return list(s, func(st *state) map[string]*logpb.Ban { return st.bans })
}

// reach notes the level of the members if it is the highest yet.
func (a *applier) reach() {
	if a.level <= a.reached || a.level < LevelIdentity {
		return
	}
	a.setReached(a.level)
	a.set([]byte(metaLevel), uint64Value(uint64(a.level)))
}

func (st *state) setReached(level uint32) {
	st.reached = level
	t := *st.table
	t.reached = level
	st.table = &t
}

// Reached is the highest feature level that all members had at one time, 0 below
// LevelIdentity. What needs it may be proposed: a member that came later and does not
// know it halts. It does not block.
func (s *Store) Reached() uint32 { return s.table.Load().reached }

// maxSecrets bounds how many secrets the state keeps.
const maxSecrets = 16

// secretPut keeps the first value of a name.
func (a *applier) secretPut(c *logpb.SecretPut) {
	if a.secrets[c.Name] != nil || len(a.secrets) >= maxSecrets || len(c.Value) > 1024 {
		return
	}
	a.set(appendString(keySecret, c.Name), c.Value)
	a.setSecret(c.Name, c.Value)
}

func (st *state) setSecret(name string, value []byte) {
	st.secrets = maps.Clone(st.secrets)
	st.secrets[name] = slices.Clone(value)
	t := *st.table
	t.secrets = st.secrets
	st.table = &t
}

// Secret returns random bytes that all nodes share, nil before the leader has made
// them. It does not block.
func (s *Store) Secret(name string) []byte { return s.table.Load().secrets[name] }

// outcomeOf says in the audit what became of an item.
func outcomeOf(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), ErrRefused.Error()+": ")
}

func cloneBy(by *logpb.By) *logpb.By {
	if by == nil {
		return &logpb.By{}
	}
	return proto.CloneOf(by)
}
