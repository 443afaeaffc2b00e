//go:build !plant_ack_before_commit && !plant_forget_cursor

package node

import (
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// planted is where the test builds put faults that the history checker must
// find; here there is none.
func planted(item *logpb.Item, done func(fsm.Result)) (*logpb.Item, func(fsm.Result)) {
	return item, done
}
