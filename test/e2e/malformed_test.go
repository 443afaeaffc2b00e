//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestMutatedStreams sends mutated streams of packets to a node on several
// connections at a time. The node lives, no goroutine stays, and a publisher
// and a subscriber notice nothing.
func TestMutatedStreams(t *testing.T) {
	// A password would cost more than all else of a stream.
	c := NewCluster(t, Options{Nodes: 1, Flags: []string{"--auth.argon2-memory", "1MiB", "--auth.argon2-time", "1"}})
	n := c.Nodes[0]
	pair := c.startPair(t, n, n, 100)
	seeds := validStreams()
	count, bound := 20_000, 40*time.Second
	if long() {
		count, bound = 100_000, 20*time.Minute
	}
	rest := n.Metric("go_goroutines")
	const workers = 12
	var next, accepted, whole atomic.Int64
	deadline := time.Now().Add(bound)
	start := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		// An address for each worker, so that the ports of the connections that are
		// over last.
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(w+1))}
		wg.Go(func() {
			for i := next.Add(1); i <= int64(count) && time.Now().Before(deadline); i = next.Add(1) {
				rnd := rand.New(rand.NewPCG(uint64(i), 7)) // the number of a stream is enough to make it again
				answer, err := throw(n.Plain, from, mutate(rnd, seeds))
				switch {
				case err != nil && !n.Running():
					t.Errorf("stream %d: the node has ended: %v", i, err)
					return
				case err != nil:
					t.Errorf("stream %d: %v", i, err)
				case len(answer) > 3 && answer[0] == rawmqtt.CONNACK<<4 && answer[3] == 0:
					accepted.Add(1)
				}
				whole.Add(1)
			}
		})
	}
	wg.Wait()
	done := int(whole.Load())
	t.Logf("%d streams in %v, %d of them were accepted to begin with", done, time.Since(start).Round(time.Millisecond), accepted.Load())
	if done < count {
		t.Logf("the time was over before %d streams", count)
	}
	if done < count/4 || accepted.Load() < int64(done)/10 {
		t.Error("too few streams, or too few that got past CONNECT, to mean anything")
	}
	for _, name := range []string{"mqcluster_broker_panics_total", "mqcluster_listener_panics_total"} {
		if v := n.Metric(name); v != 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	var left float64
	await(t, patience, func() bool { left = n.Metric("go_goroutines"); return left <= rest+3 },
		func() string { return "there are goroutines left" })
	t.Logf("%v goroutines before, %v after", rest, left)
	pair.finish(500)
}

// throw sends a stream on a connection of its own and reads until the node has
// closed it.
func throw(address string, from *net.TCPAddr, stream []byte) (answer []byte, err error) {
	d := net.Dialer{LocalAddr: from, Timeout: patience}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	// The node may close at any time, which is its good right.
	_, _ = conn.Write(stream)
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, err = io.ReadAll(conn)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return answer, err
	}
	return answer, nil
}

