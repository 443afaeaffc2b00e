package rawmqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// DefaultTimeout bounds every step that names no time of its own.
const DefaultTimeout = 10 * time.Second

// ErrTimeout is returned, wrapped, by a step whose packet did not come in time.
// The connection stays usable.
var ErrTimeout = errors.New("no packet came in time")

// Client is one connection. One goroutine at a time may read; any may send.
type Client struct {
	// Conn is the connection itself, for tests that half-close or stop reading.
	Conn net.Conn
	// Version decides how packets are built and parsed.
	Version byte
	// AutoAck answers PUBLISH, PUBREC and PUBREL as they are read.
	AutoAck bool
	// Timeout bounds the steps that wait for a packet; 0 means DefaultTimeout.
	Timeout time.Duration

	in      []byte    // bytes read and not yet parsed
	buf     []byte    // what the next read goes into
	pending []*Packet // read while waiting for another one
	readErr error
}

// New returns a client, or the server's side of one, over conn.
func New(conn net.Conn, version byte) *Client {
	return &Client{Conn: conn, Version: version}
}

// Dial connects to address, with TLS if config is given, and sends nothing. The
// whole of it, handshake included, is bounded by ctx and by DefaultTimeout.
func Dial(ctx context.Context, address string, config *tls.Config, version byte) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	if config != nil {
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return New(conn, version), nil
}

// Send writes bytes as they are.
func (c *Client) Send(raw []byte) error {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout())); err != nil {
		return err
	}
	_, err := c.Conn.Write(raw)
	return err
}

// Connect sends a CONNECT of the client's version and returns the CONNACK,
// whatever it says.
func (c *Client) Connect(o Connect) (*Packet, error) {
	o.Version = c.Version
	if err := c.Send(o.Packet()); err != nil {
		return nil, fmt.Errorf("send CONNECT: %w", err)
	}
	return c.Await(CONNACK, 0)
}

// Subscribe sends a SUBSCRIBE and returns its SUBACK; packets that come before
// it wait for the next Read.
func (c *Client) Subscribe(id uint16, subs ...Subscription) (*Packet, error) {
	if err := c.Send(SubscribePacket(c.Version, id, nil, subs...)); err != nil {
		return nil, fmt.Errorf("send SUBSCRIBE: %w", err)
	}
	return c.Await(SUBACK, id)
}

// Unsubscribe sends an UNSUBSCRIBE and returns its UNSUBACK.
func (c *Client) Unsubscribe(id uint16, filters ...string) (*Packet, error) {
	if err := c.Send(UnsubscribePacket(c.Version, id, filters...)); err != nil {
		return nil, fmt.Errorf("send UNSUBSCRIBE: %w", err)
	}
	return c.Await(UNSUBACK, id)
}

// Publish sends a PUBLISH and waits for nothing.
func (c *Client) Publish(p Publish) error { return c.Send(p.Packet(c.Version)) }

// PublishAcked sends a PUBLISH and takes it to its end: PUBACK, or PUBREC,
// PUBREL, PUBCOMP. It returns the last packet, or the PUBREC that refused.
func (c *Client) PublishAcked(p Publish) (*Packet, error) {
	if err := c.Publish(p); err != nil || p.QoS == 0 {
		return nil, err
	}
	if p.QoS == 1 {
		return c.Await(PUBACK, p.ID)
	}
	rec, err := c.Await(PUBREC, p.ID)
	if err != nil || rec.Reason >= 0x80 {
		return rec, err
	}
	if !c.AutoAck {
		if err := c.Ack(rec); err != nil {
			return nil, err
		}
	}
	return c.Await(PUBCOMP, p.ID)
}

// Ack answers p as the protocol wants it: PUBLISH of QoS 1 with PUBACK, of QoS 2
// with PUBREC, PUBREC with PUBREL, PUBREL with PUBCOMP. Anything else needs no
// answer.
func (c *Client) Ack(p *Packet) error {
	switch {
	case p.Type == PUBLISH && p.QoS == 1:
		return c.Send(AckPacket(c.Version, PUBACK, p.ID, 0))
	case p.Type == PUBLISH && p.QoS == 2:
		return c.Send(AckPacket(c.Version, PUBREC, p.ID, 0))
	case p.Type == PUBREC && p.Reason < 0x80:
		return c.Send(AckPacket(c.Version, PUBREL, p.ID, 0))
	case p.Type == PUBREL:
		return c.Send(AckPacket(c.Version, PUBCOMP, p.ID, 0))
	}
	return nil
}

