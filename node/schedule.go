package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/backup"
	"github.com/prometheus/client_golang/prometheus"
)

// schedule makes backups into a directory. Every node that has one configured makes
// its own: nobody has to be the leader for it, the copies are on several machines,
// and an operator chooses which nodes bear the work. Several nodes, and clusters,
// may share a directory.
type schedule struct {
	cfg    BackupConfig
	prefix string // of this node's files
	log    *slog.Logger
	// make writes a backup to the path and returns its size.
	make func(ctx context.Context, path string) (int64, error)

	failures       prometheus.Counter
	newest         prometheus.Gauge
	size, duration prometheus.Gauge
}

// backupRetry is how long after a failure the next attempt is, if the interval is
// not shorter.
const backupRetry = 5 * time.Minute

// backupTime is the time in the name of a file.
const backupTime = "20060102T150405Z"

const backupSuffix = ".mqb"

func newSchedule(cfg BackupConfig, prefix string, log *slog.Logger, write func(context.Context, string) (int64, error)) *schedule {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "mqcluster_backup_" + name, Help: help})
	}
	return &schedule{
		cfg: cfg, prefix: prefix, log: log, make: write,
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mqcluster_backup_failures_total", Help: "Scheduled backups of this node that failed.",
		}),
		newest:   gauge("last_success_timestamp_seconds", "When this node's newest scheduled backup was begun, 0 for none."),
		size:     gauge("last_bytes", "Size of this node's last scheduled backup."),
		duration: gauge("last_duration_seconds", "How long this node's last scheduled backup took."),
	}
}

// run makes backups until ctx ends. What is due goes by the files that are there,
// so that a restart makes neither one more nor one less.
func (s *schedule) run(ctx context.Context) {
	var retry time.Time
	for {
		due := retry
		if due.IsZero() {
			due = s.due()
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		retry = time.Time{}
		if err := s.once(ctx); err != nil && ctx.Err() == nil {
			retry = time.Now().Add(min(backupRetry, s.cfg.Interval))
			s.failures.Inc()
			s.log.Error("the scheduled backup failed; tried again", "directory", s.cfg.Directory, "at", retry, "err", err)
		}
	}
}

// due is when the next backup is to be made.
func (s *schedule) due() time.Time {
	names, err := s.own(backupSuffix)
	if err != nil || len(names) == 0 {
		return time.Now() // what is wrong is told by the attempt
	}
	at, _ := s.takenAt(names[len(names)-1])
	s.newest.Set(float64(at.Unix()))
	return at.Add(s.cfg.Interval)
}

// own are this node's files that end with a suffix, the oldest first.
func (s *schedule) own(suffix string) (out []string, err error) {
	entries, err := os.ReadDir(s.cfg.Directory)
	if err != nil {
		return nil, fmt.Errorf("list the backups: %w", err)
	}
	for _, e := range entries {
		if _, ok := s.takenAt(strings.TrimSuffix(e.Name(), suffix) + backupSuffix); ok && strings.HasSuffix(e.Name(), suffix) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// takenAt reads the time in the name of an own file.
func (s *schedule) takenAt(name string) (time.Time, bool) {
	text, ok := strings.CutPrefix(name, s.prefix)
	text, is := strings.CutSuffix(text, backupSuffix)
	at, err := time.Parse(backupTime, text)
	return at, ok && is && err == nil
}

// once makes a backup and removes the oldest ones over cfg.Keep: after a failure
// none is removed.
func (s *schedule) once(ctx context.Context) error {
	start := time.Now()
	if err := os.MkdirAll(s.cfg.Directory, 0o700); err != nil {
		return fmt.Errorf("make the directory of the backups: %w; make it, or correct backup.directory", err)
	}
	if err := backup.RemovePartial(s.cfg.Directory, s.prefix); err != nil {
		return err
	}
	name := s.prefix + start.UTC().Format(backupTime) + backupSuffix
	size, err := s.make(ctx, filepath.Join(s.cfg.Directory, name))
	if err != nil {
		return err
	}
	took := time.Since(start)
	s.newest.Set(float64(start.Unix()))
	s.size.Set(float64(size))
	s.duration.Set(took.Seconds())
	s.log.Info("a backup was made", "file", name, "bytes", size, "took", took.Round(time.Millisecond))
	names, err := s.own(backupSuffix)
	for ; err == nil && len(names) > s.cfg.Keep; names = names[1:] {
		err = os.Remove(filepath.Join(s.cfg.Directory, names[0]))
	}
	if err != nil {
		return fmt.Errorf("remove old backups: %w", err)
	}
	return nil
}

// openSchedule begins with the backups that are configured.
func (n *Node) openSchedule(context.Context) error {
	c := n.cfg.Backup
	if c.Directory == "" {
		return nil
	}
	to, err := backup.Recipient(c.Recipient)
	if err != nil {
		return fmt.Errorf("backup.recipient %w", err)
	}
	s := newSchedule(c, n.identity.ClusterID()+"-"+n.cfg.Node.ID+"-", n.log, func(ctx context.Context, path string) (int64, error) {
		return backup.WriteFile(path, func(dst io.Writer) error {
			sealed, err := backup.Seal(dst, to)
			if err != nil {
				return err
			}
			_, err = n.writeBackup(ctx, admin.BackupRequest{}, sealed)
			return errors.Join(err, sealed.Close())
		})
	})
	for _, c := range []prometheus.Collector{s.failures, s.newest, s.size, s.duration} {
		if err := n.reg.Register(c); err != nil {
			return err
		}
	}
	n.wg.Go(func() { s.run(n.ctx) })
	return nil
}
