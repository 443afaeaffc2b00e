package bench

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// doorman is a broker that admits a connection or resets it.
func doorman(t *testing.T, admit func(n int64) bool) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { ln.Close(); served.Wait() })
	var n atomic.Int64
	served.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if !admit(n.Add(1)) {
				conn.(*net.TCPConn).SetLinger(0) // a reset
				conn.Close()
				continue
			}
			served.Go(func() { welcome(conn) })
		}
	})
	return ln.Addr().String()
}

// welcome answers CONNECT, which is all that a storm asks.
func welcome(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 512)
	if _, err := conn.Read(buf); err == nil {
		conn.Write([]byte{packetConnack << 4, 2, 0, 0})
		conn.SetReadDeadline(time.Now().Add(time.Second))
		conn.Read(buf)
	}
}

// A broker that resets connections for want of room is tried again, as devices
// would, and what it refused is counted.
func TestStormIsRefused(t *testing.T) {
	addr := doorman(t, func(n int64) bool { return n > 30 })
	for _, scenario := range []string{Connects, Idle} {
		c := small(scenario, 0, 4)
		c.Addrs, c.Count, c.Clients, c.Window, c.Wait = []string{addr}, 50, 50, 50, time.Millisecond
		r, err := Run(t.Context(), c)
		if err != nil || r.Connections.Made != 50 {
			t.Fatalf("%s: %v\n%s", scenario, err, r.Table())
		}
		if scenario == Connects && (r.Connections.Refused != 30 || r.Connections.Waited.Max < 50 || r.Connections.Handshake.Count != 50) {
			t.Errorf("want 30 refused: %s", r.Table())
		}
	}
}

// A refusal of who the client is, or an address where nobody listens, is final.
func TestRefusedForGood(t *testing.T) {
	for code, again := range map[connackError]bool{3: true, 0x89: true, 0x97: true, 4: false, 5: false, 0x86: false, 0x87: false} {
		if later(code) != again {
			t.Errorf("CONNACK with code %#x: again %t", byte(code), !again)
		}
	}
	c := small(Connects, 0, 4)
	c.Addrs = []string{"127.0.0.1:1"}
	from := time.Now()
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "connect to 127.0.0.1:1") || time.Since(from) > dialTimeout/2 {
		t.Errorf("after %v: %v", time.Since(from), err)
	}
}
