package demo

import (
	"sync"
	"time"
)

// tally is what a ledger adds up to.
type tally struct {
	acked      int // acknowledged to their publishers
	delivered  int // different messages that arrived
	duplicates int // arrivals of a message that was there already
	disordered int // arrivals behind a later one of the same publisher
	owed       int // acknowledged and not here yet
	lost       int // owed for too long
	// gap is the longest silence between two arrivals.
	gap time.Duration
}

// ledger holds what one subscriber is owed and got. Publishers number their
// messages from 1 without a hole, and every one of them is accounted for by
// publisher and number. Memory is bounded by what is under way. It is safe for
// concurrent use.
type ledger struct {
	mu      sync.Mutex
	streams map[string]*stream
	tally   tally
	last    time.Time // of the latest arrival; zero: silence does not count
}

// stream is the account of one publisher.
type stream struct {
	floor uint64 // all up to here have arrived or are lost
	high  uint64 // the latest number that has arrived
	here  map[uint64]struct{}
	owed  map[uint64]time.Time // since when
	lost  map[uint64]struct{}
}

func newLedger() *ledger { return &ledger{streams: map[string]*stream{}} }

func (l *ledger) stream(name string) *stream {
	s := l.streams[name]
	if s == nil {
		s = &stream{here: map[uint64]struct{}{}, owed: map[uint64]time.Time{}, lost: map[uint64]struct{}{}}
		l.streams[name] = s
	}
	return s
}

// acknowledged notes that message n of a publisher was acknowledged: from now on
// it is owed. An arrival may come before.
func (l *ledger) acknowledged(publisher string, n uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stream(publisher)
	l.tally.acked++
	if _, here := s.here[n]; !here && n > s.floor {
		s.owed[n] = at
	}
}

// arrived notes an arrival and tells whether it was the first of its number.
func (l *ledger) arrived(publisher string, n uint64, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() {
		l.tally.gap = max(l.tally.gap, at.Sub(l.last))
	}
	l.last = at
	s := l.stream(publisher)
	_, late := s.lost[n]
	if _, here := s.here[n]; here || n <= s.floor && !late {
		l.tally.duplicates++
		return false
	}
	l.tally.delivered++
	if n < s.high {
		l.tally.disordered++
	}
	s.high = max(s.high, n)
	delete(s.owed, n)
	delete(s.lost, n)
	if n > s.floor {
		s.here[n] = struct{}{}
		s.settle()
	}
	return true
}

// settle raises the floor over all that has arrived or is lost.
func (s *stream) settle() {
	for {
		next := s.floor + 1
		_, here := s.here[next]
		if _, lost := s.lost[next]; !here && !lost {
			return
		}
		delete(s.here, next)
		s.floor = next
	}
}

// writeOff calls lost what has been owed since before the time.
func (l *ledger) writeOff(before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		for n, since := range s.owed {
			if since.Before(before) {
				delete(s.owed, n)
				s.lost[n] = struct{}{}
			}
		}
		s.settle()
	}
}

// owedBefore is how many messages have been owed since before the time.
func (l *ledger) owedBefore(before time.Time) (count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		for _, since := range s.owed {
			if since.Before(before) {
				count++
			}
		}
	}
	return count
}

// rest says that silence means nothing until the next arrival.
func (l *ledger) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Time{}
}

// sum adds up. A silence that lasts at the time given counts as a gap.
func (l *ledger) sum(now time.Time) tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.tally
	for _, s := range l.streams {
		out.owed += len(s.owed)
		out.lost += len(s.lost)
	}
	if !l.last.IsZero() {
		out.gap = max(out.gap, now.Sub(l.last))
	}
	return out
}
