package consensus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// deletions is a log that notes what is deleted of it.
type deletions struct {
	*raft.InmemStore
	ranges []string
	seen   func() // as each begins
}

func (d *deletions) Close() error { return nil }

func (d *deletions) DeleteRange(first, last uint64) error {
	d.seen()
	d.ranges = append(d.ranges, fmt.Sprint(first, "-", last))
	return d.InmemStore.DeleteRange(first, last)
}

// TestDeleteInPieces: the beginning of the log goes in pieces and in order, its end at
// once. Entries are stored beside the beginning's deletion, so that it leaves alone when
// the write under way began.
func TestDeleteInPieces(t *testing.T) {
	const entries = 3*deletePiece + 10
	for _, tt := range []struct {
		first, last uint64
		want        []string
	}{
		{1, 10, []string{"1-10"}},
		{1, deletePiece, []string{"1-2048"}},
		{1, 2*deletePiece + 5, []string{"1-2048", "2049-4096", "4097-4101"}},
		{entries - 2*deletePiece, entries, []string{"2058-6154"}},
		{1, entries, []string{"1-6154"}},
	} {
		log := &deletions{InmemStore: raft.NewInmemStore()}
		for i := range uint64(entries) {
			if err := log.StoreLog(&raft.Log{Index: i + 1}); err != nil {
				t.Fatal(err)
			}
		}
		s := &guardedStore{
			LogStore: log, deadline: time.Minute, fatal: func(err error) { t.Error(err) }, start: time.Now(),
			latency: prometheus.NewHistogram(prometheus.HistogramOpts{}),
			storing: func() func() { return func() {} }, room: func() Room { return RoomEnough },
		}
		const storing = 12345 // ns after start: when the write of an entry began
		s.began.Store(storing)
		log.seen = func() {
			if began := s.began.Load(); tt.last < entries && began != storing {
				t.Errorf("%d to %d: the write under way began at %d, want %d", tt.first, tt.last, began, storing)
			}
		}
		if err := s.DeleteRange(tt.first, tt.last); err != nil || !slices.Equal(log.ranges, tt.want) {
			t.Errorf("%d to %d: %v, %v, want %v", tt.first, tt.last, log.ranges, err, tt.want)
		}
	}
}
