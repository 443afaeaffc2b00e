package bench

import (
	"context"
	"fmt"
	"time"
)

// offline queues messages for sessions that are away and then lets them come
// back: Count for each of them, or as Broadcast the same Count for all.
func (r *run) offline(ctx context.Context) error {
	r.cfg.Persistent = true
	r.report.Setup.Persistent = true
	r.layout()
	defer r.close()
	if err := r.openSubscribers(ctx); err != nil {
		return err
	}
	defer r.forget()
	if err := r.leave(); err != nil {
		return err
	}
	if err := r.openPublishers(ctx); err != nil {
		return err
	}
	queued, err := r.fillPhase(ctx, "queue")
	if err != nil {
		return err
	}
	replayed, err := r.readPhase(ctx, "replay", func(ctx context.Context, s *subscriber) error { return s.resume(ctx) })
	if err != nil {
		return err
	}
	r.count(queued + replayed)
	r.report.Latency = nil // how long they were away says nothing of the broker
	return r.verdict(ctx)
}

// fillPhase publishes everything while nobody reads, and then runs Between. It
// returns how long the publishing took.
func (r *run) fillPhase(ctx context.Context, name string) (time.Duration, error) {
	before, err := sample(r.cfg.PIDs)
	if err != nil {
		return 0, err
	}
	r.begin()
	r.publishAll(ctx)
	r.watch(ctx, r.published)
	took := time.Duration(r.now())
	after, err := sample(r.cfg.PIDs)
	if err != nil {
		return 0, err
	}
	r.phase(name, r.acked.Load(), took, cpuPer(before, after, r.acked.Load()))
	r.filled = before
	if r.cfg.Between == nil || !r.published() || r.stopped.Load() {
		return took, nil
	}
	if err := r.cfg.Between(ctx); err != nil {
		return 0, fmt.Errorf("between publishing and reading: %w", err)
	}
	return took, nil
}

// readPhase lets every subscriber come, by open, and waits until all of them
// have everything. Each reads as soon as it is there.
func (r *run) readPhase(ctx context.Context, name string, open func(context.Context, *subscriber) error) (time.Duration, error) {
	before, err := sample(r.cfg.PIDs)
	if err != nil {
		return 0, err
	}
	r.workers.Go(func() { keepAlives(ctx, r.subscriberLinks) })
	from := r.now()
	err = forEach(ctx, len(r.subs), openers, func(ctx context.Context, i int) error {
		s := r.subs[i]
		if err := open(ctx, s); err != nil {
			return err
		}
		r.mu.Lock()
		r.there = append(r.there, s.link)
		r.mu.Unlock()
		r.workers.Go(func() { r.fail(s.receive()) })
		return nil
	})
	if err != nil {
		return 0, err
	}
	r.watch(ctx, func() bool { return r.delivered.Load() >= r.expected() })
	after, err := sample(r.cfg.PIDs)
	if err != nil {
		return 0, err
	}
	took := time.Duration(r.lastArrival.Load() - from)
	r.close()
	r.phase(name, r.delivered.Load(), took, cpuPer(before, after, r.delivered.Load()))
	r.report.spent(r.filled, after, r.delivered.Load())
	return took, nil
}

// subscriberLinks calls yield for the subscribers that readPhase has opened.
func (r *run) subscriberLinks(yield func(*link) bool) {
	r.mu.Lock()
	there := r.there[:len(r.there):len(r.there)]
	r.mu.Unlock()
	for _, l := range there {
		if !yield(l) {
			return
		}
	}
}

// leave closes the subscribers' connections and keeps their sessions.
func (r *run) leave() error {
	for _, s := range r.subs {
		if _, err := s.link.Write([]byte{packetDisconnect << 4, 0}); err != nil {
			return fmt.Errorf("subscriber %s cannot leave: %w", s.id, err)
		}
		s.link.Close()
		s.link = nil
	}
	return nil
}

func (r *run) phase(name string, n int64, took time.Duration, cpu float64) {
	p := Phase{Name: name, Messages: n, Seconds: took.Seconds(), CPUPerMessage: cpu}
	if p.Seconds > 0 {
		p.Rate = float64(n) / p.Seconds
	}
	r.report.Phases = append(r.report.Phases, p)
}
