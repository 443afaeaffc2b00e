package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

const (
	// answerTimeout is how long a broker may take over one packet before the
	// connection counts as lost.
	answerTimeout = 5 * time.Second
	keepAlive     = 5 // seconds
	// A device waits this long before it connects again, and longer after each
	// failure.
	firstPause   = 20 * time.Millisecond
	longestPause = 500 * time.Millisecond
	// sessionExpiry is how long a persistent session outlives its connection, in
	// seconds.
	sessionExpiry = 3600
)

// access is where and as whom a client connects.
type access struct {
	address        string
	tls            *tls.Config
	user, password string
	// before is sent ahead of TLS; nil: nothing.
	before func(net.Conn) error
}

// client is one device: an MQTT 5 connection, and after its end another one,
// until it is told to stop.
type client struct {
	id     string
	access access
	// filters are subscribed at QoS 1 with a session that outlives connections.
	// Without any the session is a clean one.
	filters []string
	// received is called for each message, one after the other, before it is
	// acknowledged.
	received func(*paho.Publish)
	// serve uses a connection until ctx ends, which it does with the connection,
	// and tells whether there is nothing more to do; nil: wait.
	serve func(ctx context.Context, c *paho.Client) (finished bool)

	mu         sync.Mutex
	up         bool
	since      time.Time // of up
	local      string    // address of the connection
	resumed    int       // connections that found their session
	forgotten  int       // connections that should have and did not
	subscribed bool
	err        error // why it is not up
}

// connState is what others may know of a client.
type connState struct {
	up                 bool
	since              time.Time
	local              string
	resumed, forgotten int
	err                error
}

func (c *client) state() connState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return connState{c.up, c.since, c.local, c.resumed, c.forgotten, c.err}
}

// run connects again and again until ctx ends or serve has nothing more to do.
func (c *client) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		conn, err := c.connect(ctx)
		if err != nil {
			c.note(err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, longestPause)
			continue
		}
		pause = firstPause
		if c.use(ctx, conn) {
			return
		}
	}
}

// use serves one connection to its end and tells whether it was the last one.
func (c *client) use(ctx context.Context, conn *paho.Client) (last bool) {
	// A request does not notice by itself that its connection has ended.
	connected, end := context.WithCancel(ctx)
	var notice sync.WaitGroup
	notice.Go(func() {
		select {
		case <-conn.Done():
		case <-connected.Done():
		}
		end()
	})
	if c.serve != nil {
		last = c.serve(connected, conn)
	} else {
		<-connected.Done()
	}
	end()
	notice.Wait()
	select {
	case <-conn.Done():
	default:
		// An error changes nothing: the connection is over.
		_ = conn.Disconnect(&paho.Disconnect{})
	}
	// Done comes after the last message was handed over, so those of the next
	// connection come later.
	<-conn.Done()
	if last || ctx.Err() != nil {
		c.note(nil)
		return true
	}
	c.note(errors.New("the connection was lost"))
	return false
}

// note says that the client is not connected.
func (c *client) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.err = false, err
}

// connect makes a connection with its session and subscriptions.
func (c *client) connect(ctx context.Context) (*paho.Client, error) {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stream, err := c.access.dial(limited)
	if err != nil {
		return nil, err
	}
	local := stream.LocalAddr().String()
	conn := paho.NewClient(paho.ClientConfig{
		ClientID: c.id, Conn: packets.NewThreadSafeConn(stream), PacketTimeout: answerTimeout,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			if c.received != nil {
				c.received(p.Packet)
			}
			return true, nil
		}},
	})
	answer, err := conn.Connect(limited, c.packet())
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", c.id, err)
	}
	if err := c.subscribe(limited, conn, answer.SessionPresent); err != nil {
		_ = conn.Disconnect(&paho.Disconnect{}) // the error says it already
		<-conn.Done()
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.since, c.local, c.err = true, time.Now(), local, nil
	return conn, nil
}

func (a access) dial(ctx context.Context) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	if a.before != nil {
		if err := a.before(raw); err != nil {
			_ = raw.Close()
			return nil, err
		}
	}
	stream := tls.Client(raw, a.tls)
	if err := stream.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return stream, nil
}

func (c *client) packet() *paho.Connect {
	expiry, window := uint32(0), uint16(256)
	if len(c.filters) > 0 {
		expiry = sessionExpiry
	}
	return &paho.Connect{
		ClientID: c.id, CleanStart: len(c.filters) == 0, KeepAlive: keepAlive,
		Username: c.access.user, UsernameFlag: true,
		Password: []byte(c.access.password), PasswordFlag: true,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry, ReceiveMaximum: &window},
	}
}

// subscribe does so if the broker has no session. A session that was there and
// is gone is a broken promise, and counted.
func (c *client) subscribe(ctx context.Context, conn *paho.Client, present bool) error {
	if len(c.filters) == 0 {
		return nil
	}
	c.mu.Lock()
	if c.subscribed && present {
		c.resumed++
	} else if c.subscribed {
		c.forgotten++
	}
	done := c.subscribed && present
	c.mu.Unlock()
	if done {
		return nil
	}
	request := &paho.Subscribe{}
	for _, filter := range c.filters {
		request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{Topic: filter, QoS: 1})
	}
	if _, err := conn.Subscribe(ctx, request); err != nil {
		return fmt.Errorf("subscribe %s: %w", c.id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribed = true
	return nil
}
