//go:build plant_forget_cursor

package node

import (
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// planted forgets what a session has acknowledged: the next connection gets its
// messages again.
func planted(item *logpb.Item, done func(fsm.Result)) (*logpb.Item, func(fsm.Result)) {
	if p := item.GetProgress(); p != nil {
		p.Sessions = nil
	}
	if r := item.GetRelease(); r != nil {
		r.Cursor = 0
	}
	if o := item.GetOutbound(); o != nil {
		for _, m := range o.Marks {
			m.State = 1
		}
	}
	return item, done
}
