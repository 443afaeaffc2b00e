package node

import (
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// A setting that changes what apply does waits until every member knows it.
func TestSettable(t *testing.T) {
	both := []*logpb.Member{{Node: "n1", Level: 2}, {Node: "n2", Level: 2}}
	older := []*logpb.Member{{Node: "n1", Level: 2}, {Node: "n2", Level: 1}}
	if err := settable("queue.qos0", both); err != nil {
		t.Error(err)
	}
	if err := settable("queue.max_age", older); err != nil {
		t.Error(err)
	}
	if err := settable("queue.qos0", older); err == nil || !strings.Contains(err.Error(), "node n2 is at 1: update every node first") {
		t.Errorf("got %v", err)
	}
}
