package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/prometheus/client_golang/prometheus"
)

// queues keeps what waits for sessions within the cluster's limits. Every node
// counts what it stores; what is given up the leader alone decides, by commands
// in the log.
type queues struct {
	trimmer *fsm.Trimmer // of the chore alone
	dropped *prometheus.CounterVec
	total   atomic.Int64 // dropped, for $SYS

	stamp int64     // of the last entry when the chore looked
	since time.Time // when it was first seen
}

// trimEvery is how long a queue may be over its limit unseen.
const trimEvery = 500 * time.Millisecond

// trimReasons are the values of the label reason.
var trimReasons = [...]string{
	fsm.TrimMessages: "messages", fsm.TrimBytes: "bytes", fsm.TrimAge: "age",
	fsm.TrimTotalMessages: "total_messages", fsm.TrimTotalBytes: "total_bytes",
}

func (n *Node) openQueues(context.Context) error {
	n.queues.trimmer = n.store.NewTrimmer()
	n.queues.dropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mqcluster_queue_dropped_total",
		Help: "Messages that this node, as the leader, had given up because a limit was reached, by limit: of a session (messages, bytes), of age (or expired), of all (total_messages, total_bytes; each message once).",
	}, []string{"reason"})
	for _, reason := range trimReasons {
		if reason != "" {
			n.queues.dropped.WithLabelValues(reason)
		}
	}
	stored := func(name, help string, of func(messages, bytes int64) int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mqcluster_queue_stored_" + name, Help: help}, func() float64 {
			messages, bytes, _ := n.store.Stored()
			return float64(of(messages, bytes))
		})
	}
	for _, c := range []prometheus.Collector{
		n.queues.dropped,
		stored("messages", "Messages that wait for sessions in this node's store, each once.", func(m, _ int64) int64 { return m }),
		stored("bytes", "Bytes of the messages that wait for sessions in this node's store, each once.", func(_, b int64) int64 { return b }),
	} {
		if err := n.reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// trimQueues has queues that are over a limit give up their oldest messages.
func (n *Node) trimQueues(ctx context.Context) {
	if !n.consensus.IsLeader() || !n.consensus.Leased() {
		return
	}
	// Messages grow old where nothing is logged, too.
	q := &n.queues
	if s := n.store.Stamp(); s != q.stamp || q.since.IsZero() {
		q.stamp, q.since = s, time.Now()
	}
	trims, err := q.trimmer.Plan(q.stamp + time.Since(q.since).Milliseconds())
	if err != nil {
		n.log.Warn("the limits of the queues were not looked at; tried again", "err", err)
		return
	}
	for _, t := range trims {
		if err := n.propose(ctx, &logpb.Item{Kind: &logpb.Item_Trim{Trim: t}}); err != nil {
			n.log.Debug("queues over a limit were not trimmed; tried again", "err", err)
			return
		}
		n.traceTrim(t)
		q.total.Add(int64(t.Dropped))
		q.dropped.WithLabelValues(trimReasons[t.Reason]).Add(float64(t.Dropped))
	}
}

// ListSettings implements admin.Settings.
func (b backend) ListSettings(_ context.Context, key string) ([]admin.Setting, error) {
	set := b.n.store.Settings()
	var out []admin.Setting
	for _, k := range fsm.SettingKeys() {
		if key != "" && key != k.Key {
			continue
		}
		s := admin.Setting{Key: k.Key, Value: k.Default, Default: k.Default, Help: k.Help}
		if v, ok := set[k.Key]; ok {
			s.Value, s.Changed = v, true
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, &admin.Error{Kind: admin.NotFound, Msg: fsm.CheckSetting(key, "").Error()}
	}
	return out, nil
}

// settable says in one sentence why a setting may not be set yet: a member that does
// not know it would come to another state.
func settable(key string, members []*logpb.Member) error {
	for _, k := range fsm.SettingKeys() {
		for _, m := range members {
			if k.Key == key && m.Level < k.Level {
				return &admin.Error{Kind: admin.Conflict, Msg: fmt.Sprintf("%s needs feature level %d and node %s is at %d: update every node first", key, k.Level, m.Node, m.Level)}
			}
		}
	}
	return nil
}

// SetSetting implements admin.Settings.
func (b backend) SetSetting(ctx context.Context, r admin.SettingChange) (admin.Change, error) {
	if _, err := b.ListSettings(ctx, r.Key); err != nil {
		return admin.Change{}, err
	}
	put := &logpb.SettingPut{Key: r.Key}
	if !r.Unset {
		if r.Value == "" {
			return admin.Change{}, invalid(errors.New(r.Key + " has no empty value: write one, or take the setting away with mqcluster setting unset " + r.Key))
		}
		if err := fsm.CheckSetting(r.Key, r.Value); err != nil {
			return admin.Change{}, invalid(err)
		}
		put.Value = r.Value
		if err := settable(r.Key, b.n.store.Members()); err != nil {
			return admin.Change{}, err
		}
	}
	return b.change(ctx, &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: put}})
}
