package fsm

import (
	"context"
	"strings"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// cutPrefix begins the client of a cut's item. No client id holds NUL
// [MQTT-1.5.4-2], so that the item changes nothing on any node, of any version.
const cutPrefix = "\x00cut/"

// CutItem is the item of the log that marks a cut. It changes nothing.
func CutItem(name string) *logpb.Item {
	return &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{
		Sessions: []*logpb.SessionProgress{{Client: cutPrefix + name}},
	}}}
}

// Cut is a copy of the state to come: right behind the entry that holds the item
// of its name. All nodes that wait for it get the state of the same log index, also
// while the log goes on.
type Cut struct {
	store *Store
	name  string
	taken chan cutTaken
}

type cutTaken struct {
	copy *Copy
	err  error
}

// Cut begins to wait for the item of CutItem(name). An item that was applied
// before does not count. The Cut must be closed.
func (s *Store) Cut(name string) *Cut {
	c := &Cut{store: s, name: name, taken: make(chan cutTaken, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cuts == nil {
		s.cuts = map[string]*Cut{}
	}
	s.cuts[name] = c
	return c
}

// Wait returns the copy, which the caller closes, or the error of ctx. A node that
// got the state by a snapshot, over the entry, never has one.
func (c *Cut) Wait(ctx context.Context) (*Copy, error) {
	select {
	case t := <-c.taken:
		return t.copy, t.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the waiting, and closes a copy that nobody took. It is idempotent.
func (c *Cut) Close() error {
	c.store.mu.Lock()
	if c.store.cuts[c.name] == c {
		delete(c.store.cuts, c.name)
	}
	c.store.mu.Unlock()
	select {
	case t := <-c.taken:
		if t.copy != nil {
			return t.copy.Close()
		}
	default:
	}
	return nil
}

// cutHere notes that the entry at hand holds the item of a cut.
func (a *applier) cutHere(client string) {
	if name, ok := strings.CutPrefix(client, cutPrefix); ok {
		a.cuts = append(a.cuts, strings.Clone(name))
	}
}

// takeCuts gives copies to those who wait for the entry that was just applied. The
// batch is put into the store first, and goes on as another one.
func (s *Store) takeCuts(a *applier) {
	names := a.cuts
	a.cuts = nil
	for _, name := range names {
		c := s.cuts[name]
		if c == nil {
			continue
		}
		delete(s.cuts, name)
		a.boundary()
		if a.err != nil {
			return // the store halts
		}
		state, err := s.Copy()
		c.taken <- cutTaken{state, err}
	}
}
