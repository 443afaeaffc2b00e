package main

import (
	"fmt"
	"maps"
)

// maxExamples is how many lost messages are named.
const maxExamples = 10

// maxSeq bounds what a payload may make a receiver remember of one stream.
const maxSeq = 1 << 20

// seen is what one receiver got of one stream.
type seen struct {
	Bits       []uint64 // by number
	Highest    uint32
	Duplicates int
	Disorder   int // first arrivals after a higher number
}

// arrive notes a number and tells whether it is new.
func (s *seen) arrive(seq uint32) bool {
	if seq >= maxSeq {
		return false
	}
	for int(seq/64) >= len(s.Bits) {
		s.Bits = append(s.Bits, 0)
	}
	if s.has(seq) {
		s.Duplicates++
		return false
	}
	s.Bits[seq/64] |= 1 << (seq % 64)
	if seq < s.Highest {
		s.Disorder++
	}
	s.Highest = max(s.Highest, seq)
	return true
}

func (s *seen) has(seq uint32) bool {
	return s != nil && int(seq/64) < len(s.Bits) && s.Bits[seq/64]&(1<<(seq%64)) != 0
}

// received is what a subscriber got.
type received struct {
	Client int
	// Broken: its connection ended, so that without a persistent session it is not
	// owed everything.
	Broken    bool
	Streams   map[stream]*seen
	Misrouted int // what it has no business with
}

// account is what clients know of their messages: what was acknowledged to
// publishers and what reached subscribers.
type account struct {
	Acked    map[stream]uint32 // every number up to this one
	Received []received
}

func (a *account) merge(o account) {
	if a.Acked == nil {
		a.Acked = map[stream]uint32{}
	}
	maps.Copy(a.Acked, o.Acked)
	a.Received = append(a.Received, o.Received...)
}

// judgement is what an account comes to.
type judgement struct {
	published  int // acknowledged messages
	owed       int // deliveries of them to those who are owed them
	lost       int
	examples   []string // of what was lost
	duplicates int
	disorder   int
	misrouted  int
	persistent int // sessions that were judged
	unbroken   int // subscribers without one, whose connection never ended
}

// judge compares what was acknowledged with what everybody got who is owed it.
func (a *account) judge(p *plan) (j judgement) {
	for _, n := range a.Acked {
		j.published += int(n)
	}
	for _, r := range a.Received {
		persistent := p.persistent(r.Client)
		for _, s := range r.Streams {
			j.duplicates += s.Duplicates
			j.disorder += s.Disorder
		}
		j.misrouted += r.Misrouted
		switch {
		case persistent:
			j.persistent++
		case r.Broken:
			continue
		default:
			j.unbroken++
		}
		for _, s := range p.owed(r.Client) {
			j.count(p, r, s, a.Acked[s])
		}
	}
	return j
}

func (j *judgement) count(p *plan, r received, s stream, acked uint32) {
	got := r.Streams[s]
	for seq := uint32(1); seq <= acked; seq++ {
		j.owed++
		if got.has(seq) {
			continue
		}
		j.lost++
		if len(j.examples) < maxExamples {
			j.examples = append(j.examples, fmt.Sprintf("%s did not get number %d of %s", p.name(r.Client), seq, p.topic(s)))
		}
	}
}
