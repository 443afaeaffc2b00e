package demo

import (
	"fmt"
	"sync"
	"time"
)

// nodeView is what the screen shows of a node.
type nodeView struct {
	name    string
	pid     int  // 0: no process
	ready   bool // by its own word
	answers bool // what follows is known
	leader  bool
	role    string
	lease   time.Duration
	applied uint64
	clients int
	in, out float64 // messages per second from and to clients
}

// event is one line of the timeline.
type event struct {
	at   time.Duration
	text string
	mark mark
}

// mark says how an event is to be taken.
type mark int

const (
	plainMark mark = iota
	goodMark
	badMark
)

// subscriberView is what the screen shows of a subscriber.
type subscriberView struct {
	name  string
	where string // the node it is at, or why it is at none
	tally tally
	gaps  bool // its longest gap means something
}

// view is all that the screen shows.
type view struct {
	endpoint    string
	elapsed     time.Duration
	phase       string
	nodes       []nodeView
	subscribers []subscriberView
	devices, up int // publishers, and how many of them are connected
	events      []event
	try         []string
}

// board collects what happened, for the screen and for the end.
type board struct {
	start time.Time
	tell  func(event) // called for each event, in order

	mu     sync.Mutex
	events []event
	phase  string
}

func (b *board) say(m mark, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := event{time.Since(b.start), fmt.Sprintf(format, args...), m}
	b.events = append(b.events, e)
	b.tell(e)
}

// now says what is being done.
func (b *board) now(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.phase = fmt.Sprintf(format, args...)
}

// put writes what b knows into v.
func (b *board) put(v *view) {
	v.events = b.history()
	b.mu.Lock()
	defer b.mu.Unlock()
	v.elapsed, v.phase = time.Since(b.start), b.phase
}

// history returns all events.
func (b *board) history() []event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]event(nil), b.events...)
}

// milliseconds is a duration as the timeline writes it.
func milliseconds(d time.Duration) string { return thousands(int(d.Milliseconds())) + " ms" }

// thousands writes a number with separators.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