// validStreams are what well-behaved clients of each version send.
func validStreams() (streams [][][]byte) {
	name, secret := "someone", "secret"
	for _, v := range []byte{3, 4, 5} {
		var props, willProps, pubProps []rawmqtt.Property
		if v == 5 {
			props = []rawmqtt.Property{rawmqtt.Int(rawmqtt.SessionExpiry, 30), rawmqtt.Int(rawmqtt.ReceiveMaximum, 10),
				rawmqtt.Int(rawmqtt.TopicAliasMaximum, 5), rawmqtt.Int(rawmqtt.MaximumPacketSize, 4000), rawmqtt.User("k", "v")}
			willProps = []rawmqtt.Property{rawmqtt.Int(rawmqtt.WillDelay, 1), rawmqtt.Text(rawmqtt.ContentType, "text"), rawmqtt.Int(rawmqtt.PayloadFormat, 1)}
			pubProps = []rawmqtt.Property{rawmqtt.Int(rawmqtt.TopicAlias, 2), rawmqtt.Int(rawmqtt.MessageExpiry, 5),
				rawmqtt.Text(rawmqtt.ResponseTopic, "mutant/answer"), rawmqtt.Text(rawmqtt.CorrelationData, "abc"), rawmqtt.User("a", "b")}
		}
		will := &rawmqtt.Will{Topic: "mutant/will", Payload: []byte("gone"), QoS: 1, Properties: willProps}
		connects := [][]byte{
			rawmqtt.Connect{Version: v, ClientID: "mutant-" + string('0'+v), CleanStart: true, KeepAlive: 10}.Packet(),
			rawmqtt.Connect{Version: v, ClientID: "mutant-keep-" + string('0'+v), KeepAlive: 10, Properties: props, Will: will}.Packet(),
			rawmqtt.Connect{Version: v, ClientID: "mutant-user", CleanStart: true, Username: &name, Password: &secret}.Packet(),
		}
		for _, connect := range connects {
			streams = append(streams, [][]byte{
				connect,
				rawmqtt.SubscribePacket(v, 1, nil, rawmqtt.Sub("mutant/#", 2), rawmqtt.Sub("$share/g/mutant/+", 1), rawmqtt.Sub("a/+/b", 0)),
				rawmqtt.Publish{Topic: "mutant/a", QoS: 2, ID: 3, Payload: []byte("two"), Properties: pubProps}.Packet(v),
				rawmqtt.AckPacket(v, rawmqtt.PUBREL, 3, 0),
				rawmqtt.Publish{Topic: "mutant/a", QoS: 1, ID: 4, Retain: true, Payload: []byte("one")}.Packet(v),
				rawmqtt.Publish{Topic: "mutant/b", Payload: []byte(strings.Repeat("zero", 40))}.Packet(v),
				rawmqtt.AckPacket(v, rawmqtt.PUBACK, 1, 0),
				rawmqtt.AckPacket(v, rawmqtt.PUBREC, 2, 0x10),
				rawmqtt.AckPacket(v, rawmqtt.PUBCOMP, 2, 0),
				rawmqtt.UnsubscribePacket(v, 5, "mutant/#", "a/+/b"),
				{rawmqtt.PINGREQ << 4, 0},
				rawmqtt.DisconnectPacket(v, 4),
			})
		}
	}
	return streams
}

// mutate makes a stream that no client would send; half of them begin with a
// CONNECT as it should be.
func mutate(rnd *rand.Rand, seeds [][][]byte) []byte {
	seed := seeds[rnd.IntN(len(seeds))]
	var out []byte
	packets := seed
	if rnd.IntN(2) == 0 {
		out = append(out, seed[0]...)
		packets = seed[1:]
	}
	keep := len(out)
	for range 1 + rnd.IntN(8) {
		p := packets[rnd.IntN(len(packets))]
		if keep == 0 && len(out) == 0 {
			p = seed[0]
		}
		switch rnd.IntN(8) {
		case 0: // of another stream, and so perhaps another version
			other := seeds[rnd.IntN(len(seeds))]
			p = other[rnd.IntN(len(other))]
		case 1: // cut short
			p = p[:rnd.IntN(len(p)+1)]
		case 2: // the end of one at the beginning of another
			q := packets[rnd.IntN(len(packets))]
			p = append(append([]byte{}, p[:rnd.IntN(len(p)+1)]...), q[rnd.IntN(len(q)):]...)
		case 3: // a wrong length
			p = append([]byte{}, p...)
			p[1] = byte(rnd.Uint32())
		case 4: // twice
			p = append(append([]byte{}, p...), p...)
		}
		out = append(out, p...)
	}
	for range rnd.IntN(4) {
		if i := keep + rnd.IntN(len(out)-keep+1); i < len(out) {
			out[i] ^= 1 << rnd.IntN(8)
		}
	}
	return out
}

// TestAnnouncedSize opens connections that announce packets of 256 MB and have
// not authenticated. The bar is 1 MB for 20 of them: measured is everything that
// the process allocates meanwhile, which no use at any moment can exceed, less
// what it allocates in the same time anyhow. Those that announce what is still
// allowed and send a part are held to what they sent.
func TestAnnouncedSize(t *testing.T) {
	const conns = 20
	c := NewCluster(t, Options{Nodes: 1})
	n := c.Nodes[0]
	announce := func(head ...byte) func(int) []byte { return func(int) []byte { return head } }
	for _, tt := range []struct {
		name string
		send func(i int) []byte
	}{
		{"CONNECT of 256 MB", announce(0x10, 0xff, 0xff, 0xff, 0x7f)},
		{"PUBLISH of 256 MB before CONNECT", announce(0x32, 0xff, 0xff, 0xff, 0x7f)},
		{"CONNECT of 256 MB, its head sent", announce(append([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}, "\x00\x04MQTT\x05\x02\x00\x3c"...)...)},
		{"CONNECT of 1 MB", announce(0x10, 0x80, 0x80, 0x40)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			held := func() []net.Conn {
				var all []net.Conn
				for i := range conns {
					conn, err := net.Dial("tcp", n.Plain)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = conn.Write(tt.send(i))
					all = append(all, conn)
				}
				return all
			}
			pause := func() { <-time.After(400 * time.Millisecond) } // both measurements last this long
			allocated := func() float64 { return n.Metric("go_memstats_alloc_bytes_total") }
			for _, conn := range held() { // what is made once
				conn.Close()
			}
			var cost []float64
			for range 5 {
				a := allocated()
				pause()
				b := allocated()
				all := held()
				pause()
				cost = append(cost, allocated()-b-(b-a))
				for _, conn := range all {
					conn.Close()
				}
			}
			slices.Sort(cost)
			used := cost[len(cost)/2]
			t.Logf("%d connections made the node allocate %.0f bytes, %.0f each; all measurements: %.0f", conns, used, used/conns, cost)
			if used > 1e6 {
				t.Errorf("%d connections cost %.0f bytes, 1 MB is the bar", conns, used)
			}
		})
	}
}

