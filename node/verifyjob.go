package node

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
)

// verifyRequest names a verification; Parts are those whose records are asked for.
type verifyRequest struct {
	Name  string `json:"name"`
	Parts []int  `json:"parts,omitempty"`
}

// digestAnswer is how far a node is with its part of a verification.
type digestAnswer struct {
	Done  bool   `json:"done"` // else: ask again
	Error string `json:"error,omitempty"`

	Index   uint64   `json:"index,omitempty"`
	Records uint64   `json:"records,omitempty"`
	Bytes   uint64   `json:"bytes,omitempty"`
	Seconds float64  `json:"seconds,omitempty"`
	Faults  []string `json:"faults,omitempty"`
	Parts   []byte   `json:"parts,omitempty"` // the sums, one after the other

	Sums []keySum `json:"sums"` // not nil if they were asked for last
}

type keySum struct {
	Key []byte `json:"key"`
	Sum []byte `json:"sum"`
}

// Bounds of a job.
const (
	// pollFor is how long an answer may be waited for in one call.
	pollFor = 3 * time.Second
	// verifyIdle is after how long without a call a job ends: its copy of the state
	// keeps what was deleted since on the disk.
	verifyIdle = time.Minute
	// verifyJobs is how many there may be: each reads the whole state.
	verifyJobs = 2
)

// verifying are the verifications that this node has a part in.
type verifying struct {
	mu   sync.Mutex
	jobs map[string]*verifyJob
}

// verifyJob is one of them: a goroutine that does what it is asked until it ends.
type verifyJob struct {
	cancel context.CancelFunc
	asked  chan []int // parts
	called chan struct{}

	mu     sync.Mutex
	ready  chan struct{} // closed when answer is there
	answer digestAnswer
}

// put has the answer found.
func (j *verifyJob) put(a digestAnswer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a.Done = true
	j.answer = a
	close(j.ready)
}

// anew makes room for the next answer.
func (j *verifyJob) anew() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ready = make(chan struct{})
}

func (j *verifyJob) waiting() chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ready
}

var errNoVerification = &fault{http.StatusNotFound, "the verification is over: begin another one with mqcluster verify"}

func (n *Node) verifyJob(name string) (*verifyJob, error) {
	n.verify.mu.Lock()
	defer n.verify.mu.Unlock()
	j := n.verify.jobs[name]
	if j == nil {
		return nil, errNoVerification
	}
	select {
	case j.called <- struct{}{}:
	default:
	}
	return j, nil
}

// verifyBegin has this node take the copy of its state when the item comes.
func (n *Node) verifyBegin(_ context.Context, r verifyRequest) (none, error) {
	n.verify.mu.Lock()
	defer n.verify.mu.Unlock()
	if n.ctx.Err() != nil {
		return none{}, errNoVerification
	}
	if len(n.verify.jobs) >= verifyJobs {
		return none{}, faultf(http.StatusConflict, "node %s takes part in %d verifications already: wait until they are over", n.cfg.Node.ID, verifyJobs)
	}
	ctx, cancel := context.WithCancel(n.ctx)
	j := &verifyJob{cancel: cancel, asked: make(chan []int, 1), called: make(chan struct{}, 1), ready: make(chan struct{})}
	if n.verify.jobs == nil {
		n.verify.jobs = map[string]*verifyJob{}
	}
	n.verify.jobs[r.Name] = j
	cut := n.store.Cut(r.Name)
	n.wg.Go(func() {
		defer func() {
			cancel()
			n.verify.mu.Lock()
			delete(n.verify.jobs, r.Name)
			n.verify.mu.Unlock()
		}()
		if err := errors.Join(n.runVerify(ctx, j, cut), cut.Close()); err != nil {
			n.log.Warn("the copy of the state that was verified was not closed", "err", err)
		}
	})
	return none{}, nil
}

