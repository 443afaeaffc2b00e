package fsm

import (
	"fmt"
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// BenchmarkRetained reads retained messages of 1,000,000 topics a/<n>/c/<m> of
// 1,000 by 1,000: by an exact filter, by one that matches a topic in 1,000, and
// 1,000 of "#".
func BenchmarkRetained(b *testing.B) {
	const side = 1000
	r := newTape(b)
	_, e := r.connect("a", &logpb.Claim{Client: "p", CleanStart: true})
	for i := range side {
		items := make([]*logpb.Item, side)
		for j := range items {
			items[j] = &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
				Client: "p", Epoch: e, Topic: fmt.Sprintf("a/%d/c/%d", i, j), Payload: []byte("value"), Retain: true,
			}}}
		}
		r.logs, r.events = nil, nil
		r.apply(r.pack("a", items...))
	}
	for _, tt := range []struct {
		filter string
		want   int
	}{{"a/500/c/500", 1}, {"a/+/c/77", side}, {"a/77/#", side}, {"#", side}} {
		b.Run(tt.filter, func(b *testing.B) {
			for b.Loop() {
				v := r.store.View()
				n := 0
				err := v.Retained(tt.filter, nil, v.Pos(), func(session.Pos, *session.Message) bool {
					n++
					return n < tt.want
				})
				if err != nil || n != tt.want {
					b.Fatalf("%d messages, %v", n, err)
				}
				if err := v.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
