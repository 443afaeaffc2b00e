package broker

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// ClientState is how a connection of this node is.
type ClientState struct {
	Client   string `json:"client"`
	Listener string `json:"listener"`
	InFlight int    `json:"in_flight"` // sent and not acknowledged
	Incoming int    `json:"incoming"`  // from it, and not acknowledged
	// Queued messages wait in memory, with so many bytes.
	Queued      int   `json:"queued"`
	QueuedBytes int   `json:"queued_bytes"`
	Behind      bool  `json:"behind"`        // more waits in the log
	KeepAlive   int64 `json:"keep_alive_ms"` // as the client asked
	Quiet       int64 `json:"quiet_ms"`      // since it sent anything
}

// ClientStates tells of the clients that are connected here; others are left out.
func (b *Broker) ClientStates(ids []string) []ClientState {
	out := make([]ClientState, 0, len(ids))
	now := b.tick.Load()
	for _, id := range ids {
		c := b.find(id)
		if c == nil {
			continue
		}
		s := ClientState{
			Client: id, Listener: c.info.Listener,
			KeepAlive: c.keepAlive * 2 / 3 / int64(time.Millisecond),
			Quiet:     max(0, now-c.lastIn.Load()) / int64(time.Millisecond),
		}
		c.mu.Lock()
		o := &c.out
		s.InFlight, s.Incoming = len(o.flights), o.quota
		s.Queued, s.QueuedBytes, s.Behind = o.zeroCount+o.queued(), o.zeroBytes+o.queueBytes, o.behind
		c.mu.Unlock()
		out = append(out, s)
	}
	return out
}

// ClientEvent is a client that came to this node or went from it.
type ClientEvent struct {
	At        time.Time      `json:"at"`
	Connected bool           `json:"connected"`
	Client    string         `json:"client"`
	User      string         `json:"user"`
	Remote    netip.AddrPort `json:"remote"`
	Reason    string         `json:"reason,omitempty"` // of an end
}

// comingsKept is how many events are kept for those who ask late.
const comingsKept = 4096

// comings are the last events, numbered from 1.
type comings struct {
	mu      sync.Mutex
	last    uint64
	ring    []ClientEvent
	waiting chan struct{} // closed by the next event; nil: nobody waits
}

// note adds an event. It does not block for long: it is called where entries are
// applied.
func (k *comings) note(e ClientEvent) {
	e.At = time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil {
		k.ring = make([]ClientEvent, comingsKept)
	}
	k.last++
	k.ring[k.last%comingsKept] = e
	if k.waiting != nil {
		close(k.waiting)
		k.waiting = nil
	}
}

// ClientEvents returns at most limit events after the one with a number, oldest
// first, and the number of the last; it waits for the first of them until ctx ends.
// missed is how many there were that are not kept any more. After 1<<63 it returns the
// number of the last event at once, and no event.
func (b *Broker) ClientEvents(ctx context.Context, after uint64, limit int) (events []ClientEvent, last uint64, missed uint64) {
	k := &b.comings
	for {
		k.mu.Lock()
		if after >= 1<<63 {
			last = k.last
			k.mu.Unlock()
			return nil, last, 0
		}
		if after > k.last {
			after = 0 // of an earlier process
		}
		if k.last > after {
			if k.last-after > comingsKept-1 {
				missed = k.last - after - (comingsKept - 1)
				after += missed
			}
			for last = after; last < k.last && len(events) < limit; {
				last++
				events = append(events, k.ring[last%comingsKept])
			}
			k.mu.Unlock()
			return events, last, missed
		}
		if k.waiting == nil {
			k.waiting = make(chan struct{})
		}
		wake := k.waiting
		k.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, after, 0
		}
	}
}

// endedBy says why the connection ended. It is called once it is closing.
func (c *client) endedBy(lost bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch reason := c.out.end.reason; {
	case c.in.disconnect && !lost:
		return "the client disconnected"
	case reason == reasonTakenOver:
		return "taken over by a newer connection"
	case reason == reasonAdministrative:
		return "ended by an operator"
	case reason == reasonNotAuthorized:
		return "not authorized any more"
	case reason == reasonKeepAlive:
		return "silent for longer than its keep alive"
	case reason == reasonShuttingDown || reason == reasonUseAnother:
		return "sent to another node"
	case reason == reasonQuota:
		return "its socket stayed full"
	case reason != reasonSuccess && c.out.end.text != "":
		return "protocol error: " + c.out.end.text
	case reason != reasonSuccess:
		return "closed by the node"
	}
	return "the connection was lost"
}
