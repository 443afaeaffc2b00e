package consensus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A lease stream carries frames of a length and JSON: a few a second per node,
// so that being easy to read and to extend counts for more than size.

// maxLeaseFrame bounds a frame; secrets are some kilobytes.
const maxLeaseFrame = 1 << 20

// leaseRequest is a node's word to the leader: who it is and how far it is.
type leaseRequest struct {
	Seq uint64 `json:"seq"`
	// Node is for people who read a capture; the certificate says who it is.
	Node  string `json:"node"`
	Store string `json:"store"`
	// Nonce of the start that asks. The leader proposes NodeUp if the state knows
	// another one, or none that is up.
	Nonce       string `json:"nonce"`
	Incarnation uint64 `json:"incarnation,omitempty"`
	Applied     uint64 `json:"applied"`
	Level       uint32 `json:"level"`
	Version     string `json:"version"`
	Secrets     int64  `json:"secrets,omitempty"` // version held
	Wall        int64  `json:"wall"`              // ms
	Room        Room   `json:"room,omitempty"`    // of the node's disk
}

// leaseAnswer is the leader's word to a node.
type leaseAnswer struct {
	// Seq of the request; 0 for one that the leader sends unasked, because it
	// waits for Want to be applied or has something new to hand down.
	Seq uint64 `json:"seq,omitempty"`
	// Granted, in ms, counts from when the request was sent; 0: no lease.
	Granted     int64  `json:"granted,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`
	Term        uint64 `json:"term,omitempty"`
	Commit      uint64 `json:"commit,omitempty"`
	Want        uint64 `json:"want,omitempty"`
	// SecretsVersion of Secrets, which is set where the node held another one.
	SecretsVersion int64  `json:"secrets_version,omitempty"`
	Secrets        []byte `json:"secrets,omitempty"`
	Refused        string `json:"refused,omitempty"`
	// Scarce: messages that would have to be stored are to be refused. Unheard: the
	// leader cannot tell yet, and the word of the last one holds.
	Scarce  bool `json:"scarce,omitempty"`
	Unheard bool `json:"unheard,omitempty"`
}

func writeJSON(conn net.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err = conn.Write(append(appendLength(make([]byte, 0, 4+len(b)), len(b)), b...))
	return err
}

