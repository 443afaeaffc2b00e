package fsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"google.golang.org/protobuf/proto"
)

// Copy is the state at one log index, for a backup. Nothing waits for it, neither
// at its making nor while it is read; what it holds is not deleted from the disk
// until it is closed.
type Copy struct {
	// Applied is the raft index that it is of, Stamp the log time, in ms.
	Applied uint64
	Stamp   int64
	// Members are those of the cluster then.
	Members  []*logpb.Member
	Settings map[string]string

	gen  *generation
	snap *pebble.Snapshot
}

// Copy returns the state as it is now. It does not block.
func (s *Store) Copy() (_ *Copy, err error) {
	gen := s.db.Load()
	for !gen.acquire() {
		gen = s.db.Load() // replaced by a restored snapshot just now
	}
	c := &Copy{Settings: map[string]string{}, gen: gen, snap: gen.db.NewSnapshot()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	// Every batch of entries has these with it, so they are exactly those of the rest.
	var stamp uint64
	err = errors.Join(
		readUint64(c.snap, metaApplied, &c.Applied),
		readUint64(c.snap, metaStamp, &stamp),
		into(c.snap, keyMember, func(_ string, r *logpb.Member) { c.Members = append(c.Members, r) }),
		each(c.snap, keySetting, func(k, v []byte) error { c.Settings[string(k)] = string(v); return nil }),
	)
	c.Stamp = int64(stamp)
	return c, err
}

// Close lets go of the state. It is not idempotent.
func (c *Copy) Close() error {
	err := c.snap.Close()
	c.gen.release()
	return err
}

// Each calls f for every record that belongs in a backup, in the order of the
// keys, until it returns an error. Members, their pack numbers, join tokens and
// tokens of the admin API are left out: they are of this cluster, and a restored one is another. f must not
// keep k and v.
func (c *Copy) Each(f func(k, v []byte) error) (err error) {
	it, err := c.snap.NewIter(nil)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		switch k := it.Key(); k[0] {
		case keyMember, keyPack, keyToken, keyAPIToken:
		default:
			if err := f(k, it.Value()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Contents counts what a copy holds.
type Contents struct {
	Users         int `json:"users"`
	ACLs          int `json:"acls"`
	Certs         int `json:"certificates"`
	Settings      int `json:"settings"`
	Bans          int `json:"bans,omitempty"`
	Audit         int `json:"audit,omitempty"`
	Sessions      int `json:"sessions"`
	Connected     int `json:"connected"` // of the sessions, when the copy was made
	Wills         int `json:"wills"`
	Subscriptions int `json:"subscriptions"`
	Retained      int `json:"retained"`
	// Messages that wait for sessions, each once.
	Messages int `json:"messages"`
	// States of QoS 2 under way: sent to clients, and received from them.
	Sending   int `json:"qos2_sending"`
	Receiving int `json:"qos2_receiving"`
	// Records and their Bytes, keys and values.
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
}

// ErrForeignRecord: a record that this version does not keep, or cannot read.
var ErrForeignRecord = errors.New("it holds a record that this version does not know: use the version that made it, or a newer one")

// Count takes a record in, and refuses one that no state of this version has.
func (c *Contents) Count(k, v []byte) error {
	if len(k) == 0 {
		return fmt.Errorf("%w (a record without a key)", ErrForeignRecord)
	}
	err := c.count(k, v)
	if err != nil {
		return fmt.Errorf("%w (record %.60q: %w)", ErrForeignRecord, k, err)
	}
	c.Records++
	c.Bytes += uint64(len(k) + len(v))
	return nil
}

func (c *Contents) count(k, v []byte) error {
	switch k[0] {
	case keyMessage:
		return countIf(&c.Messages, len(k) == 9, v, new(logpb.Message))
	case keyPosting:
		if _, _, err := parsePosting(k); err != nil {
			return err
		}
		_, _, err := parseTally(v)
		return err
	case keySession:
		return c.session(k, v)
	case keyFormer:
		return countIf(&c.Wills, true, v, new(logpb.Former))
	case keySubscription:
		rec := new(logpb.SessionSubscription)
		if err := countIf(&c.Subscriptions, true, v, rec); err != nil {
			return err
		}
		_, filter, _ := cutClient(string(k[1:]))
		if filter == "" || rec.Subscription.GetFilter() != filter {
			return errors.New("it is of another filter")
		}
		if strings.HasPrefix(filter, depositPrefix) {
			return nil
		}
		return routing.ValidFilter(filter)
	case keyCursor:
		_, err := parseUint64(v)
		return err
	case keyOut:
		_, _, ok := cutClient(string(k[1:]))
		return countIf(&c.Sending, ok, v, new(logpb.Out))
	case keyReceived:
		_, id, _ := cutClient(string(k[1:]))
		return countIf(&c.Receiving, len(id) == 2, v, nil)
	case keyRetained:
		c.Retained++
		_, _, err := parseRetained(v)
		return err
	case keyExpiry:
		return countIf(new(int), len(k) > 9, v, nil)
	case keyUser:
		return countIf(&c.Users, true, v, new(logpb.User))
	case keyACL:
		return countIf(&c.ACLs, true, v, new(logpb.Acl))
	case keyCert:
		return countIf(&c.Certs, true, v, new(logpb.Cert))
	case keySetting:
		c.Settings++
		return nil
	case keyBan:
		return countIf(&c.Bans, true, v, new(logpb.Ban))
	case keyVersion:
		return countIf(new(int), len(k) == 9, v, new(logpb.AclVersion))
	case keyAudit:
		return countIf(&c.Audit, len(k) == 9, v, new(logpb.Audit))
	case keySecret:
		return nil
	case metaApplied[0]:
		return countMeta(string(k), v)
	}
	return errors.New("its kind is not known")
}

func countMeta(k string, v []byte) error {
	switch k {
	case metaApplied, metaStamp, metaFilter, metaLevel:
		_, err := parseUint64(v)
		return err
	}
	return errors.New("its name is not known")
}

var errMalformed = errors.New("it is malformed")

// countIf counts a record whose key is whole and whose value can be read.
func countIf(n *int, whole bool, v []byte, rec proto.Message) error {
	*n++
	if !whole || rec == nil && len(v) > 0 {
		return errMalformed
	}
	if rec == nil {
		return nil
	}
	return proto.Unmarshal(v, rec)
}

func (c *Contents) session(k, v []byte) error {
	rec := new(logpb.Session)
	if err := countIf(&c.Sessions, true, v, rec); err != nil {
		return err
	}
	if rec.Client != string(k[1:]) {
		return errors.New("it is of another client")
	}
	if rec.Owner != "" {
		c.Connected++
	}
	if rec.Will != nil {
		c.Wills++
	}
	return nil
}
