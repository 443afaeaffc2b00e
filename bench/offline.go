package bench

import (
	"context"
	"fmt"
	"time"
)

// offline queues Count messages for each of Clients sessions that are away, and
// then lets them come back.
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
	first, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	r.begin()
	r.publishAll(ctx)
	r.watch(ctx, r.published)
	queued := time.Duration(r.now())
	second, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	r.phase("queue", r.acked.Load(), queued, cpuPer(first, second, r.acked.Load()))

	resumed := r.now()
	err = forEach(ctx, len(r.subs), openers, func(ctx context.Context, i int) error { return r.subs[i].resume(ctx) })
	if err != nil {
		return err
	}
	r.receiveAll()
	r.watch(ctx, func() bool { return r.delivered.Load() >= r.expected() })
	third, err := sample(r.cfg.PIDs)
	if err != nil {
		return err
	}
	replayed := time.Duration(r.lastArrival.Load() - resumed)
	r.close()
	r.phase("replay", r.delivered.Load(), replayed, cpuPer(second, third, r.delivered.Load()))
	r.report.spent(first, third, r.delivered.Load())
	r.count(queued + replayed)
	r.report.Latency = nil // how long they were away says nothing of the broker
	return r.verdict(ctx)
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
