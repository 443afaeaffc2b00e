package broker

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// tap is somebody who looks on: it gets a copy of what matches its filter, on top of
// what clients get, and never holds a message up.
type tap struct {
	filter string
	out    chan *session.Message

	mu     sync.Mutex
	missed int
}

// tapRoom is how many messages wait for one tap.
const tapRoom = 1024

// Tap has a copy of every message that matches filter, of all nodes, sent to the
// channel that it returns: what the log publishes, what comes by the mesh, and what
// this node's clients publish. What comes faster than it is taken is left out; missed
// tells how many were since it was last asked. stop ends it. It does not block. The
// filter must be valid and not shared.
func (b *Broker) Tap(filter string) (out <-chan *session.Message, missed func() int, stop func()) {
	t := &tap{filter: filter, out: make(chan *session.Message, tapRoom)}
	b.subMu.Lock()
	defer b.subMu.Unlock()
	// As of a client, so that the peers send what they have for it.
	b.trie.Update(func(tx *routing.Tx[*entry]) {
		e, ok := tx.Get(filter)
		if !ok {
			e = &entry{}
			tx.Set(filter, e)
			b.deps.Routes.Add(filter)
		}
		e.taps++
	})
	b.setTaps(append(slices.Clone(b.allTaps()), t))
	return t.out, t.takeMissed, sync.OnceFunc(func() { b.untap(t) })
}

func (b *Broker) untap(t *tap) {
	b.subMu.Lock()
	defer b.subMu.Unlock()
	b.trie.Update(func(tx *routing.Tx[*entry]) {
		e, ok := tx.Get(t.filter)
		if !ok {
			return
		}
		if e.taps--; e.taps == 0 && len(e.subs) == 0 {
			tx.Delete(t.filter)
			b.deps.Routes.Remove(t.filter)
		}
	})
	b.setTaps(slices.DeleteFunc(slices.Clone(b.allTaps()), func(o *tap) bool { return o == t }))
}

func (b *Broker) allTaps() []*tap {
	if p := b.taps.Load(); p != nil {
		return *p
	}
	return nil
}

// setTaps is called with subMu held.
func (b *Broker) setTaps(all []*tap) {
	if len(all) == 0 {
		b.taps.Store(nil)
		return
	}
	b.taps.Store(&all)
}

// tapped gives m, which may alias a read buffer, to the taps that match. It costs
// one load where there is none.
func (b *Broker) tapped(m *session.Message) {
	all := b.taps.Load()
	if all == nil {
		return
	}
	var own *session.Message
	for _, t := range *all {
		if !routing.Match(t.filter, m.Topic) {
			continue
		}
		if own == nil {
			n := *m
			n.Topic = strings.Clone(m.Topic) // which is a part of more, too
			n.Payload, n.Properties = bytes.Clone(m.Payload), bytes.Clone(m.Properties)
			if n.Stamp == 0 {
				n.Stamp = b.clock.millis()
			}
			own = &n
		}
		t.offer(own)
	}
}

func (t *tap) offer(m *session.Message) {
	select {
	case t.out <- m:
	default:
		t.mu.Lock()
		t.missed++
		t.mu.Unlock()
	}
}

func (t *tap) takeMissed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.missed
	t.missed = 0
	return n
}