// TestSilentConnections opens connections that say nothing, or not enough, and
// expects that each is closed ten seconds after it was opened.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	var ws, wss string
	c := newListening(t, 1, func(n *Node) []string {
		ws, wss = freeAddress(t), freeAddress(t)
		return []string{"--listener", "tls,address=" + n.TLS, "--listener", "tcp,allow_plaintext=true,address=" + n.Plain,
			"--listener", "ws,allow_plaintext=true,address=" + ws, "--listener", "wss,address=" + wss}
	})
	n := c.Nodes[0]
	connect := rawmqtt.Connect{Version: 5, ClientID: "silent", CleanStart: true}.Packet()
	upgrade := "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
	var all sync.WaitGroup
	var mu sync.Mutex
	results := map[string]func(*testing.T){}
	for _, tt := range []struct {
		name, address string
		tls           bool
		text          string
		slowly        bool // one byte a second
	}{
		{name: "tcp, nothing", address: n.Plain},
		{name: "tcp, half a CONNECT", address: n.Plain, text: string(connect[:len(connect)/2])},
		{name: "tcp, one byte", address: n.Plain, text: string(connect[:1])},
		{name: "tcp, a CONNECT byte by byte", address: n.Plain, text: string(connect), slowly: true},
		{name: "tls, nothing", address: n.TLS},
		{name: "tls, half a hello", address: n.TLS, text: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{name: "tls, hands shaken", address: n.TLS, tls: true},
		{name: "tls, half a CONNECT", address: n.TLS, tls: true, text: string(connect[:len(connect)/2])},
		{name: "ws, nothing", address: ws},
		{name: "ws, half a request", address: ws, text: upgrade[:40]},
		{name: "ws, a request byte by byte", address: ws, text: upgrade, slowly: true},
		{name: "ws, hands shaken", address: ws, text: upgrade},
		{name: "wss, nothing", address: wss},
		{name: "wss, TLS only", address: wss, tls: true},
		{name: "wss, hands shaken", address: wss, tls: true, text: upgrade},
		{name: "health, nothing", address: n.Health},
		{name: "health, half a request", address: n.Health, text: "GET /readyz HT"},
	} {
		// Not parallel subtests: of those only as many run as there are cores.
		all.Go(func() {
			after, err := c.patienceWith(tt.address, tt.tls, tt.slowly, tt.text)
			mu.Lock()
			defer mu.Unlock()
			results[tt.name] = func(t *testing.T) {
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("closed after %v", after.Round(time.Millisecond))
				if after > 12*time.Second {
					t.Errorf("closed after %v, 10 s are the bar", after)
				}
				if after < 3*time.Second {
					t.Errorf("closed after %v: a slow client would have no chance", after)
				}
			}
		})
	}
	all.Wait()
	for name, judge := range results {
		t.Run(name, judge)
	}
}

// patienceWith tells how long a node keeps a connection that says only text.
func (c *Cluster) patienceWith(address string, secure, slowly bool, text string) (time.Duration, error) {
	start := time.Now()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if secure {
		config := c.ClientTLS.Clone()
		config.ServerName = "127.0.0.1"
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(c.t.Context()); err != nil {
			return 0, err
		}
		conn = secured
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if slowly {
		wg.Go(func() { trickle(ctx, conn, text) })
	} else if _, err := conn.Write([]byte(text)); err != nil {
		return 0, err
	}
	if err := conn.SetReadDeadline(start.Add(20 * time.Second)); err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, conn) // the deadline or the end
	return time.Since(start), nil
}

// trickle writes a byte a second.
func trickle(ctx context.Context, conn net.Conn, text string) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
