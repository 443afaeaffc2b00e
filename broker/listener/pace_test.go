package listener

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// busyPace is one of a node whose messages flow; late is what its goroutines run.
func busyPace(late *atomic.Bool) *pace {
	var n atomic.Int64
	p := newPace(func() int64 { return n.Add(paceTraffic) }, 1)
	p.late = late.Load
	return p
}

// through has n wait and returns how long the last of them did.
func through(p *pace, n int) time.Duration {
	began := time.Now()
	var all sync.WaitGroup
	for range n {
		all.Go(func() { p.wait(nil) })
	}
	all.Wait()
	return time.Since(began)
}

// While goroutines run late connections are let in at the least rate, and sooner and
// sooner when they do not any more.
func TestPaceFollowsLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Bool
		p := busyPace(&late)
		late.Store(true)
		seconds := 4.0
		n := int(paceLeast * p.weight * seconds)
		if took := through(p, n).Seconds(); took < seconds*.9 || took > seconds*1.1 {
			t.Errorf("%d at the least rate took %.2f s, want %.0f", n, took, seconds)
		}
		late.Store(false)
		if took := through(p, n).Seconds(); took > seconds*.5 {
			t.Errorf("%d took %.2f s with cores to spare, want less than half of %.0f", n, took, seconds)
		}
		time.Sleep(2 * paceRest) // of the bubble: without a storm for so long
		n = int(paceFirst * p.weight)
		if took := through(p, n).Seconds(); took < .5 {
			t.Errorf("after a rest %d took %.2f s, want about one", n, took)
		}
	})
}

// A node whose clients send nothing has nobody to hold up.
func TestPaceWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(func() int64 { return 0 }, 1)
		p.late = func() bool { return true }
		if took := through(p, 10000); took > time.Second {
			t.Errorf("10000 took %v, want less than a second", took)
		}
	})
}

// A node whose messages stand still for a moment is not one without: what holds them up is
// what the pace is there for.
func TestPaceBearsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		began := time.Now()
		p := newPace(func() int64 {
			if since := time.Since(began); since > time.Second && since < time.Second+paceQuiet*9/10 {
				return n.Load()
			}
			return n.Add(paceTraffic)
		}, 1)
		p.late = func() bool { return true }
		seconds := 4.0
		if took := through(p, int(paceLeast*p.weight*seconds)).Seconds(); took < seconds*.9 {
			t.Errorf("they took %.2f s, want %.0f", took, seconds)
		}
	})
}

// Those that wait are let in in the order in which they came, and one that has gone
// keeps nobody.
func TestPaceKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Bool
		late.Store(true)
		p := busyPace(&late)
		var mu sync.Mutex
		var order []int
		gone := make(chan struct{})
		for i := range 40 {
			done := make(chan struct{})
			if i%4 == 3 {
				done = gone
			}
			go func() {
				p.wait(done)
				mu.Lock()
				defer mu.Unlock()
				if i%4 != 3 {
					order = append(order, i)
				}
			}()
			synctest.Wait()
		}
		close(gone)
		time.Sleep(5 * time.Second) // of the bubble: all are let in within half of it
		mu.Lock()
		defer mu.Unlock()
		if len(order) != 30 {
			t.Fatalf("%d were let in, want 30", len(order))
		}
		for i := 1; i < len(order); i++ {
			if order[i] < order[i-1] {
				t.Fatalf("order is %v", order)
			}
		}
	})
}

// slowed returns an Admission that lets in, and lets go, one in more than a second.
func slowed() *Admission {
	var n atomic.Int64
	a := NewAdmission(AdmissionConfig{Messages: func() int64 { return n.Add(paceTraffic) }})
	for _, p := range []*pace{a.begins, a.ends} {
		p.late, p.weight, p.filled = func() bool { return true }, .01, time.Now()
		p.rate = paceLeast * p.weight
	}
	return a
}

// What a connection waits for the node is not its own delay: it is not refused for it.
// The end of the listener ends its waiting.
func TestPacedHandshakeIsNotLate(t *testing.T) {
	server, client := settings(t)
	a := slowed()
	h := open(t, Config{Kind: KindTLS, HandshakeTimeout: 100 * time.Millisecond}, func(_ *harness, d *Deps) {
		d.TLS = func() *tls.Config { return server }
		d.Admission = a
	})
	c := tls.Client(h.dial(t), client)
	result := make(chan error, 1)
	go func() { result <- c.Handshake() }()
	eventually(t, "a connection waits", func() bool { return a.Waiting() == 1 })
	select {
	case err := <-result:
		t.Fatalf("the connection ended while it waited for the node: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	echo(t, c, "x")

	last := tls.Client(h.dial(t), client)
	go func() { result <- last.Handshake() }()
	eventually(t, "another waits", func() bool { return a.Waiting() == 1 })
	began := time.Now()
	h.stopAccept() // Close does so first, and cuts the connections only then
	if err := <-result; err == nil || time.Since(began) > time.Second {
		t.Errorf("after the listener was closed the handshake ended after %v with %v", time.Since(began), err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

// The end of a connection waits, until this side closes it or wants its reader back.
func TestPacedEndIsHastened(t *testing.T) {
	for name, hasten := range map[string]func(*tcpConn){
		"close":    func(c *tcpConn) { _ = c.Close() },
		"deadline": func(c *tcpConn) { _ = c.SetReadDeadline(time.Unix(1, 0)) },
		"before":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := tcpPair(t)
			c := &tcpConn{TCPConn: ours, ends: slowed().ends}
			if hasten == nil {
				_ = c.SetReadDeadline(time.Unix(1, 0))
				_ = c.SetReadDeadline(time.Time{})
			}
			_ = theirs.Close()
			ended := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
			if hasten != nil {
				eventually(t, "the end waits", func() bool { return c.over.Load() != nil })
				select {
				case err := <-ended:
					t.Fatalf("the end did not wait: %v", err)
				case <-time.After(50 * time.Millisecond):
				}
				hasten(c)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("Read returned no error")
				}
			case <-time.After(500 * time.Millisecond):
				t.Fatal("the end waits on")
			}
		})
	}
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return accepted.(*net.TCPConn), dialed.(*net.TCPConn)
}
