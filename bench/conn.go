package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// keepAlive is what clients announce, in seconds; runs ping well before it.
const keepAlive = 60

// dialTimeout bounds a connection's way to its CONNACK or SUBACK.
const dialTimeout = 30 * time.Second

// link is one connected client.
type link struct {
	net.Conn
	rest       []byte // what came behind CONNACK or SUBACK
	receiveMax int    // what the broker takes unacknowledged
	present    bool
	resumed    bool // the TLS session
}

// connect dials and waits for the CONNACK.
func connect(ctx context.Context, c *Config, addr string, packet []byte) (*link, error) {
	l, err := dial(ctx, c, addr)
	if err != nil {
		return nil, err
	}
	if err := l.connect(packet, c.Version == 5); err != nil {
		l.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return l, nil
}

// dial connects, TLS included.
func dial(ctx context.Context, c *Config, addr string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	if c.TLS != nil {
		conn, err = (&tls.Dialer{Config: c.TLS}).DialContext(ctx, "tcp", addr)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	l := &link{Conn: conn, receiveMax: 65535}
	if t, ok := conn.(*tls.Conn); ok {
		l.resumed = t.ConnectionState().DidResume
	}
	return l, nil
}

// handshake makes a TLS connection and ends it. It returns when the broker has ended
// it, too: before, it may not have done its part.
func handshake(ctx context.Context, c *Config, addr string) (resumed bool, err error) {
	l, err := dial(ctx, c, addr)
	if err != nil {
		return false, err
	}
	defer l.Close()
	t, ok := l.Conn.(*tls.Conn)
	if !ok {
		return false, errors.New("there is no handshake without TLS")
	}
	if err := errors.Join(t.SetDeadline(time.Now().Add(dialTimeout)), t.CloseWrite()); err != nil {
		return false, fmt.Errorf("end the connection to %s: %w", addr, err)
	}
	if _, err := io.Copy(io.Discard, t); err != nil {
		return false, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return l.resumed, nil
}

func (l *link) connect(packet []byte, v5 bool) error {
	_, body, err := l.exchange(packet, packetConnack)
	if err != nil {
		return err
	}
	if len(body) < 2 {
		return errMalformed
	}
	if body[1] != 0 {
		return connackError(body[1])
	}
	l.present = body[0]&1 != 0
	if v5 {
		l.receiveMax = receiveMaximum(body[2:])
	}
	return nil
}

// subscribe sends a SUBSCRIBE and waits for its SUBACK.
func (l *link) subscribe(packet []byte, v5 bool) error {
	_, body, err := l.exchange(packet, packetSuback)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	at := 2
	if v5 {
		if len(body) < 3 {
			return errMalformed
		}
		at = 3 + int(body[2]) // a SUBACK with 128 bytes of properties is not for us
	}
	for ; at < len(body); at++ {
		if body[at] >= 0x80 {
			return fmt.Errorf("the broker refused a subscription with code 0x%02x: check the user's ACL", body[at])
		}
	}
	return nil
}

// exchange sends a packet and reads until the answer of the wanted type. What
// comes before a SUBACK (messages of a resumed session) stays with what comes
// behind it, for the receiver.
func (l *link) exchange(packet []byte, want byte) (byte, []byte, error) {
	if err := l.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := l.Write(packet); err != nil {
		return 0, nil, err
	}
	var in, before []byte
	buf := make([]byte, 4096)
	for {
		head, end := split(in)
		switch {
		case end < 0:
			return 0, nil, errMalformed
		case end > 0 && in[0]>>4 == want:
			l.rest = append(before, in[end:]...)
			return in[0], in[head:end], l.SetDeadline(time.Time{})
		case end > 0 && in[0]>>4 == packetDisconnect:
			return 0, nil, fmt.Errorf("the broker disconnected: % x", in[head:end])
		case end > 0:
			before = append(before, in[:end]...)
			in = in[end:]
			continue
		}
		n, err := l.Read(buf)
		in = append(in, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return 0, nil, fmt.Errorf("the broker closed the connection instead of answering: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

// receiveMaximum reads that property of a CONNACK, 65535 if it is not there.
func receiveMaximum(props []byte) int {
	if len(props) == 0 {
		return 65535
	}
	n, skip := int(props[0]), 1
	if n >= 0x80 && len(props) > 1 {
		n, skip = n&0x7f|int(props[1])<<7, 2
	}
	props = props[skip:]
	props = props[:min(n, len(props))]
	for len(props) > 0 {
		id, size := props[0], 0
		switch id {
		case 0x24, 0x25, 0x28, 0x29, 0x2a:
			size = 1
		case 0x13, 0x21, 0x22:
			size = 2
		case 0x11, 0x27:
			size = 4
		case 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f:
			if len(props) > 2 {
				size = 2 + int(binary.BigEndian.Uint16(props[1:]))
			}
		case 0x26:
			for range 2 {
				if len(props) > 2+size {
					size += 2 + int(binary.BigEndian.Uint16(props[1+size:]))
				}
			}
		}
		if size == 0 || len(props) < 1+size {
			break
		}
		if id == 0x21 {
			return max(1, int(binary.BigEndian.Uint16(props[1:])))
		}
		props = props[1+size:]
	}
	return 65535
}

// forEach runs f for 0…n-1 on up to parallel goroutines and returns the first
// error, after all have ended. After an error no more are started.
func forEach(ctx context.Context, n, parallel int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, parallel) {
		wg.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// keepAlives pings all links until ctx ends. Writes of different goroutines to
// one connection do not mix.
func keepAlives(ctx context.Context, links func(yield func(*link) bool)) {
	tick := time.NewTicker(keepAlive * time.Second / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for l := range links {
			l.Write([]byte{packetPingreq << 4, 0}) // an error shows in the reader
		}
	}
}
