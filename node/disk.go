package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/mqcluster/mqcluster/consensus"
	"github.com/prometheus/client_golang/prometheus"
)

// disk watches the room on the volume of the data directory.
type disk struct {
	space func() (free, total uint64, err error)
	log   *slog.Logger
	// low and reserve are the marks, in bytes. They are left again an eighth above.
	low, reserve uint64

	mu   sync.Mutex
	free uint64
	room consensus.Room
	told consensus.Room // as logged
}

// errNoSpaceFigure: this system does not tell how full a volume is.
var errNoSpaceFigure = errors.New("the free space of the data directory is not known on this system")

// marks are the low mark and the reserve on a volume of total bytes. Nothing set
// means a default; small volumes get what fits them.
func marks(c StorageConfig, total uint64) (low, reserve uint64) {
	low, reserve = max(1<<30, total/20), 256<<20
	if c.Low > 0 {
		low = uint64(c.Low)
	}
	if c.Reserve > 0 {
		reserve = uint64(c.Reserve)
	}
	low, reserve = min(low, total/2), min(reserve, total/4)
	return max(low, reserve), reserve
}

func newDisk(c StorageConfig, space func() (free, total uint64, err error), log *slog.Logger) (*disk, error) {
	free, total, err := space()
	if err != nil {
		return nil, err
	}
	d := &disk{space: space, log: log, free: free}
	d.low, d.reserve = marks(c, total)
	return d, nil
}

// look reads the volume's figures. It is cheap, and keeps the last ones where
// they cannot be read.
func (d *disk) look() (consensus.Room, uint64) {
	free, _, err := d.space()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		return d.room, d.free
	}
	d.free = free
	above := func(mark uint64, was consensus.Room) bool {
		if d.room >= was {
			mark += mark / 8
		}
		return free >= mark
	}
	switch {
	case !above(d.reserve, consensus.RoomNone):
		d.room = consensus.RoomNone
	case !above(d.low, consensus.RoomLow):
		d.room = consensus.RoomLow
	default:
		d.room = consensus.RoomEnough
	}
	return d.room, free
}

// Room is what consensus asks before it writes.
func (d *disk) Room() consensus.Room {
	if d == nil {
		return consensus.RoomEnough
	}
	room, _ := d.look()
	return room
}

// holds tells whether so many bytes more leave the reserve.
func (d *disk) holds(bytes uint64) bool {
	if d == nil {
		return true
	}
	_, free := d.look()
	return free >= bytes+d.reserve
}

// watch tells changes to the log.
func (d *disk) watch(context.Context) {
	room, free := d.look()
	d.mu.Lock()
	was := d.told
	d.told = room
	d.mu.Unlock()
	if room == was {
		return
	}
	args := []any{"free", Size(free), "low", Size(d.low), "reserve", Size(d.reserve)}
	switch room {
	case consensus.RoomLow:
		d.log.Warn("the disk is nearly full: make room; this node does not lead, and durable publishes are refused where the cluster needs its disk", args...)
	case consensus.RoomNone:
		d.log.Error("the disk is full up to its reserve: make room; this node stores no more entries and serves no clients", args...)
	default:
		d.log.Info("the disk has room again", args...)
	}
}

// openDisk begins to watch the volume, where the system tells of it.
func (n *Node) openDisk(context.Context) error {
	d, err := newDisk(n.cfg.Storage, spaceOf(string(n.dir)), n.log)
	if errors.Is(err, errNoSpaceFigure) {
		n.log.Info("the disk is not watched", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	n.disk = d
	for name, f := range map[string]struct {
		help string
		get  func() float64
	}{
		"storage_free_bytes":    {"Free bytes on the volume of the data directory.", func() float64 { _, free := d.look(); return float64(free) }},
		"storage_low_bytes":     {"The low mark: storage.low.", func() float64 { return float64(d.low) }},
		"storage_reserve_bytes": {"What is kept free: storage.reserve.", func() float64 { return float64(d.reserve) }},
		"storage_room":          {"0: enough room, 1: below the low mark, 2: down to the reserve.", func() float64 { return float64(d.Room()) }},
		"storage_refusing":      {"1 while durable publishes are refused because disks are nearly full.", func() float64 { return boolMetric(n.consensus != nil && n.consensus.Scarce()) }},
	} {
		gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mqcluster_node_" + name, Help: f.help}, f.get)
		if err := n.reg.Register(gauge); err != nil {
			return err
		}
	}
	return nil
}

func boolMetric(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// watchDisk is a chore.
func (n *Node) watchDisk(ctx context.Context) {
	if n.disk != nil {
		n.disk.watch(ctx)
	}
}
