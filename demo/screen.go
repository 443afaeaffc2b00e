package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	redrawEvery = 250 * time.Millisecond
	// statusEvery is how often a summary is printed where there is no screen.
	statusEvery = 5 * time.Second
)

// display is what the user sees: a live screen, or lines.
type display interface {
	// tell shows an event as it happens.
	tell(event)
	// Close leaves the terminal as it was. It is idempotent.
	Close() error
}

// terminal returns out as a terminal, if it is one that can be drawn on.
func terminal(c config) (*os.File, bool) {
	file, ok := c.out.(*os.File)
	ok = ok && !c.plain && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
	return file, ok
}

// screen redraws the whole terminal a few times a second.
type screen struct {
	out    *os.File
	colour bool
	look   func() view
	cancel context.CancelFunc
	work   sync.WaitGroup
	once   sync.Once
}

// What a terminal is told: the alternate screen without a cursor, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[2J"
	leaveScreen = "\x1b[0m\x1b[?25h\x1b[?1049l"
)

func openScreen(out *os.File, look func() view) *screen {
	ctx, cancel := context.WithCancel(context.Background())
	s := &screen{out: out, colour: os.Getenv("NO_COLOR") == "", look: look, cancel: cancel}
	_, _ = io.WriteString(out, enterScreen) // a terminal that is gone shows nothing
	s.work.Go(func() { every(ctx, redrawEvery, s.draw) })
	return s
}

// tell implements display: the next frame shows it.
func (s *screen) tell(event) {}

// draw writes one frame in one write, over the last one, so that nothing
// flickers.
func (s *screen) draw() {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	_, _ = io.WriteString(s.out, frame(render(s.look(), width-1, height), s.colour))
}

// frame is the text of a screen. The last column stays free, because some
// terminals erase it with the rest of the line.
func frame(lines []line, colour bool) string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l.ansi(colour) + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// Close implements display.
func (s *screen) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.work.Wait()
		_, _ = io.WriteString(s.out, leaveScreen)
	})
	return nil
}

// lines prints events and, now and then, where things stand.
type lines struct {
	mu     sync.Mutex
	out    io.Writer
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func openLines(out io.Writer, look func() view) *lines {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lines{out: out, cancel: cancel}
	l.work.Go(func() {
		every(ctx, statusEvery, func() {
			if v := look(); len(v.subscribers) > 0 {
				l.print("%s  %s", stamp(v.elapsed), standing(v))
			}
		})
	})
	return l
}

func (l *lines) print(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.out, format+"\n", args...) // nobody to tell
}

// tell implements display.
func (l *lines) tell(e event) { l.print("%s  %s", stamp(e.at), e.text) }

// Close implements display.
func (l *lines) Close() error {
	l.cancel()
	l.work.Wait()
	return nil
}

// standing is where things stand, in one line.
func standing(v view) string {
	var parts []string
	for _, n := range v.nodes {
		state, _ := nodeState(n)
		if n.answers {
			state += fmt.Sprintf(" %s applied=%d clients=%d in=%.0f/s out=%.0f/s", n.role, n.applied, n.clients, n.in, n.out)
		}
		parts = append(parts, n.name+": "+state)
	}
	for _, s := range v.subscribers {
		parts = append(parts, fmt.Sprintf("%s: acked=%d delivered=%d twice=%d under-way=%d lost=%d",
			s.name, s.tally.acked, s.tally.delivered, s.tally.duplicates, s.tally.owed, s.tally.lost))
	}
	return strings.Join(parts, " | ")
}
