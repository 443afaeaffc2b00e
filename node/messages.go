package node

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// checkTopic refuses what nobody may publish to.
func checkTopic(topic string) error {
	if err := routing.ValidTopic(topic); err != nil {
		return invalid(fmt.Errorf("topic %.80q cannot be used: the %w", topic, err))
	}
	if strings.HasPrefix(topic, "$") {
		return invalid(fmt.Errorf("topic %.80q begins with $, which the nodes keep for themselves: use another one", topic))
	}
	return nil
}

// Publish implements admin.Messages.
func (b backend) Publish(ctx context.Context, m admin.Message) (admin.Published, error) {
	if m.Text != "" {
		if len(m.Payload) > 0 {
			return admin.Published{}, invalid(errors.New("payload and text are both there: give one"))
		}
		m.Payload = []byte(m.Text)
	}
	if err := checkTopic(m.Topic); err != nil {
		return admin.Published{}, err
	}
	if err := admin.CheckMessage(m, int(b.n.cfg.Limits.MaxPacketSize)); err != nil {
		return admin.Published{}, err
	}
	if err := b.n.everyoneAt(fsm.LevelAPI, "a message of the API"); err != nil {
		return admin.Published{}, err
	}
	stores := m.QoS > 0 || m.Retain && len(m.Payload) > 0
	if stores && b.n.consensus.Scarce() {
		return admin.Published{}, &admin.Error{Kind: admin.Unavailable, Msg: "the disks of the cluster are nearly full and no message is stored: make room, see mqcluster status"}
	}
	item := publishItem(m)
	item.By = b.n.byAsked(ctx)
	r, err := b.n.proposeResult(ctx, item)
	if err != nil {
		return admin.Published{}, adminError(err)
	}
	if item.By != nil {
		admin.AskedFrom(ctx).Note()
	}
	return admin.Published{Index: r.Pos.Index(), Matched: r.Matched}, nil
}

// publishItem has an operator's message published.
func publishItem(m admin.Message) *logpb.Item {
	return &logpb.Item{Kind: &logpb.Item_AdminPublish{AdminPublish: &logpb.AdminPublish{
		Topic: m.Topic, Payload: m.Payload, Qos: uint32(m.QoS), Retain: m.Retain, Expiry: m.Expiry,
	}}}
}

// pageBytes bounds the payloads of a page.
const pageBytes = 4 << 20

// Retained implements admin.Messages.
func (b backend) Retained(_ context.Context, q admin.RetainedQuery) (page admin.Page[admin.RetainedItem], err error) {
	page.Items = []admin.RetainedItem{}
	after, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil {
		return page, invalid(errors.New("the cursor is not one of this list: begin without one"))
	}
	size, full := 0, false
	err = b.n.eachRetained(cmp.Or(q.Filter, "#"), after, func(m *session.Message) bool {
		if full = len(page.Items) == q.Limit || size > pageBytes; full {
			return false
		}
		size += len(m.Payload)
		page.Items = append(page.Items, retainedMessage(m))
		return true
	})
	if full {
		last := page.Items[len(page.Items)-1].Topic
		page.Next = base64.RawURLEncoding.EncodeToString(routing.AppendTopicKey(nil, last))
	}
	return page, err
}

func retainedMessage(m *session.Message) admin.RetainedItem {
	return admin.RetainedItem{
		Topic: m.Topic, Payload: m.Payload, QoS: int(m.QoS), Publisher: m.Publisher, At: moment(m.Stamp), Expires: moment(m.ExpiresAt),
	}
}

// RetainedAt implements admin.Messages.
func (b backend) RetainedAt(_ context.Context, topic string) (admin.RetainedItem, error) {
	if err := checkTopic(topic); err != nil {
		return admin.RetainedItem{}, err
	}
	v := b.n.store.View()
	m, err := retainedAt(v, topic)
	if err = errors.Join(err, v.Close()); err != nil {
		return admin.RetainedItem{}, err
	}
	if m == nil {
		return admin.RetainedItem{}, &admin.Error{Kind: admin.NotFound, Msg: fmt.Sprintf("topic %q retains no message: see GET /v1/retained", topic)}
	}
	return retainedMessage(m), nil
}

// The pace of a tail: what comes faster is counted and left out.
const (
	tailEvery = 100 * time.Millisecond
	tailBurst = 50
)

