//go:build plant_ack_before_commit

package sim

import (
	"google.golang.org/protobuf/proto"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// planted acknowledges a publish before it is committed.
func planted(item *logpb.Item, done func(fsm.Result)) (*logpb.Item, func(fsm.Result)) {
	if item.GetPublish() == nil {
		return item, done
	}
	// The broker uses the item again after done.
	item = proto.CloneOf(item)
	go done(fsm.Result{Matched: true})
	return item, func(fsm.Result) {}
}
