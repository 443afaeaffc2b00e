//go:build !plant_ack_before_commit

package sim

import (
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// planted is where a test build puts the fault that package node has in its place;
// here there is none. The others are in package fsm.
func planted(item *logpb.Item, done func(fsm.Result)) (*logpb.Item, func(fsm.Result)) {
	return item, done
}
