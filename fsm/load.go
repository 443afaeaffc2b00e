package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// load reads back all of the state that is not messages.
func load(db *pebble.DB, node string) (*state, error) {
	st := newState(node)
	for key, to := range map[string]*uint64{metaApplied: &st.applied, metaFilter: &st.lastFilter} {
		if err := readUint64(db, key, to); err != nil {
			return nil, err
		}
	}
	var stamp, reached uint64
	if err := errors.Join(readUint64(db, metaStamp, &stamp), readUint64(db, metaLevel, &reached)); err != nil {
		return nil, err
	}
	st.stamp = int64(stamp)
	st.setReached(uint32(reached))
	steps := []func() error{
		func() error { return st.loadRecords(db) },
		func() error { return st.loadMembers(db) },
		func() error { return st.loadSessions(db) },
		func() error { return st.loadSubscriptions(db) },
		func() error { return st.loadOutStates(db) },
		func() error { return st.loadLast(db) },
		func() (err error) { st.expiry, err = nextExpiry(db); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return st, nil
}

func readUint64(db pebble.Reader, key string, to *uint64) error {
	v, closer, err := db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	*to, err = parseUint64(v)
	return errors.Join(err, closer.Close())
}

// each calls f for every key of a kind, without its first byte.
func each(db pebble.Reader, kind byte, f func(k, v []byte) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key()[1:], it.Value()); err != nil {
			return errors.Join(fmt.Errorf("record %q: %w", it.Key(), err), it.Close())
		}
	}
	return it.Close()
}

// into decodes every record of a kind.
func into[T any, P interface {
	*T
	proto.Message
}](db pebble.Reader, kind byte, f func(key string, rec P)) error {
	return each(db, kind, func(k, v []byte) error {
		rec := P(new(T))
		if err := proto.Unmarshal(v, rec); err != nil {
			return err
		}
		f(string(k), rec)
		return nil
	})
}

func (st *state) loadRecords(db *pebble.DB) error {
	var users []auth.User
	var acls []auth.ACL
	err := errors.Join(
		into(db, keyUser, func(k string, r *logpb.User) { st.users[k] = r; users = append(users, userOf(r)) }),
		into(db, keyACL, func(k string, r *logpb.Acl) { st.acls[k] = r; acls = append(acls, aclOf(r)) }),
		into(db, keyToken, func(k string, r *logpb.Token) { st.tokens[k] = r }),
		into(db, keyAPIToken, func(k string, r *logpb.ApiToken) { st.apiTokens[k] = r; st.table.api.Store(k, r) }),
		into(db, keyCert, func(k string, r *logpb.Cert) { st.certs[k] = r; st.table.certs.Store(k, r) }),
		each(db, keySetting, func(k, v []byte) error { st.settings[string(k)] = string(v); return nil }),
		st.loadIdentity(db),
	)
	st.setLimits()
	st.policy = auth.NewPolicy(uint64(session.At(st.applied, 0)), slices.Values(users), slices.Values(acls))
	return err
}

func (st *state) loadMembers(db *pebble.DB) error {
	err := into(db, keyMember, func(k string, r *logpb.Member) { st.members[k] = &member{rec: r} })
	if err != nil {
		return err
	}
	err = each(db, keyPack, func(k, v []byte) error {
		n, err := parseUint64(v)
		if m := st.members[string(k)]; m != nil {
			m.nextPack = n
		}
		return err
	})
	st.setMembers()
	return err
}

func (st *state) loadSessions(db *pebble.DB) error {
	err := into(db, keySession, func(k string, r *logpb.Session) {
		s := &sess{client: k, incarnation: r.Incarnation, rec: r}
		if r.Owner != "" {
			s.owner.Store(&owner{node: r.Owner, incarnation: r.OwnerIncarnation, epoch: r.Epoch})
		}
		st.addSession(s)
		if r.Owner == "" {
			st.timers.add(r.WillAt, k)
			st.timers.add(r.ExpiresAt, k)
		}
	})
	err = errors.Join(err, into(db, keyFormer, func(_ string, r *logpb.Former) { st.addFormer(r) }))
	if err != nil {
		return err
	}
	return each(db, keyCursor, func(k, v []byte) error {
		n, err := parseUint64(v)
		if s := st.sessions[string(k)]; s != nil {
			s.cursor.Store(n)
		}
		return err
	})
}

func (st *state) loadSubscriptions(db *pebble.DB) error {
	return into(db, keySubscription, func(k string, r *logpb.SessionSubscription) {
		client, _, _ := cutClient(k)
		s := st.sessions[client]
		if s == nil {
			return
		}
		n := &sub{Subscription: subscriptionOf(r.Subscription), since: session.Pos(r.Since), replay: r.Replay, zero: r.Waits}
		n.filter = st.fresh(n.Filter, r.FilterId)
		st.attach(s, n)
		if s.away() && n.filter.group == nil {
			n.filter.away.Add(1)
		}
	})
}

func (st *state) loadOutStates(db *pebble.DB) error {
	err := into(db, keyOut, func(k string, r *logpb.Out) {
		client, _, _ := cutClient(k)
		if s := st.sessions[client]; s != nil {
			if s.outs == nil {
				s.outs = map[session.Pos]*logpb.Out{}
			}
			s.outs[session.Pos(r.Pos)] = r
		}
	})
	if err != nil {
		return err
	}
	return each(db, keyReceived, func(k, _ []byte) error {
		client, id, ok := cutClient(string(k))
		if !ok || len(id) != 2 {
			return errors.New("it is no packet id")
		}
		if s := st.sessions[client]; s != nil {
			if s.received == nil {
				s.received = map[uint16]struct{}{}
			}
			s.received[binary.BigEndian.Uint16([]byte(id))] = struct{}{}
		}
		return nil
	})
}

func cutClient(k string) (client, rest string, ok bool) {
	for i := range len(k) {
		if k[i] == 0 {
			return k[:i], k[i+1:], true
		}
	}
	return k, "", false
}

// loadLast finds the newest posting of every filter, by one seek each.
func (st *state) loadLast(db *pebble.DB) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosting}, UpperBound: []byte{keyPosting + 1}})
	if err != nil {
		return err
	}
	for _, s := range st.sessions {
		for _, n := range s.list() {
			if n.filter.last.Load() != 0 || !it.SeekLT(postingKey(n.filter.id+1, 0)) {
				continue
			}
			id, p, err := parsePosting(it.Key())
			if err != nil {
				return errors.Join(err, it.Close())
			}
			if id == n.filter.id {
				n.filter.last.Store(uint64(p))
				number, sum, err := parseTally(it.Value())
				if err != nil {
					return errors.Join(err, it.Close())
				}
				n.filter.posted.Store(number)
				n.filter.bytes.Store(sum)
			}
		}
	}
	return it.Close()
}
