package consensus

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

// TestFollowerTakesStaleEntriesForCommitted is the reason for vouch, shown on raft's
// own follower: an append without entries, whose commit index lies behind the entry
// that it names as previous, makes the follower commit whatever it has there. Of an
// old leader that comes back that is what nobody else has. If it fails with a newer
// raft, vouch is needed no more.
func TestFollowerTakesStaleEntriesForCommitted(t *testing.T) {
	t.Parallel()
	const shared, stale, commit = 4, 7, 6 // last index that all have; that it alone has; of the new leader
	for _, tt := range []struct {
		name    string
		vouched bool
		want    uint64
	}{{"as raft 1.7.3 sends it", false, commit}, {"vouched for", true, shared}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeFSM("n1")
			f.observe = func(fsm.Event) {}
			from, follower := staleFollower(t, f, shared, stale)
			req := &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("n2/s"), Addr: []byte("n2")},
				Term:      3, PrevLogEntry: shared, PrevLogTerm: 1, LeaderCommitIndex: commit,
			}
			if tt.vouched {
				vouch(req)
			}
			var resp raft.AppendEntriesResponse
			if err := from.AppendEntries("n1/s", "n1", req, &resp); err != nil || !resp.Success {
				t.Fatalf("%+v, %v", resp, err)
			}
			if got := follower.CommitIndex(); got != tt.want {
				t.Errorf("the follower's commit index is %d, want %d", got, tt.want)
			}
			eventually(t, "what it takes for committed is applied", func() bool { return f.ticks() == int(tt.want)-1 })
		})
	}
}

// staleFollower starts raft's follower whose log holds entries of term 1 up to
// shared and of term 2 up to stale, and a transport that reaches it.
func staleFollower(t *testing.T, f *fakeFSM, shared, stale uint64) (raft.Transport, *raft.Raft) {
	t.Helper()
	store := raft.NewInmemStore()
	conf := raft.Configuration{}
	for _, n := range []string{"n1", "n2", "n3"} {
		conf.Servers = append(conf.Servers, raft.Server{ID: serverID(n, "s"), Address: raft.ServerAddress(n), Suffrage: raft.Voter})
	}
	tick, err := proto.Marshal(&logpb.Entry{Stamp: 1, Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	if err != nil {
		t.Fatal(err)
	}
	logs := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)}}
	for i := uint64(2); i <= stale; i++ {
		term := uint64(1)
		if i > shared {
			term = 2
		}
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: tick})
	}
	if err := store.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := store.SetUint64(keyTerm, 2); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Node: "n1", Store: "s", HeartbeatTimeout: time.Minute, ElectionTimeout: time.Minute, LeaderLease: time.Minute, CommitTimeout: time.Second,
		SnapshotInterval: time.Hour, SnapshotThreshold: 1000, TrailingLogs: 1000}
	rc := raftConfig(&cfg)
	rc.Logger = hclogDiscard()
	_, near := raft.NewInmemTransport("n1")
	_, far := raft.NewInmemTransport("n2")
	far.Connect("n1", near)
	r, err := raft.NewRaft(rc, f, store, store, raft.NewInmemSnapshotStore(), near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown().Error() })
	return far, r
}
