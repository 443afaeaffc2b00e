package broker

import (
	"maps"
	"math/rand/v2"
	"sync"
)

// heavy counts the messages of clients and of topics on this node, from a sample, while
// somebody looks. It is bounded: names that come when it is full are left out.
type heavy struct {
	mu              sync.Mutex
	clients, topics map[string]int64
}

// heavyOf is of how many messages one is counted, heavyNames how many names there are
// room for.
const (
	heavyOf    = 16
	heavyNames = 20_000
)

// Count begins to count, or goes on; with false it ends and forgets.
func (b *Broker) Count(on bool) {
	switch {
	case !on:
		b.heavy.Store(nil)
	case b.heavy.Load() == nil:
		b.heavy.CompareAndSwap(nil, &heavy{clients: map[string]int64{}, topics: map[string]int64{}})
	}
}

// Counted are the messages that were received since Count, by client and by topic,
// estimated.
func (b *Broker) Counted() (clients, topics map[string]int64) {
	h := b.heavy.Load()
	if h == nil {
		return nil, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.clients), maps.Clone(h.topics)
}

func (h *heavy) count(client, topic string) {
	if rand.Uint32()%heavyOf != 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	add := func(to map[string]int64, name string) {
		if _, known := to[name]; known || len(to) < heavyNames {
			to[name] += heavyOf
		}
	}
	add(h.clients, client)
	add(h.topics, topic)
}
