package main

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/mqcluster/mqcluster/bench"
)

// watchEvery is how often the metrics of a watched node are read: fifteen times as
// often as most do.
const watchEvery = time.Second

// startWatched starts one node, whose metrics are read all the time while a trace
// follows the messages of one pair. Next to "one" it shows what being watched costs
// the node; what reads and follows is not counted.
func (s *starter) startWatched(ctx context.Context, name, root string) (bench.Target, error) {
	t, err := s.startCluster(ctx, name, root, 1)
	if err != nil {
		return t, err
	}
	n := s.last[name]
	if _, err := s.spawn(name, filepath.Join(root, "trace.log"), s.mqcluster, "trace", "--filter", "b/+/7", "--data-dir", n.dir); err != nil {
		return t, err
	}
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-n.proc.done:
				return
			case <-tick.C:
				resp, err := http.Get("http://" + n.health + "/metrics")
				if err != nil {
					continue // it ends, or is too busy to answer in time
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
	}()
	return t, nil
}