// runVerify is a job. The error is of closing the copy.
func (n *Node) runVerify(ctx context.Context, j *verifyJob, cut *fsm.Cut) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(verifyIdle, cancel)
	defer idle.Stop()
	touch := func() {
		select {
		case <-j.called:
			idle.Reset(verifyIdle)
		default:
		}
	}
	patient, done := context.WithTimeout(ctx, cutPatience)
	state, err := cut.Wait(patient)
	done()
	if err != nil {
		j.put(digestAnswer{Error: "the node did not come to the entry of the log in time: it lags, or got the state by a snapshot; verify again"})
		j.linger(ctx, touch)
		return nil
	}
	p := newPace(ctx, touch)
	began := time.Now()
	d, err := state.Digest(p.step)
	if err != nil {
		j.put(digestAnswer{Error: err.Error()})
	} else {
		a := digestAnswer{Index: d.Index, Records: d.Records, Bytes: d.Bytes, Seconds: time.Since(began).Seconds(), Faults: d.Faults}
		for _, s := range d.Parts {
			a.Parts = append(a.Parts, s[:]...)
		}
		j.put(a)
	}
	for {
		parts, more := j.linger(ctx, touch)
		if !more {
			return state.Close()
		}
		a := digestAnswer{Sums: []keySum{}}
		err := state.Sums(newPace(ctx, touch).step, parts, func(k []byte, s fsm.Sum) error {
			a.Sums = append(a.Sums, keySum{append([]byte(nil), k...), s[:]})
			return nil
		})
		if err != nil {
			a = digestAnswer{Error: err.Error()}
		}
		j.put(a)
	}
}

// linger waits for what is asked next.
func (j *verifyJob) linger(ctx context.Context, touch func()) (parts []int, more bool) {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, false
		case parts := <-j.asked:
			return parts, true
		case <-look.C:
			touch()
		}
	}
}

// verifyPoll returns the answer, or none after a while.
func (n *Node) verifyPoll(ctx context.Context, r verifyRequest) (digestAnswer, error) {
	j, err := n.verifyJob(r.Name)
	if err != nil {
		return digestAnswer{}, err
	}
	wait := time.NewTimer(pollFor)
	defer wait.Stop()
	select {
	case <-j.waiting():
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.answer, nil
	case <-wait.C:
		return digestAnswer{}, nil
	case <-n.ctx.Done():
		return digestAnswer{}, errNoVerification
	case <-ctx.Done():
		return digestAnswer{}, ctx.Err()
	}
}

// verifySums asks for the records of some parts; they come by verifyPoll.
func (n *Node) verifySums(_ context.Context, r verifyRequest) (none, error) {
	j, err := n.verifyJob(r.Name)
	if err != nil {
		return none{}, err
	}
	j.anew()
	select {
	case j.asked <- r.Parts:
		return none{}, nil
	default:
		return none{}, faultf(http.StatusConflict, "the verification is busy: begin another one with mqcluster verify")
	}
}

func (n *Node) verifyEnd(_ context.Context, r verifyRequest) (none, error) {
	j, err := n.verifyJob(r.Name)
	if err == nil {
		j.cancel()
	}
	return none{}, nil
}

// pace has a long piece of work leave half of the time to others.
type pace struct {
	ctx   context.Context //nolint:containedctx // it lives for one piece of work
	touch func()
	n     int
	since time.Time
}

// paceEvery is after how many steps the clock is looked at, paceWork how long work
// goes on without a pause.
const (
	paceEvery = 256
	paceWork  = 5 * time.Millisecond
)

func newPace(ctx context.Context, touch func()) *pace {
	return &pace{ctx: ctx, touch: touch, since: time.Now()}
}

func (p *pace) step() error {
	if p.n++; p.n%paceEvery != 0 {
		return nil
	}
	worked := time.Since(p.since)
	if worked < paceWork {
		return nil
	}
	p.touch()
	rest := time.NewTimer(worked)
	defer rest.Stop()
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-rest.C:
	}
	p.since = time.Now()
	return nil
}