func readJSON(conn net.Conn, rd *bufio.Reader, v any) error {
	b, err := readFrame(conn, rd, 0, maxLeaseFrame)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// lessee is the node's side: it asks the leader for a lease again and again, and
// for an incarnation when it has none.
type lessee struct {
	c *Consensus
	// until is when the lease runs out on Consensus.now, 0: there is none. It is
	// what Leased reads.
	until  atomic.Int64
	scarce atomic.Bool   // the leader's last word
	again  chan struct{} // ask now

	mu          sync.Mutex
	incarnation uint64 // ours
	granted     uint64 // the incarnation that grantedTo is for
	grantedTo   time.Duration
	secrets     []byte
	version     int64
}

func newLessee(c *Consensus) *lessee {
	return &lessee{c: c, again: make(chan struct{}, 1)}
}

// Leased tells whether this node may accept and acknowledge. It is cheap.
func (c *Consensus) Leased() bool {
	until := c.lessee.until.Load()
	return until != 0 && int64(c.now()) < until && c.store.broken.Load() == nil
}

func (c *Consensus) leaseLeft() time.Duration {
	return max(0, time.Duration(c.lessee.until.Load())-c.now())
}

func (l *lessee) ask() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// incarnated tells which incarnation the node has; a lease counts for that one
// only.
func (l *lessee) incarnated(incarnation uint64) {
	l.mu.Lock()
	l.incarnation = incarnation
	l.settle()
	l.mu.Unlock()
	if incarnation == 0 {
		l.ask()
	}
}

// settle makes until follow from what was granted. mu is held.
func (l *lessee) settle() {
	if l.incarnation == 0 || l.granted != l.incarnation {
		l.until.Store(0)
		return
	}
	l.until.Store(int64(l.grantedTo))
}

// exchange is one way to talk to the leader: the leader's own granter, or a
// stream.
type exchange struct {
	send    func(leaseRequest) error
	answers <-chan leaseAnswer // closed when the exchange ends
	close   func()
}

// run keeps an exchange with whoever leads.
func (l *lessee) run() {
	ctx := l.c.ctx
	for ctx.Err() == nil {
		leader, changed := l.c.leaderNow()
		var x *exchange
		var err error
		switch {
		case leader.node == "":
		case leader.node == l.c.cfg.Node:
			if lead := l.c.lead.Load(); lead != nil {
				x = l.local(lead)
			}
		default:
			x, err = l.dial(ctx, leader.node)
		}
		if x != nil {
			err = l.keep(ctx, x, changed)
			x.close()
		}
		wait := l.c.cfg.Renew
		if err != nil {
			l.c.log.Debug("no lease from the leader", "member", leader.node, "err", err)
			wait /= 10
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// conversation is one exchange while it lasts: one request at a time.
type conversation struct {
	l             *lessee
	x             *exchange
	seq           uint64
	sent          time.Duration // when the last request was, as a lease counts
	asked         time.Time
	waiting, more bool   // for its answer; ask again after it
	want          uint64 // index that the leader waits for
}

// ask sends a request, now or after the answer to the last one.
func (v *conversation) ask() error {
	if v.waiting {
		v.more = true
		return nil
	}
	if err := v.l.c.store.broken.Load(); err != nil {
		// The process is about to end, or cannot: its lease must.
		return *err
	}
	v.seq++
	v.sent, v.asked, v.waiting, v.more = v.l.c.now(), time.Now(), true, false
	return v.x.send(v.l.request(v.seq))
}

// hear acts on an answer.
func (v *conversation) hear(a leaseAnswer, poll *time.Ticker) error {
	if a.Seq == v.seq {
		v.waiting = false
		v.l.take(a, v.sent)
	}
	if a.Want > v.want {
		v.want = a.Want
		poll.Reset(wantPoll)
	}
	if v.more || (a.Seq == 0 && a.Want == 0) {
		return v.ask()
	}
	return nil
}

// renew asks again after a while, unless the leader has long not answered.
func (v *conversation) renew() error {
	if !v.waiting {
		return v.ask()
	}
	if d := time.Since(v.asked); d > v.l.c.cfg.Lease/2 {
		return fmt.Errorf("the leader has not answered for %v", d)
	}
	return nil
}

// keep asks over x until it ends or the leader changes; then it returns nil.
func (l *lessee) keep(ctx context.Context, x *exchange, changed <-chan struct{}) error {
	v := &conversation{l: l, x: x}
	renew := time.NewTicker(l.c.cfg.Renew)
	defer renew.Stop()
	poll := time.NewTicker(wantPoll)
	defer poll.Stop()
	poll.Stop()
	err := v.ask()
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			return nil
		case <-l.again:
			err = v.ask()
		case <-renew.C:
			err = v.renew()
		case <-poll.C:
			if l.c.deps.State.AppliedIndex() >= v.want {
				poll.Stop()
				err = v.ask()
			}
		case a, open := <-x.answers:
			if !open {
				return errors.New("the leader ended the lease stream")
			}
			err = v.hear(a, poll)
		}
	}
	return err
}

// wantPoll is how often a node looks whether it has applied what the leader
// waits for.
const wantPoll = 5 * time.Millisecond

func (l *lessee) request(seq uint64) leaseRequest {
	l.c.reconcile()
	l.c.nodeMu.Lock()
	nonce, incarnation := l.c.nonce, uint64(l.c.Incarnation())
	l.c.nodeMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return leaseRequest{
		Seq: seq, Node: l.c.cfg.Node, Store: l.c.cfg.Store, Nonce: nonce, Incarnation: incarnation,
		Applied: l.c.deps.State.AppliedIndex(), Level: l.c.cfg.Level, Version: l.c.cfg.Version,
		Secrets: l.version, Wall: time.Now().UnixMilli(), Room: l.c.deps.Room(),
	}
}

// take acts on an answer to a request sent at the given time.
func (l *lessee) take(a leaseAnswer, sent time.Duration) {
	if a.Refused != "" {
		l.c.log.Debug("lease refused", "err", a.Refused)
	} else if a.Seq != 0 && !a.Unheard {
		l.scarce.Store(a.Scarce)
	}
	l.mu.Lock()
	if a.Granted > 0 {
		// An older leader's word may promise more than a later one's.
		to := sent + time.Duration(a.Granted)*time.Millisecond
		if a.Incarnation != l.granted || to > l.grantedTo {
			l.granted, l.grantedTo = a.Incarnation, to
		}
		l.settle()
	}
	news := a.SecretsVersion != 0 && a.SecretsVersion != l.version && a.Secrets != nil
	if news {
		l.secrets, l.version = a.Secrets, a.SecretsVersion
	}
	l.mu.Unlock()
	if news && l.c.deps.OnSecrets != nil {
		l.c.deps.OnSecrets(a.Secrets)
	}
	l.c.reconcile()
}

// local is the exchange of the leader with itself.
func (l *lessee) local(lead *leading) *exchange {
	answers := make(chan leaseAnswer, 1)
	ctx, cancel := context.WithCancel(lead.ctx)
	return &exchange{
		send: func(r leaseRequest) error {
			l.c.wg.Go(func() {
				a := l.c.granter.answer(ctx, lead, l.c.cfg.Node, r)
				select {
				case answers <- a:
				case <-ctx.Done():
				}
			})
			return nil
		},
		answers: answers,
		close:   cancel,
	}
}

// dial opens a stream to the leader.
func (l *lessee) dial(ctx context.Context, leader string) (*exchange, error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := l.c.dialPeer(dctx, leader, "", ProtoLease)
	if err != nil {
		return nil, fmt.Errorf("dial the leader: %w", err)
	}
	answers := make(chan leaseAnswer)
	ended := make(chan struct{})
	l.c.wg.Go(func() {
		defer close(answers)
		rd := bufio.NewReader(conn)
		for {
			var a leaseAnswer
			if err := readJSON(conn, rd, &a); err != nil {
				return
			}
			select {
			case answers <- a:
			case <-ended:
				return
			}
		}
	})
	return &exchange{
		send:    func(r leaseRequest) error { return writeJSON(conn, r) },
		answers: answers,
		close: func() {
			close(ended)
			_ = conn.Close() // what it carried has its own deadlines
		},
	}, nil
}

// SetSecrets gives what every node is to hold in memory and never on disk. The
// nodes get it with their next lease answer. Leader only; a later leader hands
// on what it got.
func (c *Consensus) SetSecrets(b []byte) error {
	if !c.IsLeader() {
		return ErrNotLeader
	}
	l := c.lessee
	l.mu.Lock()
	// Later than any version before, whoever made it.
	l.secrets, l.version = b, max(l.version+1, time.Now().UnixNano())
	l.mu.Unlock()
	c.granter.pokeAll()
	return nil
}

// Secrets returns what this node holds, nil for nothing yet.
func (c *Consensus) Secrets() []byte {
	l := c.lessee
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.secrets
}
