package history

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// RetainedWriterConfig says what a RetainedWriter writes.
type RetainedWriterConfig struct {
	Endpoint
	// Name is that of the history, the client id, and part of every value.
	Name   string
	Topics []string // in turn
	QoS    byte
	Rate   float64 // writes per second; 0 means 5
	// ClearEvery is which writes are clears: each so-many-th; 0 means 5.
	ClearEvery int
}

// RetainedWriter is a recorded client that sets and clears retained messages, one
// after the other, each once: what was not acknowledged when the connection ended
// stays unknown, and the next write is another one.
type RetainedWriter struct {
	driver
	client *client
	cfg    RetainedWriterConfig
	acked  atomic.Int64
}

// StartRetainedWriter starts a goroutine that writes until Stop or the end of ctx.
func StartRetainedWriter(ctx context.Context, rec *Recorder, cfg RetainedWriterConfig) *RetainedWriter {
	if cfg.Rate == 0 {
		cfg.Rate = 5
	}
	if cfg.ClearEvery == 0 {
		cfg.ClearEvery = 5
	}
	w := &RetainedWriter{client: newClient(rec, cfg.Endpoint, cfg.Name, "", 0), cfg: cfg}
	w.driver = drive(ctx, cfg.Name, w.run)
	return w
}

// Acked is how many writes were acknowledged so far.
func (w *RetainedWriter) Acked() int { return int(w.acked.Load()) }

func (w *RetainedWriter) run(ctx context.Context) {
	for seq := 0; ctx.Err() == nil; {
		if _, err := w.client.connect(ctx); err != nil {
			return
		}
		var err error
		for err == nil && ctx.Err() == nil {
			seq++
			if err = w.write(seq); err == nil {
				err = w.client.idle(ctx, w.client.every(w.cfg.Rate))
			}
		}
		if err == nil {
			w.client.leave()
		} else {
			w.client.hangUpFor(err)
		}
	}
}

// every is the time between two of so many a second.
func (c *client) every(rate float64) time.Duration {
	return time.Duration(float64(time.Second) / rate)
}

func (w *RetainedWriter) write(seq int) error {
	id := fmt.Sprintf("%s/%d", w.cfg.Name, seq)
	p := rawmqtt.Publish{Topic: w.cfg.Topics[seq%len(w.cfg.Topics)], QoS: w.cfg.QoS, Retain: true, Payload: payload(id, 0)}
	if p.QoS > 0 {
		p.ID = uint16(seq%60000 + 1)
	}
	if seq%w.cfg.ClearEvery == 0 {
		p.Payload = nil
		if w.client.at.Version >= 5 {
			p.Properties = []rawmqtt.Property{rawmqtt.User(nameKey, id)}
		}
	}
	acked, err := w.client.publish(Event{Message: id, Seq: seq}, p)
	if acked {
		w.acked.Add(1)
	}
	return err
}

// RetainedReaderConfig says what a RetainedReader reads.
type RetainedReaderConfig struct {
	Endpoint
	// Name is that of the history and the client id.
	Name   string
	Topics []string // in turn
	QoS    byte
	Rate   float64 // reads per second at most; 0 means 2
	// Clean reads with sessions that end with their connections, whose
	// subscriptions are not in the log. MQTT before 5 always does.
	Clean bool
}

// RetainedReader is a recorded client that connects with a new session, subscribes
// to one topic, takes the retained message that is there, or sees that there is
// none, and leaves; again and again.
type RetainedReader struct {
	driver
	client *client
	cfg    RetainedReaderConfig
	reads  atomic.Int64
}

// readExpiry is the expiry of a reader's sessions, in seconds.
const readExpiry = 5

// StartRetainedReader starts a goroutine that reads until Stop or the end of ctx.
func StartRetainedReader(ctx context.Context, rec *Recorder, cfg RetainedReaderConfig) *RetainedReader {
	if cfg.Rate == 0 {
		cfg.Rate = 2
	}
	expiry := uint32(readExpiry)
	if cfg.Clean || cfg.Version != 0 && cfg.Version < 5 {
		expiry = 0
	}
	r := &RetainedReader{client: newClient(rec, cfg.Endpoint, cfg.Name, "", expiry), cfg: cfg}
	r.client.clean = true
	r.driver = drive(ctx, cfg.Name, r.run)
	return r
}

