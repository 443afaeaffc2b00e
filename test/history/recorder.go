package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Recorder keeps the events of one run, in memory and, if it has a file, there
// as JSON lines.
type Recorder struct {
	start time.Time

	mu     sync.Mutex
	events []Event
	file   *os.File
	out    *bufio.Writer
	enc    *json.Encoder
	err    error // of the file; the first
	closed bool
}

// Open starts a run. path is the file to write, or "" for none.
func Open(path string) (*Recorder, error) {
	r := &Recorder{start: time.Now()}
	if path == "" {
		return r, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	r.file, r.out = f, bufio.NewWriterSize(f, 64<<10)
	r.enc = json.NewEncoder(r.out)
	return r, nil
}

// Add stamps e and keeps it. It is safe for concurrent use; the order of the
// events is that of their stamps.
func (r *Recorder) Add(e Event) Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.At = time.Since(r.start)
	if n := len(r.events); n > 0 && e.At <= r.events[n-1].At {
		// A simulated clock stands still while anything is done.
		e.At = r.events[n-1].At + 1
	}
	r.events = append(r.events, e)
	if r.enc != nil && r.err == nil && !r.closed {
		r.err = r.enc.Encode(e)
	}
	return e
}

// Kill notes that a node was killed, and Restart that it was started again; node
// is the address as clients know it.
func (r *Recorder) Kill(node string) { r.Add(Event{Kind: Killed, Node: node}) }

// Restart notes that a node was started again.
func (r *Recorder) Restart(node string) { r.Add(Event{Kind: Restarted, Node: node}) }

// Mark notes something else that was done to the cluster.
func (r *Recorder) Mark(note string) { r.Add(Event{Kind: Mark, Note: note}) }

// Drain notes that a node is told to stop in good order (SIGTERM).
func (r *Recorder) Drain(node string) { r.Add(Event{Kind: Draining, Node: node}) }

// Reset notes that every client's connection to a node is broken, just before it is.
func (r *Recorder) Reset(node string) { r.Add(Event{Kind: Reset, Node: node}) }

// FaultBegin notes that a fault begins, just before it does. nodes are those that
// it touches, as clients know them; none means all. name is unique in the run.
func (r *Recorder) FaultBegin(name string, nodes ...string) {
	if len(nodes) == 0 {
		nodes = []string{""}
	}
	for _, n := range nodes {
		r.Add(Event{Kind: FaultBegin, Node: n, Note: name})
	}
}

// FaultEnd notes that what the fault of this name broke is repaired.
func (r *Recorder) FaultEnd(name string) { r.Add(Event{Kind: FaultEnd, Note: name}) }

// now is the time that an event gets if it is added now.
func (r *Recorder) now() time.Duration { return time.Since(r.start) }

// Events returns what was recorded so far.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Close writes the rest of the file. It is idempotent; the events stay.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil || r.closed {
		return r.err
	}
	r.closed = true
	r.err = errors.Join(r.err, r.out.Flush(), r.file.Close())
	return r.err
}

// Read reads the events of a file that a Recorder wrote.
func Read(from io.Reader) ([]Event, error) {
	var events []Event
	for dec := json.NewDecoder(from); ; {
		var e Event
		switch err := dec.Decode(&e); {
		case err == io.EOF:
			return events, nil
		case err != nil:
			return events, fmt.Errorf("read the history after %d events: %w", len(events), err)
		}
		events = append(events, e)
	}
}
