package bench

import (
	"context"
	"fmt"
	"slices"
)

// subscriber receives, counts and acknowledges. All but its constructor runs on
// one goroutine.
type subscriber struct {
	run     *run
	id      string
	addr    string
	filters []string
	link    *link
	tally   tally

	acks    []byte
	held    []uint64 // QoS 2: packet ids received and not released
	resent  uint64   // QoS 2: PUBLISH of an id that is held
	touched []uint32 // publishers heard since the last credit
	credits []int64  // by publisher, from tally.first
}

func (s *subscriber) open(ctx context.Context) error {
	c := &s.run.cfg
	l, err := connect(ctx, c, s.addr, connectPacket(c, s.id, !c.Persistent, c.Persistent))
	if err != nil {
		return err
	}
	s.link = l
	for filters := range slices.Chunk(s.filters, subscribeBatch) {
		if err := l.subscribe(subscribePacket(c.Version, filters, c.QoS), c.Version == 5); err != nil {
			return err
		}
	}
	return nil
}

// resume connects again, to a session that must still be there.
func (s *subscriber) resume(ctx context.Context) error {
	c := &s.run.cfg
	l, err := connect(ctx, c, s.addr, connectPacket(c, s.id, false, true))
	if err != nil {
		return err
	}
	s.link = l
	if !l.present {
		l.Close()
		return fmt.Errorf("the broker lost the session of %s", s.id)
	}
	return nil
}

// receive reads until the connection ends, which is an error only if the run did
// not close it.
func (s *subscriber) receive() error {
	buf := make([]byte, max(s.run.readSize, len(s.link.rest)))
	have := copy(buf, s.link.rest)
	for {
		used, err := s.consume(buf[:have])
		if err != nil {
			return err
		}
		have = copy(buf, buf[used:have])
		if have == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		n, err := s.link.Read(buf[have:])
		have += n
		if n == 0 && err != nil {
			if s.run.closing.Load() {
				return nil
			}
			return fmt.Errorf("subscriber %s lost its connection: %w", s.id, err)
		}
	}
}

// consume handles the whole packets at the start of b and returns their length.
func (s *subscriber) consume(b []byte) (used int, err error) {
	now, v5, fresh := s.run.now(), s.run.cfg.Version == 5, 0
	s.acks = s.acks[:0]
	for {
		head, end := split(b[used:])
		if end <= 0 {
			if end < 0 {
				return 0, errMalformed
			}
			break
		}
		first, body := b[used], b[used+head:used+end]
		used += end
		switch first >> 4 {
		case packetPublish:
			id, payload, ok := publishParts(first, body, v5)
			if !ok {
				return 0, errMalformed
			}
			if s.publish(first, id, payload, now) {
				fresh++
			}
		case packetPubrel:
			if len(body) < 2 {
				return 0, errMalformed
			}
			s.release(uint16(body[0])<<8 | uint16(body[1]))
		case packetDisconnect:
			return 0, fmt.Errorf("subscriber %s was disconnected by the broker: % x", s.id, body)
		}
	}
	s.credit()
	if fresh > 0 {
		s.run.delivered.Add(int64(fresh))
		s.run.lastArrival.Store(now)
	}
	if len(s.acks) > 0 {
		if _, err := s.link.Write(s.acks); err != nil && !s.run.closing.Load() {
			return 0, fmt.Errorf("subscriber %s cannot acknowledge: %w", s.id, err)
		}
	}
	return used, nil
}

// publish handles one message and tells whether it is new.
func (s *subscriber) publish(first byte, id uint16, payload []byte, now int64) bool {
	switch first >> 1 & 3 {
	case 1:
		s.acks = appendAck(s.acks, packetPuback, id)
	case 2:
		s.acks = appendAck(s.acks, packetPubrec, id)
		if s.held == nil {
			s.held = make([]uint64, 1024)
		}
		if s.held[id>>6]&(1<<(id&63)) != 0 {
			s.resent++
			return false
		}
		s.held[id>>6] |= 1 << (id & 63)
	}
	h, ok := parseHeader(payload)
	if !ok {
		s.tally.misrouted++
		return false
	}
	fresh := s.tally.arrive(h, now)
	if fresh && s.credits != nil {
		i := h.publisher - s.tally.first
		if s.credits[i] == 0 {
			s.touched = append(s.touched, i)
		}
		s.credits[i]++
	}
	return fresh
}

func (s *subscriber) release(id uint16) {
	if s.held != nil {
		s.held[id>>6] &^= 1 << (id & 63)
	}
	s.acks = appendAck(s.acks, packetPubcomp, id)
}

// credit gives the publishers of a QoS 0 run their window back.
func (s *subscriber) credit() {
	for _, i := range s.touched {
		s.run.pubs[s.tally.first+i].gate.credit(s.credits[i])
		s.credits[i] = 0
	}
	s.touched = s.touched[:0]
}
