package routing

// Cache remembers what topics matched, for one goroutine. All it holds is of one
// version of the Trie; a newer one drops it.
//
// It keeps two generations: when the young one is full it becomes the old one,
// and what is asked for again moves back. So the topics in use stay and the cost
// of a place is constant.
type Cache[V any] struct {
	limit   int // of a generation
	version uint64
	cost    int // of young
	young   map[string][]V
	old     map[string][]V
	scratch []V // the result of what is not worth a place
}

// NewCache returns a Cache that holds up to limit units, at least 2: one for
// each topic, for each value that a topic matched and for each 64 bytes of
// topic.
func NewCache[V any](limit int) *Cache[V] {
	return &Cache[V]{limit: max(limit/2, 1)}
}

// Match returns the values of the filters in s that match topic. The result is
// read-only and valid until the next call. A hit does not allocate.
//
// Snapshots given to one Cache must be of one Trie.
func (c *Cache[V]) Match(s *Snapshot[V], topic []byte) []V {
	if s.version != c.version {
		c.drop()
		c.version = s.version
	}
	if values, ok := c.young[string(topic)]; ok {
		return values
	}
	values, ok := c.old[string(topic)]
	if !ok {
		c.scratch = s.MatchBytes(c.scratch[:0], topic)
		values = c.scratch
	}
	cost := 1 + len(topic)/64 + len(values)
	if cost > c.limit/4+1 {
		return values
	}
	if !ok {
		values = append(make([]V, 0, len(values)), values...)
	}
	if c.cost+cost > c.limit {
		c.old, c.young, c.cost = c.young, nil, 0
	}
	if c.young == nil {
		c.young = make(map[string][]V)
	}
	c.young[string(topic)] = values
	c.cost += cost
	return values
}

// Len returns the number of topics held.
func (c *Cache[V]) Len() int {
	n := len(c.young)
	for topic := range c.old {
		if _, both := c.young[topic]; !both {
			n++
		}
	}
	return n
}

func (c *Cache[V]) drop() {
	// The scratch slice goes too: it pins values that are gone.
	c.young, c.old, c.scratch, c.cost = nil, nil, nil, 0
}
