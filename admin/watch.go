package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"
)

// Bounds of a stream of events.
const (
	// beat is how often a stream says something, so that proxies and phones keep it,
	// and how soon it ends when its token does.
	beat = 5 * time.Second
	// watchStall is how long a watcher may take nothing.
	watchStall = 20 * time.Second
)

// events is a stream of server-sent events (text/event-stream of the HTML standard).
type events struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer
}

// send writes one event. It fails when the watcher has gone or takes nothing.
func (e *events) send(kind, id string, v any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.buf.Reset()
	if kind != "" {
		fmt.Fprintf(&e.buf, "event: %s\n", kind)
	}
	if id != "" {
		fmt.Fprintf(&e.buf, "id: %s\n", id)
	}
	e.buf.WriteString("data: ")
	e.buf.Write(jsonText(v)) // has no line break
	e.buf.WriteString("\n\n")
	return e.flush()
}

// comment writes something that browsers pass over.
func (e *events) comment(text string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.buf.Reset()
	fmt.Fprintf(&e.buf, ": %s\n\n", text)
	return e.flush()
}

func (e *events) flush() error {
	if err := e.control.SetWriteDeadline(time.Now().Add(watchStall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write(e.buf.Bytes()); err != nil {
		return err
	}
	return e.control.Flush()
}

// watch serves a stream whose events have an E as their data. It ends with the request, with Close and when whoever asked
// for it may not see it any more.
func watch[Q, E any](s *Server, m *mux, r route, run func(ctx context.Context, q Q, out *events) error) {
	r.stream, r.kind, r.in, r.out = true, "text/event-stream", reflect.TypeFor[Q](), reflect.TypeFor[E]()
	m.add(r, func(w http.ResponseWriter, req *http.Request) {
		out := &events{w: w, control: http.NewResponseController(w)}
		// The server's own deadline is for requests that are answered at once.
		_ = out.control.SetReadDeadline(time.Time{}) // a connection that has none needs none taken away
		ctx, cancel := context.WithCancelCause(req.Context())
		defer cancel(nil)
		// A server that closes does not wait for those who watch.
		defer context.AfterFunc(s.watching, func() { cancel(nil) })()
		q, err := readRequest[Q](req)
		if err != nil {
			writeError(w, asError(err))
			return
		}
		if c, ok := any(q).(interface{ check() error }); ok {
			if err := c.check(); err != nil {
				writeError(w, asError(err))
				return
			}
		}
		w.Header().Set("Content-Type", r.kind)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Accel-Buffering", "no")
		w.WriteHeader(http.StatusOK)
		if out.comment("mqcluster") != nil {
			return
		}
		var beating sync.WaitGroup
		beating.Go(func() { out.beat(ctx, cancel) })
		err = run(ctx, q, out)
		cancel(nil)
		beating.Wait()
		if err != nil && req.Context().Err() == nil {
			_ = out.send("problem", "", problemOf(asError(err))) // the last word; the watcher may have gone
		}
	})
}

// errTokenEnded ends a stream.
var errTokenEnded = &Error{Unauthenticated, "the session or token has ended: log in again"}

// beat keeps a stream alive, and ends it when its token has ended.
func (e *events) beat(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !still(ctx) {
			_ = e.send("problem", "", problemOf(errTokenEnded)) // it ends either way
			cancel(errTokenEnded)
			return
		}
		if err := e.comment("beat"); err != nil {
			cancel(err)
			return
		}
	}
}

// every calls f now and then every so often, until ctx ends or f fails.
func every(ctx context.Context, d time.Duration, f func() error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := f(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
