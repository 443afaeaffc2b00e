package consensus

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// heldTerm is a log whose next storing of a term waits once hold is set.
type heldTerm struct {
	LogStore
	hold             atomic.Bool
	entered, release chan struct{}
	closed           chan struct{}
}

func (h *heldTerm) SetUint64(k []byte, v uint64) error {
	if !bytes.Equal(k, keyTerm) || !h.hold.Swap(false) {
		return h.LogStore.SetUint64(k, v)
	}
	close(h.entered)
	<-h.release
	select {
	case <-h.closed:
		return nil // raft panics on an error
	default:
		return h.LogStore.SetUint64(k, v)
	}
}

func (h *heldTerm) Close() error {
	close(h.closed)
	return h.LogStore.Close()
}

// A leader that stops hands over, and the heartbeat of its successor makes it store
// the new term, on a goroutine that raft does not wait for.
func TestCloseWaitsForHeartbeats(t *testing.T) {
	held := &heldTerm{entered: make(chan struct{}), release: make(chan struct{}), closed: make(chan struct{})}
	c := newClusterWith(t, 3, nil, func(node string, d *Deps) {
		if node != "n2" {
			return
		}
		log, err := openLog(t.TempDir(), 256<<10)
		if err != nil {
			t.Fatal(err)
		}
		held.LogStore = log
		d.Storage = &Storage{Log: held, Snapshots: raft.NewInmemSnapshotStore()}
	})
	c.leased()
	successor, n := c.nodes[0], c.nodes[1]
	held.hold.Store(true)
	beat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(successor.name, successor.cfg.Store)), Addr: []byte(successor.layer.self),
	}, Term: n.raft.CurrentTerm() + 1}
	sent := make(chan error, 1)
	network := successor.trans.NetworkTransport
	go func() {
		sent <- network.AppendEntries(serverID(n.name, n.cfg.Store), n.layer.self, beat, &raft.AppendEntriesResponse{})
	}()
	<-held.entered
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.halt(false)
	}()
	select {
	case <-held.closed:
		t.Error("the log was closed while a heartbeat stored a term")
	case <-time.After(300 * time.Millisecond):
	}
	close(held.release)
	<-stopped
	<-sent
}

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
