package listener

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

func sharing(a *Admission) func(*harness, *Deps) {
	return func(_ *harness, d *Deps) { d.Admission = a }
}

// One limit holds for all listeners of a node together, and a connection that is
// over makes room.
func TestAdmissionBoundsAllListeners(t *testing.T) {
	a := NewAdmission(AdmissionConfig{MaxConnections: 2})
	one, two := open(t, Config{Kind: KindTCP}, sharing(a)), open(t, Config{Kind: KindTCP}, sharing(a))
	first := one.dial(t)
	echo(t, first, "x")
	echo(t, two.dial(t), "x")
	two.dialRefused(t)
	if two.refused(reasonNodeMax) != 1 {
		t.Error("the refusal was not counted")
	}
	_ = first.Close()
	eventually(t, "place free", func() bool { return a.Open() == 1 })
	echo(t, two.dial(t), "x")
}

// While memory is short nobody new comes in, before a handshake, and who is there
// goes on.
func TestAdmissionWhileMemoryIsShort(t *testing.T) {
	var short atomic.Bool
	server, client := settings(t)
	h := open(t, Config{Kind: KindTLS}, func(_ *harness, d *Deps) {
		d.TLS = func() *tls.Config { return server }
		d.Admission = NewAdmission(AdmissionConfig{Short: short.Load})
	})
	there := tls.Client(h.dial(t), client)
	echo(t, there, "x")
	short.Store(true)
	h.dialRefused(t)
	if h.refused(reasonMemory) != 1 {
		t.Error("the refusal was not counted")
	}
	echo(t, there, "still here")
	short.Store(false)
	echo(t, tls.Client(h.dial(t), client), "x")
}

// A handshake computes only in its turn, and one that waits for its client holds
// up nobody.
func TestAdmissionHandshakesTakeTurns(t *testing.T) {
	server, client := settings(t)
	var at, most atomic.Int64
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		for n := at.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer at.Add(-1)
		return nil, nil
	}
	a := NewAdmission(AdmissionConfig{Handshakes: 1})
	h := open(t, Config{Kind: KindTLS}, func(_ *harness, d *Deps) {
		d.TLS = func() *tls.Config { return server }
		d.Admission = a
	})
	// One that began and says no more.
	silent := h.dial(t)
	if _, err := silent.Write([]byte{22, 3, 1}); err != nil {
		t.Fatal(err)
	}
	conns := make([]net.Conn, 20)
	for i := range conns {
		conns[i] = h.dial(t)
	}
	var all sync.WaitGroup
	for _, raw := range conns {
		all.Go(func() {
			c := tls.Client(raw, client)
			if err := c.HandshakeContext(context.Background()); err != nil {
				t.Error(err)
				return
			}
			echo(t, c, "x")
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d handshakes computed at once, want 1", most.Load())
	}
	eventually(t, "nobody waits", func() bool { return a.Waiting() == 0 && len(a.turns) == 0 })
}
