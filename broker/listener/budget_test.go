package listener

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// holder is what a slot evicts.
type holder struct{ why error }

func (h *holder) evict(err error) { h.why = err }

// take acquires a slot that must be free.
func take(t *testing.T, b *Budget) (*slot, *holder) {
	t.Helper()
	h := &holder{}
	s, err := b.acquire(t.Context(), netip.Addr{}, h.evict)
	if err != nil {
		t.Fatal(err)
	}
	return s, h
}

func TestBudgetOldestMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2, 1<<20)
		_, h1 := take(t, b)
		time.Sleep(300 * time.Millisecond)
		_, h2 := take(t, b)
		start := time.Now()
		take(t, b)
		if d := time.Since(start); d != 700*time.Millisecond || h1.why != errEvicted || h2.why != nil {
			t.Errorf("after %v: first %v, second %v", d, h1.why, h2.why)
		}
		if n, _ := b.Used(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// One whose handshake has begun has longer, and while it waits for this node it
// makes no room at all.
func TestBudgetSparesHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2, 1<<20)
		s1, h1 := take(t, b)
		s1.busy(true)
		s1.busy(false)
		time.Sleep(time.Millisecond) // the bubble's clock, as everywhere here
		s2, h2 := take(t, b)
		s2.busy(true)
		time.AfterFunc(time.Minute, func() { s2.busy(false) })
		start := time.Now()
		s3, _ := take(t, b)
		s3.greeted()
		if d := time.Since(start); d != begunAfter-time.Millisecond || h1.why != errEvicted || h2.why != nil {
			t.Errorf("after %v: the one that waits for its client %v, the one that waits for us %v", d, h1.why, h2.why)
		}
		take(t, b)
		if d := time.Since(start); d != time.Minute || h2.why != errEvicted {
			t.Errorf("after %v: %v", d, h2.why)
		}
	})
}

// Of a source that fills the budget with handshakes that do not go on, all make room
// within a second; the few of another one have their five, and come before it.
func TestBudgetCrowdMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2*crowd, 1<<20)
		from := func(a string) (*slot, *holder) {
			h := &holder{}
			s, err := b.acquire(t.Context(), netip.MustParseAddr(a), h.evict)
			if err != nil {
				t.Fatal(err)
			}
			s.busy(true)
			s.busy(false)
			return s, h
		}
		_, honest := from("192.0.2.1")
		time.Sleep(time.Millisecond)
		for range 2*crowd - 1 {
			from("198.51.100.1")
		}
		start := time.Now()
		other, _ := from("192.0.2.2")
		if d := time.Since(start); d != evictAfter || honest.why != nil {
			t.Errorf("after %v; the honest one %v", d, honest.why)
		}
		for range crowd - 2 {
			from("192.0.2.3") // who crowds out the crowd, and is none
		}
		if honest.why != nil || b.crowds != 0 {
			t.Errorf("the honest one %v, %d crowds", honest.why, b.crowds)
		}
		other.release()
		sum := 0
		for _, n := range b.sources {
			sum += n
		}
		if sum != b.silent.Len() {
			t.Errorf("%d silent connections, %d by source", b.silent.Len(), sum)
		}
	})
}

// One source alone has as long as any: it may be a site whose devices come back.
func TestBudgetOneSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2*crowd, 1<<20)
		start := time.Now()
		for range 2*crowd + 1 {
			s, err := b.acquire(t.Context(), netip.MustParseAddr("192.0.2.1"), func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			s.busy(true)
			s.busy(false)
		}
		if d := time.Since(start); d != begunAfter {
			t.Errorf("the oldest made room after %v", d)
		}
	})
}

// One that has sent its CONNECT is waited for.
func TestBudgetSparesGreeted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1, 1<<20)
		s1, h1 := take(t, b)
		s1.greeted()
		time.AfterFunc(time.Minute, s1.release)
		start := time.Now()
		take(t, b)
		if d := time.Since(start); d != time.Minute || h1.why != nil {
			t.Errorf("after %v: %v", d, h1.why)
		}
		s1.release() // a second time
		if n, _ := b.Used(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestBudgetAcquireEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1, 1<<20)
		s, _ := take(t, b)
		s.greeted()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.acquire(ctx, netip.Addr{}, func(error) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("acquire: %v", err)
		}
	})
}

func TestBudgetBytes(t *testing.T) {
	b := NewBudget(10, 1000)
	small, hs := take(t, b)
	large, hl := take(t, b)
	silent, hq := take(t, b)
	for _, err := range []error{small.add(200), large.add(700), silent.add(100)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// The one that sent most goes, not the one that sends next.
	if err := silent.add(1); err != nil || hl.why != errEvicted || hs.why != nil || hq.why != nil {
		t.Errorf("%v; large %v, small %v, silent %v", err, hl.why, hs.why, hq.why)
	}
	if err := large.add(1); err != errEvicted {
		t.Errorf("an evicted one reads on: %v", err)
	}
	if n, bytes := b.Used(); n != 2 || bytes != 301 {
		t.Errorf("%d connections, %d bytes", n, bytes)
	}
	if err := small.add(900); err != errEvicted || hs.why != errEvicted {
		t.Errorf("the greediest sends: %v, %v", err, hs.why)
	}
	// What has authenticated is counted no more.
	silent.release()
	if err := silent.add(5000); err != nil {
		t.Error(err)
	}
	if n, bytes := b.Used(); n != 0 || bytes != 0 {
		t.Errorf("%d connections, %d bytes", n, bytes)
	}
}

func TestBudgetOneConnection(t *testing.T) {
	b := NewBudget(10, 1<<30)
	s, h := take(t, b)
	if err := s.add(handshakeLimit); err != nil {
		t.Error(err)
	}
	if err := s.add(1); err != errTooMuch || h.why != errTooMuch {
		t.Errorf("over the handshake's limit: %v, %v", err, h.why)
	}
	s, _ = take(t, b)
	s.shaken()
	if err := s.add(connectLimit); err != nil {
		t.Error(err)
	}
	if err := s.add(1); err != errTooMuch {
		t.Errorf("over the limit: %v", err)
	}
}
