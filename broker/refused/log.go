// Package refused tells in the log of what a node refuses: each reason and source
// once in a while, however often it happens, so that whoever is refused cannot fill
// the disk. What is refused is counted by those who refuse.
package refused

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Period is how long a reason and source is not told of again.
const Period = time.Minute

// maxSources bounds how many are told apart at a time.
const maxSources = 8192

// Log is safe for concurrent use. A nil Log tells nothing.
type Log struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	seen map[noted]*count
	// forgot is when those whose period is over were last looked for: not for every
	// source of an attack that has more than there is room for.
	forgot time.Time
}

type noted struct{ reason, cause, source string }

type count struct {
	since time.Time
	more  int // since then, not told of
}

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log {
	return &Log{log: log, now: time.Now, seen: map[noted]*count{}}
}

// Source names who an address is for limits and logs: an IPv6 host has a whole /64.
func Source(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// Note tells of a refusal, unless the same was told of within Period; then it is
// counted, and the next line says how many there were. args are slog's.
func (l *Log) Note(reason, source string, args ...any) { l.NoteCause(reason, "", source, args...) }

// NoteCause is Note where one reason, which clients and metrics are told of, has
// several causes that an operator wants to know apart.
func (l *Log) NoteCause(reason, cause, source string, args ...any) {
	if l == nil {
		return
	}
	more, tell := l.note(noted{reason, cause, source})
	if !tell {
		return
	}
	args = append([]any{"reason", reason, "source", source}, args...)
	if more > 0 {
		args = append(args, "more_before", more)
	}
	l.log.Info("refused", args...)
}

func (l *Log) note(key noted) (more int, tell bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.seen[key]
	switch {
	case c != nil && now.Sub(c.since) < Period:
		c.more++
		return 0, false
	case c == nil && len(l.seen) >= maxSources:
		l.forget(now)
		if len(l.seen) >= maxSources {
			return 0, false // too many sources at once to tell of each
		}
	}
	if c == nil {
		c = &count{}
		l.seen[key] = c
	}
	more, c.more, c.since = c.more, 0, now
	return more, true
}

// forget drops those whose period is over.
func (l *Log) forget(now time.Time) {
	if now.Sub(l.forgot) < Period/10 {
		return
	}
	l.forgot = now
	for key, c := range l.seen {
		if now.Sub(c.since) >= Period {
			delete(l.seen, key)
		}
	}
}
