package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// subscribeBatch is how many filters go into one SUBSCRIBE.
	subscribeBatch = 100
	// maxProbes is how many of the filters are tried from each address.
	maxProbes = 1000
	// probeAgain is how long no probe may arrive before those that are missing are
	// published once more.
	// A broker that is slow is asked more and more slowly.
	probeAgain = 20 * time.Millisecond
	lastProbe  = time.Second
)

// filters subscribes to Count distinct filters at once, over Clients connections,
// and finds out from every publishing address when a message to them arrives. A
// probe that was published after the last SUBACK and did not arrive is lost.
func (r *run) filters(ctx context.Context) error {
	f := &filterRun{run: r, probes: min(r.cfg.Count, maxProbes)}
	defer r.close()
	defer f.close()
	if err := f.open(ctx); err != nil {
		return err
	}
	before, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	r.begin()
	if err := f.subscribe(ctx); err != nil {
		return err
	}
	acked := time.Duration(r.now())
	now, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	r.phase("subscribe", int64(r.cfg.Count), acked, cpuPer(before, now, int64(r.cfg.Count)))
	f.spread(ctx)
	r.report.figure("spread", "s", time.Duration(r.lastArrival.Load()).Seconds())
	r.report.figure("after the last SUBACK", "s", (time.Duration(r.lastArrival.Load()) - acked).Seconds())
	after, err := r.settle(ctx)
	if err != nil {
		return err
	}
	f.memory(before, after)
	if r.cfg.Between != nil {
		if err := r.cfg.Between(ctx); err != nil {
			return fmt.Errorf("while the filters are there: %w", err)
		}
	}
	r.report.spent(before, after, 0)
	r.count(time.Duration(r.lastArrival.Load()))
	f.count()
	return r.verdict(ctx)
}

// filterRun is what only the filters scenario has.
type filterRun struct {
	run     *run
	links   []*link // subscribers
	probers []*link
	probes  int // filters that each prober tries
	acks    atomic.Int64
	acked   chan struct{} // a SUBACK came
	// first is, by prober and probe, whether the first message arrived, seen whether
	// one did.
	mu          sync.Mutex
	first, seen []bool
	missing     atomic.Int64
	readers     sync.WaitGroup
}

func (f *filterRun) open(ctx context.Context) error {
	c := &f.run.cfg
	f.links, f.probers = make([]*link, c.Clients), make([]*link, len(c.PubAddrs))
	n := f.probes * len(f.probers)
	f.first, f.seen, f.acked = make([]bool, n), make([]bool, n), make(chan struct{}, 1)
	f.missing.Store(int64(n))
	return forEach(ctx, len(f.links)+len(f.probers), openers, func(ctx context.Context, i int) (err error) {
		id := fmt.Sprintf("b%s-f%d", f.run.name, i)
		if i < len(f.links) {
			f.links[i], err = connect(ctx, c, c.SubAddrs[i%len(c.SubAddrs)], connectPacket(c, id, !c.Persistent, c.Persistent))
			return err
		}
		i -= len(f.links)
		f.probers[i], err = connect(ctx, c, c.PubAddrs[i], connectPacket(c, id, true, false))
		return err
	})
}

func (f *filterRun) close() {
	f.run.closing.Store(true)
	for _, links := range [][]*link{f.links, f.probers} {
		for _, l := range links {
			if l != nil {
				l.Write([]byte{packetDisconnect << 4, 0})
				l.Close()
			}
		}
	}
	f.readers.Wait()
}

func (f *filterRun) filter(i int) string { return fmt.Sprintf("b/%s/f/%08d", f.run.name, i) }

// subscribe sends everything and waits for all SUBACKs.
func (f *filterRun) subscribe(ctx context.Context) error {
	c := &f.run.cfg
	for _, l := range f.links {
		f.readers.Go(func() { f.run.fail(f.read(l)) })
	}
	var packets int64
	each := (c.Count + c.Clients - 1) / c.Clients
	err := forEach(ctx, c.Clients, c.Clients, func(_ context.Context, i int) error {
		for from, end := i*each, min((i+1)*each, c.Count); from < end; from += subscribeBatch {
			var filters []string
			for k := from; k < min(from+subscribeBatch, end); k++ {
				filters = append(filters, f.filter(k))
			}
			atomic.AddInt64(&packets, 1)
			if _, err := f.links[i].Write(subscribePacket(c.Version, filters, c.QoS)); err != nil {
				return fmt.Errorf("subscribe: %w", err)
			}
		}
		return nil
	})
	for was := f.acks.Load(); err == nil && was < packets; was = f.acks.Load() {
		select {
		case <-f.acked:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-f.run.stop:
			err = f.run.firstError()
		case <-time.After(f.run.cfg.Wait):
			if f.acks.Load() == was {
				err = fmt.Errorf("%d of %d SUBACKs came, and no more in %v: look at the broker's log, or raise --wait", was, packets, f.run.cfg.Wait)
			}
		}
	}
	return err
}

