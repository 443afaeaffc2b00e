package forward

import (
	"sync"
	"time"
)

// hold keeps the messages of publishers whose last logged message is not
// applied here yet, so that theirs arrive in order (a QoS 0 message after a
// retained one).
type hold struct {
	// mu is held while Deps.Deliver runs: who delivers, the stream or the
	// release of what was held, delivers alone.
	mu    sync.Mutex
	items []held // in order of arrival
	pubs  map[string]*heldPublisher
	least uint64 // smallest index in items
	gone  bool   // the peer is; nothing is delivered any more
}

type held struct {
	Delivery
	index    uint64 // not less than any earlier one of the publisher
	deadline time.Time
}

type heldPublisher struct {
	index uint64
	n     int
}

// deliver hands the batch over, but for what must wait.
func (h *hold) deliver(p *peer, batch []Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return
	}
	applied := p.f.applied()
	if len(h.items) > 0 || exceeds(batch, applied) {
		batch = h.keep(p.f, batch, applied)
	}
	if len(batch) > 0 {
		p.f.deps.Deliver(p.id, batch)
	}
	if len(h.items) > p.f.cfg.HoldMessages {
		p.f.metrics.holdExpired.Add(float64(len(h.items)))
		h.release(p, ^uint64(0), time.Time{})
		return
	}
	// What was applied meanwhile has been told to nobody who waits.
	if len(h.items) > 0 {
		nudge(p.f.advanced)
	}
}

func exceeds(batch []Delivery, applied uint64) bool {
	for i := range batch {
		if batch[i].Index > applied {
			return true
		}
	}
	return false
}

// keep returns what need not wait, in the memory of batch.
func (h *hold) keep(f *Forwarder, batch []Delivery, applied uint64) []Delivery {
	if h.pubs == nil {
		h.pubs = map[string]*heldPublisher{}
	}
	deadline := time.Now().Add(f.cfg.HoldTime)
	pass := batch[:0]
	n := 0
	for _, d := range batch {
		pub := h.pubs[d.Message.Publisher]
		if pub == nil {
			if d.Index <= applied {
				pass = append(pass, d)
				continue
			}
			pub = &heldPublisher{}
			h.pubs[d.Message.Publisher] = pub
		}
		pub.n++
		pub.index = max(pub.index, d.Index)
		if len(h.items) == 0 || pub.index < h.least {
			h.least = pub.index
		}
		h.items = append(h.items, held{d, pub.index, deadline})
		n++
	}
	f.hold(n)
	return pass
}

// due delivers what need not wait any longer. It returns when the next item is
// overdue, zero if there is none.
func (h *hold) due(p *peer) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.release(p, p.f.applied(), time.Now())
}

// release delivers what need not wait any longer; see due.
func (h *hold) release(p *peer, applied uint64, now time.Time) time.Time {
	if len(h.items) == 0 {
		return time.Time{}
	}
	if h.least > applied && now.Before(h.items[0].deadline) {
		return h.items[0].deadline
	}
	var out []Delivery
	keep := h.items[:0]
	h.least = ^uint64(0)
	late := 0
	for _, it := range h.items {
		ready := it.index <= applied
		if !ready && now.Before(it.deadline) {
			h.least = min(h.least, it.index)
			keep = append(keep, it)
			continue
		}
		if !ready {
			late++
		}
		pub := h.pubs[it.Message.Publisher]
		if pub.n--; pub.n == 0 {
			delete(h.pubs, it.Message.Publisher)
		}
		out = append(out, it.Delivery)
	}
	clear(h.items[len(keep):])
	h.items = keep
	p.f.hold(-len(out))
	p.f.metrics.holdExpired.Add(float64(late))
	if len(out) > 0 {
		p.f.deps.Deliver(p.id, out)
	}
	if len(keep) == 0 {
		h.items = nil
		return time.Time{}
	}
	return keep[0].deadline
}

// forget drops what is held, and from then on everything if final.
func (h *hold) forget(f *Forwarder, final bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.hold(-len(h.items))
	h.items, h.pubs, h.gone = nil, nil, h.gone || final
}
