package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// connects makes connections and closes them again, Window at a time.
func (r *run) connects(ctx context.Context) error {
	c := &r.cfg
	if c.Resume { // something to resume
		if _, err := r.connectOnce(ctx, r.name+"-first", false); err != nil {
			return err
		}
	}
	if c.Persistent {
		defer r.forgetSessions()
		if err := r.makeSessions(ctx); err != nil {
			return err
		}
	}
	before, err := sample(c.PIDs)
	if err != nil {
		return err
	}
	r.begin()
	n := c.Count
	if n == 0 {
		n = int(^uint32(0) >> 1)
	}
	var mu sync.Mutex
	var times, waits histogram
	var made, resumed atomic.Int64
	err = forEach(ctx, n, c.Window, func(ctx context.Context, i int) error {
		if c.Duration > 0 && r.now() >= int64(c.Duration) {
			return errOver
		}
		first, from, again := r.now(), int64(0), false
		err := r.insist(ctx, func() (err error) {
			from = r.now()
			again, err = r.connectOnce(ctx, r.sessionID(i), c.Persistent)
			return err
		})
		if err != nil {
			return err
		}
		done := r.now()
		made.Add(1)
		if again {
			resumed.Add(1)
		}
		mu.Lock()
		times.add(done - from)
		waits.add(done - first)
		mu.Unlock()
		return nil
	})
	if err != nil && !errors.Is(err, errOver) {
		r.fail(err)
	}
	elapsed := time.Duration(r.now())
	after, err := sample(c.PIDs)
	if err != nil {
		return err
	}
	r.close()
	r.count(elapsed)
	r.report.spent(before, after, made.Load())
	r.report.Connections = &Connections{Made: made.Load(), Resumed: resumed.Load(), Refused: r.refusals.Load(),
		Rate: float64(made.Load()) / elapsed.Seconds(), Handshake: times.quantiles(), Waited: waits.quantiles()}
	if w := r.report.Connections.Waited; w != nil && r.report.Connections.Refused > 0 {
		r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s attempts were refused and tried again; from the first attempt p50 %.0f ms, p99 %.0f ms, max %.0f ms",
			thousands(r.report.Connections.Refused), w.P50, w.P99, w.Max))
	}
	return r.verdict(ctx)
}

// errOver ends a storm whose time is up.
var errOver = errors.New("over")

// sessionID is the client of connection i. Persistent sessions take turns.
func (r *run) sessionID(i int) string {
	if r.cfg.Persistent {
		i %= r.cfg.Clients
	}
	return fmt.Sprintf("%s-c%d", r.name, i)
}

// connectOnce connects and leaves. A persistent session must be there already.
func (r *run) connectOnce(ctx context.Context, client string, persistent bool) (resumed bool, err error) {
	c := &r.cfg
	addr := c.SubAddrs[r.turn.Add(1)%uint64(len(c.SubAddrs))]
	if c.HandshakeOnly {
		return handshake(ctx, c, addr)
	}
	l, err := connect(ctx, c, addr, connectPacket(c, "b"+client, !persistent, persistent))
	if err != nil {
		return false, err
	}
	l.Write([]byte{packetDisconnect << 4, 0})
	if persistent && !l.present {
		err = fmt.Errorf("the broker lost the session of b%s", client)
	}
	return l.resumed, errors.Join(err, l.Close())
}

// makeSessions makes the persistent sessions that are to come back.
func (r *run) makeSessions(ctx context.Context) error {
	c := &r.cfg
	return forEach(ctx, c.Clients, openers, func(ctx context.Context, i int) error {
		l, err := connect(ctx, c, c.SubAddrs[i%len(c.SubAddrs)], connectPacket(c, "b"+r.sessionID(i), false, true))
		if err != nil {
			return err
		}
		l.Write([]byte{packetDisconnect << 4, 0})
		return l.Close()
	})
}

func (r *run) forgetSessions() {
	ctx := context.Background() // also when the run was stopped
	err := forEach(ctx, r.cfg.Clients, openers, func(ctx context.Context, i int) error {
		_, err := r.connectOnce(ctx, r.sessionID(i), false)
		return err
	})
	if err != nil {
		r.fail(fmt.Errorf("remove the persistent sessions of the run: %w", err))
	}
}

// settled is how little the memory of idle processes may still change in one
// settleTick to be taken as settled.
const (
	settled    = 0.002
	settleTick = 500 * time.Millisecond
)

// idle holds Clients connections and measures what they cost in memory.
func (r *run) idle(ctx context.Context) error {
	c := &r.cfg
	before, err := sample(c.PIDs)
	if err != nil {
		return err
	}
	r.begin()
	defer r.close()
	held := make([]*link, c.Clients)
	defer func() {
		for _, l := range held {
			if l != nil {
				l.Close()
			}
		}
	}()
	err = forEach(ctx, c.Clients, c.Window, func(ctx context.Context, i int) error {
		id := fmt.Sprintf("b%s-i%d", r.name, i)
		return r.insist(ctx, func() (err error) {
			held[i], err = connect(ctx, c, c.SubAddrs[i%len(c.SubAddrs)], connectPacket(c, id, !c.Persistent, c.Persistent))
			return err
		})
	})
	if err != nil {
		return err
	}
	made := time.Duration(r.now())
	after, err := r.settle(ctx)
	if err != nil {
		return err
	}
	var grown int64
	for i := range before {
		grown += after[i].rss - before[i].rss
	}
	r.count(made)
	r.report.spent(before, after, 0)
	r.report.Connections = &Connections{Made: int64(c.Clients), Refused: r.refusals.Load(), Bytes: float64(grown) / float64(c.Clients)}
	if len(c.PIDs) > 0 {
		r.report.figure("memory", "KiB/connection", float64(grown)/float64(c.Clients)/1024)
	}
	return r.verdict(ctx)
}

// settle samples the processes until their memory stays as it is, for the
// configured wait at most.
func (r *run) settle(ctx context.Context) ([]usage, error) {
	total := func(all []usage) (n int64) {
		for _, u := range all {
			n += u.rss
		}
		return n
	}
	last, err := sample(r.cfg.PIDs)
	tick := time.NewTicker(settleTick)
	defer tick.Stop()
	for end := time.Now().Add(r.cfg.Wait); err == nil && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		was := total(last)
		last, err = sample(r.cfg.PIDs)
		if change := total(last) - was; float64(max(change, -change)) <= settled*float64(was) {
			break
		}
	}
	return last, err
}