// read takes what a subscriber is sent, until the connection ends.
func (f *filterRun) read(l *link) error {
	buf, have := make([]byte, 4<<10), 0
	for {
		n, err := l.Read(buf[have:])
		if err != nil {
			if f.run.closing.Load() {
				return nil
			}
			return fmt.Errorf("a subscriber lost its connection: %w", err)
		}
		have += n
		used := 0
		for {
			head, end := split(buf[used:have])
			if end < 0 {
				return errMalformed
			}
			if end == 0 {
				break
			}
			if err := f.packet(buf[used], buf[used+head:used+end]); err != nil {
				return err
			}
			used += end
		}
		if have = copy(buf, buf[used:have]); have == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func (f *filterRun) packet(first byte, body []byte) error {
	v5 := f.run.cfg.Version == 5
	switch first >> 4 {
	case packetSuback:
		at := 2
		if v5 && len(body) > 2 {
			at = 3 + int(body[2])
		}
		for ; at < len(body); at++ {
			if body[at] >= 0x80 {
				return fmt.Errorf("the broker refused a subscription with code 0x%02x: check the user's ACL and the broker's limits", body[at])
			}
		}
		f.acks.Add(1)
		select {
		case f.acked <- struct{}{}:
		default:
		}
	case packetPublish:
		_, payload, ok := publishParts(first, body, v5)
		h, whole := parseHeader(payload)
		if !ok || !whole || int(h.publisher) >= len(f.probers) {
			return errMalformed
		}
		f.arrive(h)
	case packetDisconnect:
		return fmt.Errorf("a subscriber was disconnected by the broker: % x", body)
	}
	return nil
}

func (f *filterRun) arrive(h header) {
	now := f.run.now()
	i := int(h.publisher)*f.probes + int(h.seq)%f.probes
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(h.seq) < f.probes {
		f.first[i] = true
	}
	if !f.seen[i] {
		f.seen[i] = true
		f.missing.Add(-1)
		f.run.lastArrival.Store(now)
	}
}

// spread publishes to the probed filters from every address, and again to those
// that did not arrive, until all did or nothing has for the configured wait.
func (f *filterRun) spread(ctx context.Context) {
	progress, pause := time.Now(), probeAgain
	for round := uint32(0); ; round++ {
		for p, l := range f.probers {
			if _, err := l.Write(f.volley(p, round)); err != nil {
				f.run.fail(fmt.Errorf("publish to the filters: %w", err))
				return
			}
		}
		for was := f.missing.Load(); was > 0; {
			select {
			case <-ctx.Done():
				return
			case <-f.run.stop:
				return
			case <-time.After(pause):
			}
			now := f.missing.Load()
			if now == was {
				break
			}
			was, progress = now, time.Now()
		}
		if f.missing.Load() == 0 || time.Since(progress) > f.run.cfg.Wait {
			return
		}
		pause = min(2*pause, lastProbe)
	}
}

// volley is a message to each filter of a prober that is missing. Those of a later
// round have higher numbers.
func (f *filterRun) volley(prober int, round uint32) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []byte
	for i := range f.probes {
		if f.seen[prober*f.probes+i] {
			continue
		}
		body := appendString(nil, f.filter(i*(f.run.cfg.Count/f.probes)))
		if f.run.cfg.Version == 5 {
			body = append(body, 0)
		}
		body = binary.BigEndian.AppendUint32(body, uint32(prober))
		body = binary.BigEndian.AppendUint32(body, round*uint32(f.probes)+uint32(i))
		body = binary.BigEndian.AppendUint64(body, uint64(f.run.now()))
		out = appendFrame(out, packetPublish<<4, body)
	}
	return out
}

// memory enters what the filters take: the largest process in all, and what each
// filter added to those that were measured.
func (f *filterRun) memory(before, after []usage) {
	var grown, most int64
	for i := range after {
		grown += after[i].rss - before[i].rss
		most = max(most, after[i].rss)
	}
	if len(after) > 0 {
		f.run.report.figure("memory", "MiB", mib(most))
		f.run.report.figure("memory of a filter", "bytes", float64(grown)/float64(f.run.cfg.Count))
	}
}

// count enters the probes as messages.
func (f *filterRun) count() {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &f.run.report
	p.Sent, p.Expected = int64(len(f.first)), int64(len(f.first))
	for _, there := range f.first {
		if there {
			p.Delivered++
		}
	}
	p.Lost = p.Expected - p.Delivered
	if n := f.missing.Load(); n > 0 {
		f.run.fail(fmt.Errorf("%d of %d filters are not known at the address that publishes to them", n, len(f.seen)))
	}
}
