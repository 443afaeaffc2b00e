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

// Bounds of the audit. The oldest records go first.
const (
	maxAudit     = 10_000
	maxAuditText = 1024 // bytes of each text of a record
)

func auditKey(p session.Pos) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyAudit}, uint64(p))
}

// journal keeps who did something, and what became of it.
func (a *applier) journal(at session.Pos, by *logpb.By, outcome string) {
	if a.reached < LevelIdentity {
		return // a member that does not know records would come to another state
	}
	b := cloneBy(by)
	for _, s := range []*string{&b.Actor, &b.Node, &b.Operation, &b.Subject, &b.Detail, &outcome} {
		*s = auth.Shorten(*s, maxAuditText)
	}
	a.setProto(auditKey(at), &logpb.Audit{Pos: uint64(at), Stamp: a.stamp, By: b, Outcome: outcome})
	a.audit = append(a.audit, at)
	if len(a.audit) > maxAudit {
		a.del(auditKey(a.audit[0]))
		a.audit = a.audit[1:]
	}
}

// Audit calls f for the records of the audit, the newest first, until it returns
// false. It does not hold up the log.
func (s *Store) Audit(f func(*logpb.Audit) bool) (err error) {
	gen := s.db.Load()
	for !gen.acquire() {
		gen = s.db.Load() // replaced by a restored snapshot just now
	}
	defer gen.release()
	it, err := gen.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyAudit}, UpperBound: []byte{keyAudit + 1}})
	if err != nil {
		return fmt.Errorf("read the audit: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.Last(); ok; ok = it.Prev() {
		rec := new(logpb.Audit)
		if err := proto.Unmarshal(it.Value(), rec); err != nil {
			return fmt.Errorf("read the audit: %w", err)
		}
		if !f(rec) {
			break
		}
	}
	return nil
}

// loadIdentity reads back bans, versions of the ACLs, audit and secrets.
func (st *state) loadIdentity(db *pebble.DB) error {
	bans := make([]auth.Ban, 0)
	err := errors.Join(
		into(db, keyBan, func(k string, r *logpb.Ban) { st.bans[k] = r; bans = append(bans, banOf(r)) }),
		into(db, keyVersion, func(_ string, r *logpb.AclVersion) { st.versions = append(st.versions, r) }),
		each(db, keyAudit, func(k, _ []byte) error {
			at, err := parseUint64(k)
			st.audit = append(st.audit, session.Pos(at))
			return err
		}),
		each(db, keySecret, func(k, v []byte) error { st.setSecret(string(k), v); return nil }),
	)
	st.setBans(auth.NewBans(slices.Values(bans)))
	return err
}
