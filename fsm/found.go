package fsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// buildBatch is how many bytes go into a new state at a time.
const buildBatch = 4 << 20

// Build makes a state in cfg.Dir, which has none, out of the records of a Copy,
// and opens it. fill puts them in, in the order of Copy.Each; put keeps neither k
// nor v. The state is on disk when Build returns. After an error the caller
// removes the directory.
func Build(ctx context.Context, cfg Config, deps Deps, fill func(put func(k, v []byte) error) error) (*Store, error) {
	// Open makes an empty state, durable and in force; the records go into it before
	// anybody else sees it, the collector included.
	alone := cfg
	alone.KeepDead = true
	empty, err := Open(ctx, alone, deps)
	if err != nil {
		return nil, err
	}
	if empty.AppliedIndex() != 0 {
		return nil, errors.Join(fmt.Errorf("there is a state in %s already: choose another directory", cfg.Dir), empty.Close())
	}
	b := builder{db: empty.db.Load().db, room: empty.deps.Room}
	b.batch = b.db.NewBatch()
	err = fill(b.put)
	if err == nil {
		err = b.commit()
	}
	// Close flushes, and a flush is durable.
	if err = errors.Join(err, b.batch.Close(), empty.Close()); err != nil {
		return nil, fmt.Errorf("build the state: %w", err)
	}
	return Open(ctx, cfg, deps)
}

type builder struct {
	db    *pebble.DB
	batch *pebble.Batch
	last  []byte
	room  func(uint64) bool
}

func (b *builder) put(k, v []byte) error {
	if string(k) <= string(b.last) {
		return fmt.Errorf("%w (record %.60q is out of order)", ErrForeignRecord, k)
	}
	b.last = append(b.last[:0], k...)
	if err := b.batch.Set(k, v, nil); err != nil {
		return err
	}
	if b.batch.Len() < buildBatch {
		return nil
	}
	err := b.commit()
	b.batch = b.db.NewBatch()
	return err
}

func (b *builder) commit() error {
	if !b.room(uint64(b.batch.Len())) {
		return ErrNoRoom
	}
	return errors.Join(b.batch.Commit(pebble.NoSync), b.batch.Close())
}

// Founding is how a state becomes that of a new cluster.
type Founding struct {
	// Grace, in seconds, is how long wills and sessions of clients that were
	// connected wait at least.
	Grace uint32
	// DropWills has the wills of those clients not fire at all.
	DropWills bool
	// SameCA: the new cluster has the CA of the old one, so that certificates of its
	// nodes would be believed.
	SameCA bool
}

// foundBatch bounds the sessions that go into the store together.
const foundBatch = 1000

// Found makes the state one that no node of the cluster it came from has any part
// in: who was connected is not any more, as if all nodes had gone down at once, and
// certificates of nodes are revoked or, where their CA is gone, forgotten. It
// depends on nothing but the state and f, and counts as log entries without a log:
// AppliedIndex grows. It must come before the first entry of a new log, and is on
// disk after the next Snapshot or Close.
func (s *Store) Found(f Founding) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	var lost []*sess
	for _, client := range sortedKeys(st.sessions) {
		if o := st.sessions[client]; o.rec.Owner != "" {
			lost = append(lost, o)
		}
	}
	// All of them first: a shared message must not go to one that is lost as well.
	for _, o := range lost {
		o.owner.Store(nil)
	}
	for first := true; first || len(lost) > 0; first = false {
		n := min(len(lost), foundBatch)
		err := s.outside(func(a *applier) {
			if first {
				a.forgetNodes(f.SameCA)
				a.forgetFormers(f.DropWills)
			}
			for _, o := range lost[:n] {
				a.lose(o, f)
			}
		})
		if err != nil {
			return fmt.Errorf("release the sessions: %w", err)
		}
		lost = lost[n:]
	}
	return nil
}

// outside applies what is in no log, under an index of its own. The caller holds
// mu.
func (s *Store) outside(f func(*applier)) error {
	gen := s.db.Load()
	a := &applier{state: s.state, db: gen.db, scratch: &s.scratch}
	a.begin(gen.db)
	a.index, a.n = s.state.applied+1, 0
	f(a)
	s.state.applied++
	a.commit()
	s.publish()
	if s.gc != nil {
		s.gc.note(a.news, s.state)
	}
	a.reuse()
	return a.err
}

// lose ends the connection of a session whose cluster is gone.
func (a *applier) lose(o *sess, f Founding) {
	o.rec.Horizon = uint64(a.pos()) // what was sent since is not known
	a.forgetZero(o)
	d := disconnect{will: !f.DropWills, grace: f.Grace}
	if o.rec.Will == nil || f.DropWills {
		d.grace = 0
	}
	a.disconnected(o, d)
}

// forgetFormers drops the wills of connections that were taken over, if wills are to
// be dropped. Else they fire when they are due: no node is left to tell of them.
func (a *applier) forgetFormers(drop bool) {
	if !drop {
		return
	}
	for _, f := range slices.Collect(maps.Values(a.formers)) {
		a.settleFormer(former(f), false)
	}
}

// forgetNodes ends the certificates of nodes.
func (a *applier) forgetNodes(sameCA bool) {
	for _, serial := range sortedKeys(a.certs) {
		c := a.certs[serial]
		if c.Kind == "client" || c.Revoked {
			continue
		}
		if sameCA {
			a.certPut(&logpb.CertPut{
				Serial: c.Serial, Subject: c.Subject, Kind: c.Kind, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: true,
			})
			continue
		}
		delete(a.certs, serial)
		a.table.certs.Delete(serial)
		a.del(appendString(keyCert, serial))
	}
}
