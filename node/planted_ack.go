//go:build plant_ack_before_commit

package node

import (
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

// planted acknowledges a publish before it is committed: what was under way when
// the node or the leader dies is lost after its PUBACK.
func planted(item *logpb.Item, done func(fsm.Result)) (*logpb.Item, func(fsm.Result)) {
	if item.GetPublish() == nil {
		return item, done
	}
	// The broker uses the item again after done.
	item = proto.CloneOf(item)
	go done(fsm.Result{Matched: true})
	return item, func(fsm.Result) {}
}