// Ping sends a PINGREQ and waits for its answer.
func (c *Client) Ping() error {
	if err := c.Send([]byte{PINGREQ << 4, 0}); err != nil {
		return err
	}
	_, err := c.Await(PINGRESP, 0)
	return err
}

// Read returns the next packet, first of those that an Await passed over. It
// waits at most timeout and then returns ErrTimeout; io.EOF, unwrapped, means
// that the server closed.
func (c *Client) Read(timeout time.Duration) (*Packet, error) {
	if len(c.pending) > 0 {
		p := c.pending[0]
		c.pending = c.pending[1:]
		return p, nil
	}
	return c.next(time.Now().Add(timeout))
}

// Await returns the next packet of the kind and, if id is not 0, the packet id.
// Others stay for Read, in order. A DISCONNECT that comes instead is an error
// that names its reason.
func (c *Client) Await(kind byte, id uint16) (*Packet, error) {
	is := func(p *Packet) bool { return p.Type == kind && (id == 0 || p.ID == id) }
	for i, p := range c.pending {
		if is(p) {
			c.pending = append(c.pending[:i:i], c.pending[i+1:]...)
			return p, nil
		}
	}
	deadline := time.Now().Add(c.timeout())
	for {
		p, err := c.next(deadline)
		if err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", TypeName(kind), err)
		}
		if is(p) {
			return p, nil
		}
		c.pending = append(c.pending, p)
		if p.Type == DISCONNECT {
			return nil, fmt.Errorf("waiting for %s: got %s: %w", TypeName(kind), p, io.EOF)
		}
	}
}

// AwaitClose reads until the server closes the connection and returns the
// packets that came before that.
func (c *Client) AwaitClose(timeout time.Duration) ([]*Packet, error) {
	got := c.pending
	c.pending = nil
	deadline := time.Now().Add(timeout)
	for {
		p, err := c.next(deadline)
		switch {
		case err == nil:
			got = append(got, p)
		case errors.Is(err, ErrTimeout):
			return got, fmt.Errorf("waiting for the server to close: %w", err)
		default:
			return got, nil
		}
	}
}

// Disconnect sends a DISCONNECT and closes the connection.
func (c *Client) Disconnect(reason byte, props ...Property) error {
	err := c.Send(DisconnectPacket(c.Version, reason, props...))
	return errors.Join(err, c.Close())
}

// Close closes the connection without a word, as a crash would.
func (c *Client) Close() error { return c.Conn.Close() }

func (c *Client) timeout() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return DefaultTimeout
}

// next reads one packet. What a timeout cut off stays in c.in for the next call.
func (c *Client) next(deadline time.Time) (*Packet, error) {
	for {
		frame, err := SplitFrame(c.in)
		if err != nil {
			return nil, err
		}
		if frame != nil {
			c.in = c.in[len(frame):]
			return c.accept(frame)
		}
		if c.readErr != nil {
			return nil, c.readErr
		}
		if err := c.Conn.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		if c.buf == nil {
			c.buf = make([]byte, 32<<10)
		}
		n, err := c.Conn.Read(c.buf)
		// Frames handed out refer to earlier arrays: append past them, never over.
		c.in = append(c.in[:len(c.in):len(c.in)], c.buf[:n]...)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if n == 0 {
				return nil, ErrTimeout
			}
		case err != nil:
			c.readErr = err
		}
	}
}

func (c *Client) accept(frame []byte) (*Packet, error) {
	p, err := Parse(frame, c.Version)
	if err != nil {
		return nil, err
	}
	if p.Type == CONNECT {
		c.Version = p.Connect.Version
	}
	if c.AutoAck {
		if err := c.Ack(p); err != nil {
			return p, nil // the packet was read; the next step meets the error
		}
	}
	return p, nil
}
