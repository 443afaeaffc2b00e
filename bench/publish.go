package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// publisher sends numbered messages. At QoS 0 it runs on one goroutine and its
// gate keeps it near its subscribers; at QoS 1 and 2 it is an acked.
type publisher struct {
	run    *run
	n      uint32
	id     string
	topic  string
	addr   string
	link   *link
	frames *frames
	gate   gate
	acked  *acked
	// receivers is how many subscribers (a shared group is one) hear a message.
	receivers int
	// sent is how many messages were written; atomic because the run watches it.
	sent atomic.Uint32
	lag  histogram // rate: how late messages were sent
	done chan struct{}
}

func (p *publisher) open(ctx context.Context) error {
	c := &p.run.cfg
	l, err := connect(ctx, c, p.addr, connectPacket(c, p.id, true, false))
	if err != nil {
		return err
	}
	p.link = l
	p.frames = newFrames(c, p.topic, p.n)
	p.done = make(chan struct{})
	p.gate = gate{wake: make(chan struct{}, 1), limit: int64(c.Window) * int64(p.receivers)}
	if c.QoS > 0 {
		p.acked = newAcked(p, min(c.Window, l.receiveMax))
	}
	return nil
}

// finished tells whether there is nothing more to send.
func (p *publisher) finished() bool {
	c := &p.run.cfg
	return p.run.stopped.Load() || c.Count > 0 && int(p.sent.Load()) >= c.Count ||
		c.Duration > 0 && p.run.now()-p.run.from.Load() >= int64(c.Duration)
}

// batch is how many messages may go into the next write.
func (p *publisher) batch(limit int) int {
	n := min(limit, p.frames.capacity())
	if c := p.run.cfg.Count; c > 0 {
		n = min(n, c-int(p.sent.Load()))
	}
	return n
}

// flood sends at QoS 0 until it is finished.
func (p *publisher) flood() error {
	defer close(p.done)
	for !p.finished() {
		room := p.gate.take(p.frames.capacity(), p.receivers, p.run)
		n := p.batch(room)
		if n <= 0 {
			continue
		}
		now, seq := p.run.now(), p.sent.Load()
		for i := range n {
			p.frames.set(i, 0, seq+uint32(i), now)
		}
		p.gate.out.Add(int64(n * p.receivers))
		if _, err := p.link.Write(p.frames.buf[:n*p.frames.size]); err != nil {
			return p.lost(err)
		}
		p.sent.Add(uint32(n))
	}
	return nil
}

// lost explains the end of the connection; nil if the run itself closed it.
func (p *publisher) lost(err error) error {
	if p.run.closing.Load() {
		return nil
	}
	return fmt.Errorf("publisher %s lost its connection: %w", p.id, err)
}

// drain reads what a QoS 0 publisher is sent, which is of interest only when it
// is a DISCONNECT or the end.
func (p *publisher) drain() error {
	buf := make([]byte, 512)
	for {
		n, err := p.link.Read(buf)
		if err != nil {
			return p.lost(err)
		}
		if n > 0 && buf[0]>>4 == packetDisconnect {
			return p.lost(fmt.Errorf("the broker disconnected: % x", buf[:n]))
		}
	}
}

// gate bounds how far a QoS 0 publisher may be ahead of its subscribers, so that
// a broker that drops what a slow reader cannot take need not drop anything.
type gate struct {
	limit   int64 // in deliveries; below 0: none
	out     atomic.Int64
	waiting atomic.Bool
	wake    chan struct{}
	stalls  int
}

// stallAfter is how long at most a gate sees no deliveries before it takes those
// under way for lost and opens.
const stallAfter = time.Second

// take returns how many of the wanted messages fit, 0 after it had to wait.
func (g *gate) take(want, receivers int, r *run) int {
	if g.limit < 0 {
		return want
	}
	room := g.limit - g.out.Load()
	// Half a window: whoever waits for one free place writes one message a time.
	if room >= min(int64(want*receivers), g.limit/2) && room >= int64(receivers) {
		return min(want, int(room)/receivers)
	}
	g.waiting.Store(true)
	defer g.waiting.Store(false)
	if g.out.Load() <= g.limit/2 {
		return 0
	}
	stall := time.NewTimer(r.stall)
	defer stall.Stop()
	for before := g.out.Load(); ; before = g.out.Load() {
		select {
		case <-g.wake:
			return 0
		case <-r.stop:
			return 0
		case <-stall.C:
		}
		if g.out.Load() == before {
			g.stalls++
			g.out.Store(0)
			return 0
		}
		stall.Reset(r.stall)
	}
}

// credit takes n deliveries off.
func (g *gate) credit(n int64) {
	if g.limit < 0 {
		return
	}
	if g.out.Add(-n) <= g.limit/2 && g.waiting.Load() {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}
