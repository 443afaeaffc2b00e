//go:build !plant_ack_before_commit && !plant_forget_cursor

package node

import (
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// planted is where the test builds put faults that the history checker must
// find; here there is none.
func planted(_ *logpb.Item, done func(fsm.Result)) func(fsm.Result) { return done }
