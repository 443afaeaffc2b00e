package bench

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// The states of a packet id.
const (
	idFree byte = iota
	idSent      // PUBACK or PUBREC is due
	idReleased
)

// acked is the sending side of a QoS 1 or 2 publisher. It is clocked by its
// acknowledgements: what one read frees is filled by one write.
type acked struct {
	p *publisher

	mu     sync.Mutex
	free   []uint16 // a ring of free ids, oldest first
	head   int
	nfree  int
	state  []byte  // by id
	sentAt []int64 // by id
	out    []byte  // PUBRELs of the read under way
	due    []int64 // rate: when the waiting messages should have been sent
	paced  bool
	closed bool // nothing more will be due

	latency    histogram // PUBLISH to PUBACK or PUBCOMP
	done       uint64    // acknowledged
	refused    uint64    // reason 0x80 and above
	unexpected uint64    // acknowledgements of what was not under way
}

func newAcked(p *publisher, window int) *acked {
	a := &acked{p: p, free: make([]uint16, window), nfree: window,
		state: make([]byte, window+1), sentAt: make([]int64, window+1), paced: p.run.cfg.paced()}
	for i := range a.free {
		a.free[i] = uint16(i + 1)
	}
	return a
}

// run fills the window and then answers acknowledgements until all is done.
func (a *acked) run() error {
	p := a.p
	defer close(p.done)
	a.mu.Lock()
	err := a.fill()
	over := a.over()
	a.mu.Unlock()
	buf, have := make([]byte, 8<<10), 0
	for err == nil && !over {
		var n int
		if n, err = p.link.Read(buf[have:]); err != nil {
			if a.idle() { // woken by close
				return nil
			}
			break
		}
		have += n
		var used int
		if used, over, err = a.answer(buf[:have]); err == nil {
			have = copy(buf, buf[used:have])
		}
	}
	if err != nil {
		return p.lost(err)
	}
	return nil
}

// answer handles the whole packets in b and sends what they made room for.
func (a *acked) answer(b []byte) (used int, over bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.p.run.now()
	for {
		head, end := split(b[used:])
		if end < 0 {
			return 0, false, errMalformed
		}
		if end == 0 {
			break
		}
		first, body := b[used], b[used+head:used+end]
		used += end
		if err := a.packet(first>>4, body, now); err != nil {
			return 0, false, err
		}
	}
	err = a.fill()
	return used, a.over(), err
}

func (a *acked) packet(kind byte, body []byte, now int64) error {
	switch kind {
	case packetPuback, packetPubrec, packetPubcomp:
	case packetDisconnect:
		return fmt.Errorf("the broker disconnected: % x", body)
	default:
		return nil
	}
	if len(body) < 2 {
		return errMalformed
	}
	id := binary.BigEndian.Uint16(body)
	refused := len(body) > 2 && body[2] >= 0x80
	state := idFree
	if int(id) < len(a.state) {
		state = a.state[id]
	}
	qos2 := a.p.run.cfg.QoS == 2
	switch {
	case kind == packetPuback && state == idSent && !qos2,
		kind == packetPubcomp && state == idReleased,
		kind == packetPubrec && state == idSent && qos2 && refused:
		a.end(id, refused, now)
	case kind == packetPubrec && state == idSent && qos2:
		a.state[id] = idReleased
		a.out = appendAck(a.out, packetPubrel, id)
	default:
		a.unexpected++
	}
	return nil
}

func (a *acked) end(id uint16, refused bool, now int64) {
	a.latency.add(now - a.sentAt[id])
	a.state[id] = idFree
	a.free[(a.head+a.nfree)%len(a.free)] = id
	a.nfree++
	a.done++
	if refused {
		a.refused++
	}
	a.p.run.acked.Add(1)
}

// over tells whether everything was sent and acknowledged.
func (a *acked) over() bool {
	if a.nfree < len(a.free) {
		return false
	}
	if a.paced {
		return a.closed && len(a.due) == 0
	}
	return a.p.finished()
}

// fill sends PUBRELs and as many messages as the window has room for.
func (a *acked) fill() error {
	for first := true; ; first = false {
		n := 0
		if a.paced {
			n = min(a.nfree, len(a.due), a.p.frames.capacity())
		} else if !a.p.finished() {
			n = a.p.batch(a.nfree)
		}
		if n == 0 && (!first || len(a.out) == 0) {
			return nil
		}
		if err := a.write(n); err != nil {
			return err
		}
	}
}

func (a *acked) write(n int) error {
	p := a.p
	now, seq := p.run.now(), p.sent.Load()
	for i := range n {
		id := a.free[a.head]
		a.head = (a.head + 1) % len(a.free)
		a.state[id], a.sentAt[id] = idSent, now
		p.frames.set(i, id, seq+uint32(i), now)
	}
	a.nfree -= n
	if a.paced {
		for _, due := range a.due[:n] {
			p.lag.add(now - due)
		}
		a.due = a.due[:copy(a.due, a.due[n:])]
	}
	b := p.frames.buf[:n*p.frames.size]
	if len(a.out) > 0 {
		a.out = append(a.out, b...)
		b = a.out
	}
	_, err := p.link.Write(b)
	a.out = a.out[:0]
	p.sent.Add(uint32(n))
	return err
}

// pace adds a message that is due now and sends it if the window has room.
func (a *acked) pace(due int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = append(a.due, due)
	return a.fill()
}

// idle is over for callers without the lock.
func (a *acked) idle() (over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over()
}

// close ends the pacing: nothing more will be due. A reader with nothing to wait for
// is woken by its deadline.
func (a *acked) close() {
	a.mu.Lock()
	a.closed = true
	over := a.over()
	a.mu.Unlock()
	if over {
		a.p.link.SetReadDeadline(time.Now())
	}
}
