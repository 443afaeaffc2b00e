package listener

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// tellAgain is how long a cause of one address is not told again.
	tellAgain = time.Minute
	// maxTold bounds what is remembered of that, and what is told in that time.
	maxTold = 1024
)

// refusals keeps the log readable while somebody tries again and again: each cause of
// an address is told once a minute, and of no more than maxTold of them.
type refusals struct {
	mu    sync.Mutex
	begun time.Time
	told  map[refusal]*telling
}

type refusal struct {
	from netip.Addr
	why  string
}

type telling struct {
	at     time.Time
	unsaid int
}

// note tells whether a refusal is to be logged, and how often the same was not since
// the last time.
func (r *refusals) note(from netip.Addr, why string, now time.Time) (unsaid int, say bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) >= maxTold && now.Sub(r.begun) > tellAgain {
		r.told = nil
	}
	if r.told == nil {
		r.told, r.begun = map[refusal]*telling{}, now
	}
	key := refusal{from, why}
	t := r.told[key]
	switch {
	case t == nil && len(r.told) >= maxTold:
		return 0, false
	case t == nil:
		r.told[key] = &telling{at: now}
		return 0, true
	case now.Sub(t.at) < tellAgain:
		t.unsaid++
		return 0, false
	}
	unsaid, t.at, t.unsaid = t.unsaid, now, 0
	return unsaid, true
}
