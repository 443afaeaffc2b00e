package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// disconnect says goodbye and waits for the end. free lets go the handlers that
// wait for it: what they hold is not acknowledged any more.
func (c *connection) disconnect(free func()) {
	c.conn.goodbye()
	free()
	<-c.Done()
}

// goodbyeWait is how long a broker may take to close after a DISCONNECT.
const goodbyeWait = time.Second

// watchedConn counts the PUBACK and PUBREC packets that were written, so that sub
// does not say goodbye before the last message is acknowledged, and says goodbye
// without losing them.
type watchedConn struct {
	net.Conn
	sync.Mutex              // what the library holds while it writes a packet
	acked      atomic.Int64 // packets
	over       atomic.Bool  // nothing may follow a DISCONNECT [MQTT-3.14.4-2]
	ended      chan struct{}
	once       sync.Once
}

// Write passes p on. The library writes each fixed header by a Write of its own.
func (c *watchedConn) Write(p []byte) (int, error) {
	if c.over.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	if len(p) == 2 && (p[0] == 0x40 || p[0] == 0x50) {
		c.acked.Add(1)
	}
	return n, err
}

// Read passes on what comes and notes the end.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

// goodbye writes a DISCONNECT and closes when the broker has: to close at once
// while messages arrive would reset the connection, and what was written last,
// acknowledgements too, could be lost.
func (c *watchedConn) goodbye() {
	c.Lock()
	_, err := c.Conn.Write([]byte{0xE0, 2, 0, 0}) // normal, no properties
	c.over.Store(true)
	c.Unlock()
	if err == nil {
		timer := time.NewTimer(goodbyeWait)
		defer timer.Stop()
		select {
		case <-c.ended:
		case <-timer.C:
		}
	}
	_ = c.Conn.Close()
}
