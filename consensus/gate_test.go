package consensus

import (
	"testing"

	"github.com/hashicorp/raft"
)

// An append tells a follower of no commit beyond the entries that it carries or
// names as previous: what the follower has behind those may be another leader's.
func TestVouch(t *testing.T) {
	for _, tt := range []struct {
		name         string
		prev         uint64
		entries      int
		commit, want uint64
	}{
		{"within", 10, 5, 12, 12},
		{"all", 10, 5, 15, 15},
		{"beyond", 10, 5, 40, 15},
		{"empty, beyond", 10, 0, 40, 10},
		{"from the first", 0, 3, 40, 3},
		{"heartbeat", 0, 0, 0, 0},
	} {
		req := &raft.AppendEntriesRequest{PrevLogEntry: tt.prev, LeaderCommitIndex: tt.commit, Entries: make([]*raft.Log, tt.entries)}
		if vouch(req); req.LeaderCommitIndex != tt.want {
			t.Errorf("%s: commit index %d, want %d", tt.name, req.LeaderCommitIndex, tt.want)
		}
	}
}
