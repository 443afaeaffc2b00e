package broker

import "time"

// sweepInterval is how fine the broker's coarse clock is, and how often
// connections are looked at. No packet has a timer of its own.
const sweepInterval = 250 * time.Millisecond

func (b *Broker) sweep() {
	t := time.NewTicker(sweepInterval)
	defer t.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-t.C:
		}
		now := int64(time.Since(b.start)) + 1
		b.tick.Store(now)
		b.clock.millis()
		b.sweepAt(now)
	}
}

// sweepAt ends the connections whose time has run out.
func (b *Broker) sweepAt(now int64) {
	since := b.unserved.Load()
	away := since != 0 && now-since > int64(b.cfg.UnservedTimeout)
	leased := b.deps.Log.Leased()
	if b.serving.Load() && leased {
		b.progress.retry()
	}
	b.mu.RLock()
	all := make([]*client, 0, len(b.conns))
	for c := range b.conns {
		all = append(all, c)
	}
	b.mu.RUnlock()
	for _, c := range all {
		if away {
			c.shut(b.sendAway())
		}
		if leased && c.unsure.Swap(false) {
			c.mu.Lock()
			c.wake()
			c.mu.Unlock()
		}
		c.sweepAt(now)
	}
}

func (c *client) sweepAt(now int64) {
	cfg := &c.b.cfg
	if by := c.closeBy.Load(); by != 0 && now > by {
		c.cutOff()
		return
	}
	if w := c.writeSince.Load(); w != 0 && now-w > int64(cfg.StallTimeout) {
		c.b.m.stalled.Inc()
		c.shut(shutdown{reason: reasonQuota, will: true})
		c.cutOff()
		return
	}
	if c.large.Load() && now-c.lastIn.Load() > int64(bufIdle) && !c.busy.Load() {
		c.nudge()
	}
	if c.ready.Load() && c.keepAlive != 0 && now-c.lastIn.Load() > c.keepAlive && !c.busy.Load() {
		c.b.m.silent.Inc()
		c.shut(shutdown{reason: reasonKeepAlive, will: true}) // [MQTT-3.1.2-24]
	}
}

// cutOff closes the socket without waiting for anything. Closing a TLS socket
// may block, so it is not done here.
func (c *client) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.out.closed && !c.out.cut {
		c.out.cut = true
		c.b.wg.Go(c.abort)
	}
}
