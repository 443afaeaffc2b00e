package broker

import (
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// progress gathers the connections whose cursors have moved.
type progress struct {
	mu    sync.Mutex
	moved map[*client]struct{}
	// kept are releases that did not get through.
	kept []*logpb.Release
	kick chan struct{}
}

// maxKept bounds the releases that wait: without a lease for so long that there
// are more, the node's incarnation ends and releases them all.
const maxKept = 100_000

func (p *progress) keep(r *logpb.Release) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) < maxKept {
		p.kept = append(p.kept, r)
	}
}

// retry has releases submitted again, if any wait.
func (p *progress) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) > 0 {
		p.wake()
	}
}

func (p *progress) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// add has what c's client acknowledged reported soon.
func (p *progress) add(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved == nil {
		p.moved = map[*client]struct{}{}
	}
	p.moved[c] = struct{}{}
	p.wake()
}

func (p *progress) take() (map[*client]struct{}, []*logpb.Release) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, k := p.moved, p.kept
	p.moved, p.kept = nil, nil
	return m, k
}

// progressLoop reports cursors, all in one item, some time after the first of
// them moved. A quiet node has no timer.
func (b *Broker) progressLoop() {
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.progress.kick:
		}
		t := time.NewTimer(b.cfg.ProgressInterval)
		select {
		case <-b.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		b.report()
	}
}

// report submits the cursors that moved, after the QoS 2 states that led there.
func (b *Broker) report() {
	var list []*logpb.SessionProgress
	var of []*client
	moved, kept := b.progress.take()
	for _, r := range kept {
		b.release(r, nil)
	}
	for c := range moved {
		c.submitMarks()
		if p := c.advance(); p != nil {
			list = append(list, p)
			of = append(of, c)
		}
	}
	if len(list) == 0 {
		return
	}
	item := &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: list}}}
	b.deps.Log.Submit(item, func(r fsm.Result) {
		for i, c := range of {
			if r.Err != nil {
				c.unreport(list[i])
			}
			c.replayedReported(list[i].Replayed, r)
		}
	})
}

// advance returns the cursor of c, and how far its replays have come, if any of
// that moved since it was last reported.
func (c *client) advance() *logpb.SessionProgress {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	o.reported = false
	p := o.position()
	if o.closed || o.lost || p <= o.cursor && !o.replayed {
		return nil
	}
	r := &logpb.SessionProgress{Client: c.id, Epoch: c.epoch, Cursor: uint64(p)}
	if o.replayed {
		r.Replayed = o.takeReplayed(false)
	}
	c.was, o.cursor = o.cursor, max(o.cursor, p)
	return r
}

// unreport has a cursor reported again that did not reach the log.
func (c *client) unreport(p *logpb.SessionProgress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uint64(c.out.cursor) == p.Cursor && !c.out.closed {
		c.out.cursor = c.was
		c.moved()
	}
}