// Tail implements admin.Messages.
func (b backend) Tail(ctx context.Context, filter string, yield func(admin.TailEvent) error) error {
	out, missed, stop := b.n.broker.Tap(filter)
	defer stop()
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	left, over := tailBurst, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			over += missed()
			if over > 0 {
				if err := yield(admin.TailEvent{Missed: over}); err != nil {
					return err
				}
			}
			left, over = tailBurst, 0
		case m := <-out:
			if left == 0 {
				over++
				continue
			}
			left--
			if err := yield(tailEvent(m)); err != nil {
				return err
			}
		}
	}
}

func tailEvent(m *session.Message) admin.TailEvent {
	return admin.TailEvent{
		Topic: m.Topic, Payload: m.Payload[:min(len(m.Payload), admin.TailPayload)], Size: len(m.Payload),
		QoS: int(m.QoS), Retain: m.Retain, Publisher: m.Publisher, At: moment(m.Stamp),
	}
}

// topicsUnder asks what clients publish below a topic.
type topicsUnder struct {
	Under string `json:"under"`
	Limit int    `json:"limit"`
}

type topicsAnswer struct {
	Rates    []broker.TopicRate `json:"rates"`
	Measured int64              `json:"measured_ms"`
	Other    float64            `json:"other"`
	More     bool               `json:"more"`
}

func (n *Node) serveTopics(_ context.Context, _ string, r topicsUnder) (a topicsAnswer, _ error) {
	rates, measured, other, more := n.broker.TopicRates(r.Under, r.Limit)
	return topicsAnswer{rates, measured.Milliseconds(), other, more}, nil
}

// topicPayload is how much of a retained message a list of topics shows, in bytes.
const topicPayload = 256

// Topics implements admin.Messages: rates are the sum of what the members count, and
// retained messages are the same on all of them.
func (b backend) Topics(ctx context.Context, q admin.TopicQuery) (list admin.TopicList, err error) {
	if q.Under != "" {
		if err := routing.ValidTopic(q.Under); err != nil || !strings.HasSuffix(q.Under, "/") {
			return list, invalid(fmt.Errorf("under is %.80q: write the beginning of topics, up to a slash", q.Under))
		}
	}
	all := map[string]*admin.Topic{}
	at := func(level string) *admin.Topic {
		t := all[level]
		if t == nil {
			t = &admin.Topic{Level: level, Topic: q.Under + level}
			all[level] = t
		}
		return t
	}
	list = admin.TopicList{Under: q.Under, Items: []admin.Topic{}}
	for _, a := range askAll(ctx, b.n, pathTopics, topicsUnder{q.Under, q.Limit}, b.n.serveTopics) {
		if a.err != nil {
			continue // it is down, which the overview tells
		}
		for _, r := range a.out.Rates {
			t := at(r.Level)
			t.Rate += r.Messages
			t.Bytes += r.Bytes
			t.Below = t.Below || r.Below
		}
		list.Measured = max(list.Measured, a.out.Measured)
		list.Uncounted += a.out.Other
		list.More = list.More || a.out.More
	}
	kept := 0
	err = b.n.store.RetainedLevels(q.Under, func(level string, m *session.Message, below bool) bool {
		if kept++; kept > q.Limit {
			list.More = true
			return false
		}
		t := at(level)
		t.Below = t.Below || below
		if m != nil {
			t.Exists, t.Payload = true, m.Payload[:min(len(m.Payload), topicPayload)]
		}
		return true
	})
	for _, t := range all {
		list.Items = append(list.Items, *t)
	}
	slices.SortFunc(list.Items, func(a, b admin.Topic) int { return cmp.Compare(a.Level, b.Level) })
	if len(list.Items) > q.Limit {
		list.Items, list.More = list.Items[:q.Limit], true
	}
	return list, err
}

// Routes implements admin.Observer.
func (b backend) Routes(_ context.Context, q admin.RouteQuery) (page admin.Page[admin.Route], err error) {
	page.Items = []admin.Route{}
	part, total := strings.ToLower(q.Search), 0
	var found []admin.Route
	for filter, nodes := range b.n.routes.Wanted() {
		if holds(filter, part) && (q.Node == "" || slices.Contains(nodes, q.Node)) {
			total++
			if filter > q.Cursor {
				slices.Sort(nodes)
				found = append(found, admin.Route{Filter: filter, Nodes: nodes})
			}
		}
	}
	slices.SortFunc(found, func(a, b admin.Route) int { return cmp.Compare(a.Filter, b.Filter) })
	page.Items = append(page.Items, found[:min(q.Limit, len(found))]...)
	if len(found) > q.Limit {
		page.Next = page.Items[q.Limit-1].Filter
	}
	page.Total = &total
	return page, nil
}
