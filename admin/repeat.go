package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"
)

// Bounds of what is remembered of requests with an Idempotency-Key.
const (
	repeatLife = 10 * time.Minute
	maxRepeats = 10_000
	maxKey     = 255 // bytes of a key
)

// repeats remembers the answers of requests that may be sent again. It is this
// node's: what was asked of another node is not known here.
type repeats struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]*repeat
}

type repeat struct {
	asked  [sha256.Size]byte // hash of the body
	at     time.Time
	done   chan struct{} // closed when answer is there
	answer []byte        // nil: it failed, and may be tried again
}

// begin returns what is remembered of a key, or notes that it is being done.
func (r *repeats) begin(k, asked [sha256.Size]byte, now time.Time) (known *repeat, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.all[k]; old != nil && now.Sub(old.at) < repeatLife {
		return old, false
	}
	if len(r.all) >= maxRepeats {
		for k, old := range r.all {
			if now.Sub(old.at) >= repeatLife {
				delete(r.all, k)
			}
		}
	}
	n := &repeat{asked: asked, at: now, done: make(chan struct{})}
	if len(r.all) < maxRepeats {
		r.all[k] = n
	}
	return n, true
}

// end notes the answer; what failed is forgotten.
func (r *repeats) end(k [sha256.Size]byte, n *repeat, answer []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.answer = answer
	if answer == nil && r.all[k] == n {
		delete(r.all, k)
	}
	close(n.done)
}

// repeated serves a route like handleResource, and answers a request whose
// Idempotency-Key it knows as it did the first time. It is for messages, which are no
// change of the cluster and not audited.
func repeated[Q, A any](s *Server, m *mux, r route, do func(context.Context, Q) (A, error)) {
	r.in, r.out = reflect.TypeFor[Q](), reflect.TypeFor[A]()
	memory := &repeats{all: map[[sha256.Size]byte]*repeat{}}
	m.add(r, func(w http.ResponseWriter, req *http.Request) {
		key := req.Header.Get("Idempotency-Key")
		if len(key) > maxKey {
			writeError(w, &Error{Invalid, "the Idempotency-Key is longer than 255 bytes: use a shorter one"})
			return
		}
		text, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxAsk))
		if err != nil {
			writeError(w, &Error{Invalid, "the body is too large, or ended early"})
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(text))
		q, err := readRequest[Q](req)
		if err != nil {
			writeError(w, asError(err))
			return
		}
		run := func() (answer []byte, err error) {
			a, err := do(req.Context(), q)
			if err != nil {
				return nil, err
			}
			return jsonText(a), nil
		}
		var answer []byte
		if key == "" {
			answer, err = run()
		} else {
			k := sha256.Sum256([]byte(PrincipalFrom(req.Context()).key() + "\x00" + key))
			answer, err = memory.run(req.Context(), k, sha256.Sum256(text), run)
		}
		if err != nil {
			writeError(w, asError(err))
			return
		}
		writeBody(w, "application/json", http.StatusOK, answer)
	})
}

// run runs do for the first request with a key, and gives the others its answer.
func (r *repeats) run(ctx context.Context, k, asked [sha256.Size]byte, do func() ([]byte, error)) ([]byte, error) {
	n, first := r.begin(k, asked, time.Now())
	if first {
		answer, err := do()
		r.end(k, n, answer)
		return answer, err
	}
	if n.asked != asked {
		return nil, &Error{Conflict, "this Idempotency-Key was used for another request: use a new one"}
	}
	select {
	case <-n.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if n.answer == nil {
		return nil, &Error{Unavailable, "the first request with this Idempotency-Key failed: try again"}
	}
	return n.answer, nil
}
