package auth

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// ThrottleConfig bounds how often logins may fail.
type ThrottleConfig struct {
	// PerAddress and PerUser are how many failures are let pass at once, and in each
	// Window after that; 0: any number.
	PerAddress, PerUser int
	// Window is a minute if 0.
	Window time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// maxTallies bounds each table of a Throttle, about 8 MB in all. What failed, or
// succeeded, the longest time ago is forgotten first.
const maxTallies = 32_768

// Throttle slows down who guesses passwords: after too many failures logins are not
// looked at for a while. A user who logged in from an address before is not locked
// out by what others do elsewhere, nor by others at that address: only its own
// failures there count. It is safe for concurrent use.
type Throttle struct {
	cfg ThrottleConfig

	mu        sync.Mutex
	addresses *Tally[netip.Addr]
	users     *Tally[string]
	pairs     *Tally[pair] // failures of those in known
	known     *Tally[pair] // who has logged in from where
}

type pair struct {
	address netip.Addr
	user    string
}

// NewThrottle returns a Throttle that has seen nobody.
func NewThrottle(cfg ThrottleConfig) *Throttle {
	if cfg.Window <= 0 {
		cfg.Window = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Throttle{
		cfg: cfg, addresses: NewTally[netip.Addr](cfg.PerAddress, cfg.Window), users: NewTally[string](cfg.PerUser, cfg.Window),
		pairs: NewTally[pair](cfg.PerUser, cfg.Window), known: NewTally[pair](1, knownFor),
	}
}

// knownFor is how long a login is remembered.
const knownFor = 30 * 24 * time.Hour

func pairOf(address netip.Addr, user string) pair {
	// No user has a longer name, and those who try one need not be told apart.
	return pair{address, user[:min(len(user), maxName+1)]}
}

// Allow returns ErrThrottled if a login is not to be looked at. address is as
// Failed's.
func (t *Throttle) Allow(address netip.Addr, user string) error {
	now, p := t.cfg.Now(), pairOf(address, user)
	t.mu.Lock()
	defer t.mu.Unlock()
	full := t.addresses.Full(address, now) || p.user != "" && t.users.Full(p.user, now)
	if t.known.Has(p, now) {
		full = t.pairs.Full(p, now)
	}
	if full {
		return ErrThrottled
	}
	return nil
}

// Failed notes that a login proved nobody. address is one that stands for a whole
// source, such as the first of an IPv6 /64; user is whom it claimed to be, if
// anybody.
func (t *Throttle) Failed(address netip.Addr, user string) {
	now, p := t.cfg.Now(), pairOf(address, user)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known.Has(p, now) {
		t.pairs.Add(p, now)
		return
	}
	t.addresses.Add(address, now)
	if p.user != "" {
		t.users.Add(p.user, now)
	}
}

// Succeeded notes that a user has logged in from an address.
func (t *Throttle) Succeeded(address netip.Addr, user string) {
	now, p := t.cfg.Now(), pairOf(address, user)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known.Add(p, now)
}

// Tally counts what happened of late, by key, for a bounded number of keys. It is not
// safe for concurrent use.
type Tally[K comparable] struct {
	limit  float64 // 0: nothing is counted
	drain  float64 // a second
	counts map[K]*list.Element
	byUse  *list.List // of *tallied[K], the newest first
}

type tallied[K comparable] struct {
	key   K
	level float64
	at    time.Time
}

// NewTally returns a Tally that is full at limit, of which all is forgotten again
// within window; a limit of 0 is never reached.
func NewTally[K comparable](limit int, window time.Duration) *Tally[K] {
	return &Tally[K]{limit: float64(limit), drain: float64(limit) / window.Seconds(), counts: map[K]*list.Element{}, byUse: list.New()}
}

// Add counts one, and tells whether that made it full.
func (t *Tally[K]) Add(key K, now time.Time) (reached bool) {
	if t.limit == 0 {
		return false
	}
	e := t.counts[key]
	if e == nil {
		if t.byUse.Len() >= maxTallies {
			last := t.byUse.Back()
			delete(t.counts, last.Value.(*tallied[K]).key)
			t.byUse.Remove(last)
		}
		e = t.byUse.PushFront(&tallied[K]{key: key, at: now})
		t.counts[key] = e
	}
	c := e.Value.(*tallied[K])
	before := t.level(c, now)
	c.level, c.at = min(before+1, t.limit), now
	t.byUse.MoveToFront(e)
	return before < t.limit && before+1 >= t.limit
}

// level is what is left of a count.
func (t *Tally[K]) level(c *tallied[K], now time.Time) float64 {
	return max(0, c.level-now.Sub(c.at).Seconds()*t.drain)
}

// Full tells whether one more is too many.
func (t *Tally[K]) Full(key K, now time.Time) bool {
	e := t.counts[key]
	return e != nil && t.limit > 0 && t.level(e.Value.(*tallied[K]), now) > t.limit-1
}

// Has tells whether anything of the key is left.
func (t *Tally[K]) Has(key K, now time.Time) bool {
	e := t.counts[key]
	return e != nil && t.level(e.Value.(*tallied[K]), now) > 0
}

// Len is how many keys are remembered.
func (t *Tally[K]) Len() int { return len(t.counts) }
