package broker

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// halfCloser is a pipe whose writing side can be closed, as TCP's and TLS's.
type halfCloser struct{ net.Conn }

func (halfCloser) CloseWrite() error { return nil }

// TestLinger: a client that was sent away and is still busy with what came before
// gets the time to read it; one that is silent, or never ends, does not.
func TestLinger(t *testing.T) {
	for _, tt := range []struct {
		name   string
		writes int // one every 150 ms
		closes bool
		least  time.Duration
		most   time.Duration
	}{
		{"silent", 0, false, lingerTime, lingerTime},
		{"closes at once", 0, true, 0, 0},
		{"sends for 1.5 s and closes", 10, true, 1500 * time.Millisecond, 1500 * time.Millisecond},
		{"sends for 1.5 s and is silent", 10, false, 1500*time.Millisecond + lingerTime, 1500*time.Millisecond + lingerTime},
		{"sends for ever", 1000, false, closeGrace, closeGrace + 150*time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, peer := net.Pipe()
				c := &client{conn: halfCloser{server}}
				var wg sync.WaitGroup
				wg.Go(func() {
					for range tt.writes {
						time.Sleep(150 * time.Millisecond)
						if _, err := peer.Write([]byte("x")); err != nil {
							return
						}
					}
					if tt.closes {
						peer.Close()
					}
				})
				start := time.Now()
				c.linger()
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("lingered for %v, want %v to %v", took, tt.least, tt.most)
				}
				wg.Wait()
			})
		})
	}
}