// Reads is how many reads were done so far.
func (r *RetainedReader) Reads() int { return int(r.reads.Load()) }

func (r *RetainedReader) run(ctx context.Context) {
	lost := false
	for n := 0; ctx.Err() == nil; n++ {
		if _, err := r.client.connect(ctx); err != nil {
			break
		}
		if err := r.read(r.cfg.Topics[n%len(r.cfg.Topics)]); err != nil {
			lost = true
			r.client.hangUpFor(err)
		} else {
			lost = false
			r.client.leave()
			r.reads.Add(1)
		}
		pause(ctx, r.client.every(r.cfg.Rate))
	}
	if !lost {
		return
	}
	// A session that was lost and is not begun anew would look like one that is
	// owed what came since.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.client.at.Timeout)
	defer cancel()
	if _, err := r.client.connect(ctx); err == nil {
		r.client.leave()
	}
}

// noneFor is how long a reader waits for a retained message after it saw that the
// broker serves it.
const noneFor = 300 * time.Millisecond

// read reads one topic. That nothing came counts only after messages to itself
// have come, before and after a pause: a node that hangs has not said "none".
func (r *RetainedReader) read(topic string) error {
	echo := "echo/" + r.cfg.Name
	subs := []rawmqtt.Subscription{rawmqtt.Sub(topic, r.cfg.QoS), rawmqtt.Sub(echo, 1)}
	for _, b := range subs {
		r.client.add(Event{Kind: SubscribeSent, Filter: b.Filter, QoS: b.Options & 3})
	}
	if err := r.client.raw.Send(rawmqtt.SubscribePacket(r.client.at.Version, 1, nil, subs...)); err != nil {
		return err
	}
	come := false // what is retained, which may be before its SUBACK
	watch := func(p *rawmqtt.Packet) { come = come || p.Type == rawmqtt.PUBLISH && p.Topic == topic }
	ack, err := r.client.await(watch, func(p *rawmqtt.Packet) bool { return p.Type == rawmqtt.SUBACK })
	if err != nil {
		return err
	}
	for i, code := range ack.Reasons[:min(len(ack.Reasons), len(subs))] {
		e := Event{Kind: Subscribed, Filter: subs[i].Filter, QoS: code}
		if code >= 0x80 {
			e.QoS, e.Reason = 0, code
		}
		r.client.add(e)
	}
	for n := 1; n <= 2 && !come; n++ {
		if err := r.echo(echo, n, watch); err != nil {
			return err
		}
		if _, err := r.client.until(context.Background(), noneFor, func(p *rawmqtt.Packet) bool { watch(p); return come }); err != nil {
			return err
		}
	}
	r.client.add(Event{Kind: ReadDone, Topic: topic})
	return nil
}

// await waits for a packet and shows all until then.
func (c *client) await(watch func(*rawmqtt.Packet), is func(*rawmqtt.Packet) bool) (*rawmqtt.Packet, error) {
	p, err := c.until(context.Background(), c.at.Timeout, func(p *rawmqtt.Packet) bool { watch(p); return is(p) })
	if p == nil && err == nil {
		err = errSilent
	}
	return p, err
}

// echo sends a message to itself and waits until it has come, and its
// acknowledgement.
func (r *RetainedReader) echo(topic string, n int, watch func(*rawmqtt.Packet)) error {
	c := r.client
	id := fmt.Sprintf("%s/echo-%d-%d", r.cfg.Name, c.conn, n)
	p := rawmqtt.Publish{Topic: topic, QoS: 1, ID: uint16(n), Payload: payload(id, 0)}
	c.add(Event{Kind: PublishSent, Message: id, Seq: 2*c.conn + n, Topic: topic, QoS: 1, PacketID: p.ID, Sum: sum(p.Payload)})
	if err := c.raw.Publish(p); err != nil {
		return err
	}
	came, acked := false, false
	_, err := c.await(watch, func(p *rawmqtt.Packet) bool {
		came = came || p.Type == rawmqtt.PUBLISH && p.Topic == topic && nameOf(p) == id
		if p.Type == rawmqtt.PUBACK && p.ID == uint16(n) {
			acked = true
			c.add(Event{Kind: PublishAcked, Message: id, PacketID: p.ID, Reason: p.Reason})
		}
		return came && acked
	})
	return err
}
