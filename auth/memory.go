package auth

import (
	"bytes"
	"cmp"
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"iter"
	"slices"
	"sync"
	"time"
)

// Entry says that a password was verified, without saying which: Sum is an
// HMAC-SHA256 under a key that the nodes share and keep in memory only. It may
// travel between nodes, never to disk.
type Entry struct {
	KeyID   uint32
	User    string
	Version uint64 // User.Version, so that a changed password ends it
	Sum     [sha256.Size]byte
}

// MemoryConfig bounds a Memory.
type MemoryConfig struct {
	// TTL is how long an entry counts after it was remembered or learnt; 0 means
	// an hour.
	TTL time.Duration
	// Limit is the number of entries, one per user and key; the least recently
	// used go first. 0 means 100,000, about 20 MB.
	Limit int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// OnRemember, if set, is called with each entry that this node found out
	// itself, to share it with the peers. It must not block.
	OnRemember func(Entry)
}

// Memory knows passwords that were verified before, so that a reconnect costs a
// keyed hash and not 30 ms. It keeps no password. It is safe for concurrent use
// and, without a key, knows nothing.
type Memory struct {
	cfg MemoryConfig

	mu      sync.Mutex
	keys    []memoryKey // at most two, the newest first
	entries map[memoryID]*list.Element
	byUse   *list.List // of *remembered, the most recently used first
}

type memoryKey struct {
	id  uint32
	key []byte
}

type memoryID struct {
	user string
	key  uint32
}

type remembered struct {
	Entry
	until time.Time
}

// NewMemory returns an empty Memory.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.TTL <= 0 {
		cfg.TTL = time.Hour
	}
	if cfg.Limit <= 0 {
		cfg.Limit = 100_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Memory{cfg: cfg, entries: make(map[memoryID]*list.Element), byUse: list.New()}
}

// SetKey adds a key, at least 32 random bytes. Ids grow: the key of the highest
// id is used for new entries, the one before it still counts, older ones and
// their entries are forgotten.
func (m *Memory) SetKey(id uint32, key []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A new slice, because Known reads the old one without the lock.
	keys := []memoryKey{{id, bytes.Clone(key)}}
	for _, k := range m.keys {
		if k.id != id {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b memoryKey) int { return cmp.Compare(b.id, a.id) })
	m.keys = keys[:min(len(keys), 2)]
	for e := m.byUse.Front(); e != nil; {
		next := e.Next()
		if !m.hasKey(e.Value.(*remembered).KeyID) {
			m.remove(e)
		}
		e = next
	}
}

func (m *Memory) hasKey(id uint32) bool {
	return slices.ContainsFunc(m.keys, func(k memoryKey) bool { return k.id == id })
}

// Remember records that password is the user's as of version, and calls
// OnRemember.
func (m *Memory) Remember(user string, version uint64, password []byte) {
	m.mu.Lock()
	if len(m.keys) == 0 {
		m.mu.Unlock()
		return
	}
	key := m.keys[0]
	m.mu.Unlock()
	e := Entry{KeyID: key.id, User: user, Version: version, Sum: key.sum(user, version, password)}
	m.mu.Lock()
	m.store(e)
	m.mu.Unlock()
	if m.cfg.OnRemember != nil {
		m.cfg.OnRemember(e)
	}
}

// Known tells whether password was verified for the user and version before.
func (m *Memory) Known(user string, version uint64, password []byte) bool {
	m.mu.Lock()
	keys := m.keys
	var held [2]*remembered
	now := m.cfg.Now()
	for i, k := range keys {
		if e := m.entries[memoryID{user, k.id}]; e != nil {
			if r := e.Value.(*remembered); r.until.After(now) && r.Version == version {
				held[i] = r
			}
		}
	}
	m.mu.Unlock()
	for i, k := range keys {
		if held[i] == nil {
			continue
		}
		sum := k.sum(user, version, password)
		if subtle.ConstantTimeCompare(sum[:], held[i].Sum[:]) == 1 {
			m.touch(memoryID{user, k.id})
			return true
		}
	}
	return false
}

// Forget drops all that is known of the user.
func (m *Memory) Forget(user string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.keys {
		if e := m.entries[memoryID{user, k.id}]; e != nil {
			m.remove(e)
		}
	}
}

// Learn takes an entry that a peer shared. One that is known already keeps its
// time to live, so that peers do not keep each other's entries alive; one that
// contradicts what is known and is not newer, and one of a key that is not here,
// is ignored.
func (m *Memory) Learn(e Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasKey(e.KeyID) || ValidUser(e.User) != nil {
		return
	}
	if old := m.entries[memoryID{e.User, e.KeyID}]; old != nil {
		if r := old.Value.(*remembered); r.Version >= e.Version && r.until.After(m.cfg.Now()) {
			return
		}
	}
	m.store(e)
}

// Merge learns many entries, as a node does that has started; it sets the key first.
func (m *Memory) Merge(entries iter.Seq[Entry]) {
	for e := range entries {
		m.Learn(e)
	}
}

// Export returns what counts now, the most recently used first.
func (m *Memory) Export() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	out := make([]Entry, 0, len(m.entries))
	for e := m.byUse.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*remembered); r.until.After(now) {
			out = append(out, r.Entry)
		}
	}
	return out
}

// Len returns the number of entries held, expired ones included.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

// store puts e in place of what is there; m.mu is held. What it replaces is not
// mutated, because Known reads it without the lock.
func (m *Memory) store(e Entry) {
	id := memoryID{e.User, e.KeyID}
	r := &remembered{Entry: e, until: m.cfg.Now().Add(m.cfg.TTL)}
	if old := m.entries[id]; old != nil {
		old.Value = r
		m.byUse.MoveToFront(old)
		return
	}
	m.entries[id] = m.byUse.PushFront(r)
	for len(m.entries) > m.cfg.Limit {
		m.remove(m.byUse.Back())
	}
}

func (m *Memory) touch(id memoryID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[id]; e != nil {
		m.byUse.MoveToFront(e)
	}
}

func (m *Memory) remove(e *list.Element) {
	r := e.Value.(*remembered)
	delete(m.entries, memoryID{r.User, r.KeyID})
	m.byUse.Remove(e)
}

// sum takes the lengths in, so that no two inputs are the same bytes.
func (k memoryKey) sum(user string, version uint64, password []byte) (out [sha256.Size]byte) {
	h := hmac.New(sha256.New, k.key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(user)))
	h.Write(n[:])
	h.Write([]byte(user))
	binary.BigEndian.PutUint64(n[:], version)
	h.Write(n[:])
	h.Write(password)
	h.Sum(out[:0])
	return out
}
