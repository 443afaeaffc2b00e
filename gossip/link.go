package gossip

import (
	"context"
	"net"
	"time"
)

// link carries the packets to one peer by one connection, which it makes when
// there is something to send. One link's dead peer delays no other.
type link struct {
	id     string
	t      *transport
	queue  chan []byte
	cancel context.CancelFunc
}

// link returns the one to a member, nil after Shutdown.
func (t *transport) link(id string) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.links[id]; l != nil || t.closed {
		return l
	}
	ctx, cancel := context.WithCancel(t.ctx)
	l := &link{id: id, t: t, queue: make(chan []byte, queuePackets), cancel: cancel}
	t.links[id] = l
	t.wg.Go(func() { l.run(ctx) })
	return l
}

func (l *link) run(ctx context.Context) {
	const pause = time.Second
	for {
		select {
		case first := <-l.queue:
			if l.carry(ctx, first) {
				continue
			}
		case <-ctx.Done():
			return
		}
		// The peer cannot be reached, or has gone: what waits is old news when
		// it comes back.
		l.drain()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		l.drain()
	}
}

// carry sends packets until the connection breaks (false) or is idle.
func (l *link) carry(ctx context.Context, first []byte) (idle bool) {
	dctx, cancel := context.WithTimeout(ctx, l.t.cfg.StreamTimeout)
	c, err := l.t.dial(dctx, l.id, carriesPackets)
	cancel()
	if err != nil {
		l.t.metrics.dropped.Inc()
		l.t.deps.Logger.Debug("gossip: no connection", "member", l.id, "err", err)
		return false
	}
	defer c.Close()
	// Nothing comes back by this connection; a read tells when it ends.
	broken := make(chan struct{})
	l.t.wg.Go(func() {
		defer close(broken)
		_, _ = c.Read(make([]byte, 1))
	})
	quiet := time.NewTimer(idleLimit)
	defer quiet.Stop()
	for packet := first; ; {
		if err := l.write(c, packet); err != nil {
			return false
		}
		quiet.Reset(idleLimit)
		select {
		case packet = <-l.queue:
		case <-quiet.C:
			return true
		case <-broken:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// write sends a packet, and what waits behind it, at once.
func (l *link) write(c net.Conn, packet []byte) error {
	const enough = 16 << 10
	for len(packet) < enough {
		select {
		case more := <-l.queue:
			packet = append(packet, more...)
			continue
		default:
		}
		break
	}
	if err := c.SetWriteDeadline(time.Now().Add(l.t.cfg.StreamTimeout)); err != nil {
		return err
	}
	_, err := c.Write(packet)
	return err
}

func (l *link) drain() {
	for {
		select {
		case <-l.queue:
			l.t.metrics.dropped.Inc()
		default:
			return
		}
	}
}
