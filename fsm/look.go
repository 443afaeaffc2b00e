package fsm

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// SessionBrief is a session as a list of many has it.
type SessionBrief struct {
	Client, User  string
	Node          string // of its connection, empty if it has none
	Address       string
	Protocol      uint32
	Expiry        uint32 // seconds
	Since         int64  // log time of the last claim or release, ms
	ExpiresAt     int64  // log time, ms; 0: not running
	Subscriptions int
}

// briefChunk is how many sessions are read between two entries of the log.
const briefChunk = 256

// EachSession calls yield for every session by client id, until it returns false. It
// sees each as it is at some moment of the call, and holds the apply lock for a few
// hundred of them at a time.
func (s *Store) EachSession(yield func(SessionBrief) bool) {
	var names []string
	s.table.Load().sessions.Range(func(k, _ any) bool {
		names = append(names, k.(string))
		return true
	})
	slices.Sort(names)
	chunk := make([]SessionBrief, 0, briefChunk)
	for some := range slices.Chunk(names, briefChunk) {
		chunk = s.briefs(chunk[:0], some)
		for _, b := range chunk {
			if !yield(b) {
				return
			}
		}
	}
}

func (s *Store) briefs(dst []SessionBrief, names []string) []SessionBrief {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		o := s.state.sessions[name]
		if o == nil {
			continue // it ended meanwhile
		}
		dst = append(dst, SessionBrief{
			Client: name, User: o.rec.User, Node: o.rec.Owner, Address: o.rec.Address, Protocol: o.rec.Protocol,
			Expiry: o.rec.Expiry, Since: o.rec.Since, ExpiresAt: o.rec.ExpiresAt, Subscriptions: len(o.list()),
		})
	}
	return dst
}

// Waiting counts the messages that a session is owed and has not acknowledged, up to
// limit. It reads postings and no message, and may block on the disk.
func (s *Store) Waiting(client string, limit int) (count int, err error) {
	v := s.view()
	defer func() {
		if bad := v.Close(); err == nil {
			err = bad
		}
	}()
	found, ok := v.table.sessions.Load(client)
	if !ok {
		return 0, nil
	}
	o := found.(*sess)
	seen := map[session.Pos]bool{}
	for _, n := range o.list() {
		from := max(n.since, o.at())
		if !n.waits() || session.Pos(n.filter.last.Load()) <= from || len(seen) >= limit {
			continue
		}
		err := eachPosting(v.snap, n.filter.id, from, func(p session.Pos) (bool, error) {
			seen[p] = true // a message counts once, whatever filters it matches
			return len(seen) < limit, nil
		})
		if err != nil {
			return 0, err
		}
	}
	return len(seen), nil
}

// RetainedLevels calls yield with the next level of the retained topics that begin with
// under ("" for all, else it ends with a slash), in the order of their keys: the level, whether that very topic retains
// a message, which, and whether topics below it do. It costs three seeks a level,
// however much is below. Topics that begin with $ are left out where under is "".
func (s *Store) RetainedLevels(under string, yield func(level string, m *session.Message, below bool) bool) (err error) {
	v := s.view()
	defer func() {
		if bad := v.Close(); err == nil {
			err = bad
		}
	}()
	return v.levels(under, yield)
}

// belowKey is what the keys of all topics begin with that begin with under.
func belowKey(under string) []byte {
	k := []byte{keyRetained}
	return routing.AppendTopicKey(k, under)
}

func (v *view) levels(under string, yield func(string, *session.Message, bool) bool) (err error) {
	prefix := belowKey(under)
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; {
		base, level, err := levelOf(it.Key(), len(prefix))
		if err != nil {
			return err
		}
		var m *session.Message
		if bytes.Equal(it.Key(), base) {
			if _, m, err = parseRetained(it.Value()); err != nil {
				return err
			}
			if m.ExpiresAt != 0 && m.ExpiresAt <= v.stamp {
				m = nil
			}
		}
		down := append(bytes.Clone(base), belowByte)
		below := it.SeekGE(down) && bytes.HasPrefix(it.Key(), down)
		hidden := under == "" && len(level) > 0 && level[0] == '$'
		if (m != nil || below) && !hidden && !yield(level, m, below) {
			return nil
		}
		ok = it.SeekGE(append(base, nextByte))
	}
	return it.Error()
}

// What follows the key of a topic in those of the topics below it, and what all keys
// after those begin with at least (routing.AppendTopicKey).
const (
	belowByte = 0x01
	nextByte  = 0x02
)

// levelOf cuts the level that begins at a place out of a key: base is the key up to
// its end.
func levelOf(key []byte, at int) (base []byte, level string, err error) {
	end := at
	for end < len(key) && key[end] != belowByte {
		if key[end] == nextByte {
			end++ // an escaped byte follows
		}
		end++
	}
	if end > len(key) {
		return nil, "", routing.ErrTopicKey
	}
	if end > at {
		level, err = routing.TopicFromKey(key[at:end])
	}
	return bytes.Clone(key[:end]), level, err
}
