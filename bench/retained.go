package bench

import (
	"context"
	"fmt"
)

// retained publishes Count retained topics of each of Clients publishers, and
// lets a subscriber come who hears them all.
func (r *run) retained(ctx context.Context) error {
	r.layout()
	defer r.close()
	if err := r.openPublishers(ctx); err != nil {
		return err
	}
	defer r.clear()
	stored, err := r.fillPhase(ctx, "store")
	if err != nil {
		return err
	}
	read, err := r.readPhase(ctx, "read", func(ctx context.Context, s *subscriber) error { return s.open(ctx) })
	if err != nil {
		return err
	}
	r.count(stored + read)
	r.report.Latency = nil // how long they lay there says nothing of the broker
	return r.verdict(ctx)
}

// clear removes the retained messages of the run: a run of its own, of empty
// ones.
func (r *run) clear() {
	r.close()
	again := &run{cfg: r.cfg, name: r.name, stop: make(chan struct{}), start: r.start, stall: r.stall}
	again.cfg.Size = 0
	ctx, cancel := context.WithCancel(context.Background()) // also when the run was stopped
	again.cancel = cancel
	defer again.close()
	again.layout()
	again.subs = nil
	if err := again.openPublishers(ctx); err != nil {
		r.fail(fmt.Errorf("remove the retained messages of the run: %w", err))
		return
	}
	again.publishAll(ctx)
	again.watch(ctx, again.published)
	if !again.published() {
		r.fail(fmt.Errorf("remove the retained messages of the run: %d of %d are left", r.acked.Load()-again.acked.Load(), r.acked.Load()))
	}
}
