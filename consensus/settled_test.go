package consensus

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func TestCutToWhatFollowsTheSnapshot(t *testing.T) {
	entries := func(from, to uint64) (list []*raft.Log) {
		for i := from; i <= to; i++ {
			list = append(list, &raft.Log{Index: i, Term: 2})
		}
		return list
	}
	for _, c := range []struct {
		name       string
		prev, term uint64
		entries    []*raft.Log
		wantPrev   uint64
		want       []*raft.Log
	}{
		{"behind it", 17, 2, entries(18, 19), 17, entries(18, 19)},
		{"right behind it", 16, 2, entries(17, 18), 0, entries(17, 18)},
		{"right behind it, nothing", 16, 2, nil, 0, nil},
		{"across it", 14, 2, entries(15, 18), 0, entries(17, 18)},
		{"before it", 10, 2, entries(11, 13), 0, []*raft.Log{}},
		{"a heartbeat", 0, 0, nil, 0, nil},
		{"of another history", 16, 3, entries(17, 17), 16, entries(17, 17)},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := &raft.AppendEntriesRequest{PrevLogEntry: c.prev, PrevLogTerm: c.term, Entries: c.entries}
			(&point{16, 2}).cut(req)
			if req.PrevLogEntry != c.wantPrev || !cmp.Equal(req.Entries, c.want) {
				t.Errorf("behind entry %d: %v, want %d: %v", req.PrevLogEntry, req.Entries, c.wantPrev, c.want)
			}
		})
	}
}

// TestKnownSnapshot: a snapshot of what a node has is not installed; its data is
// read all the same, because the next request comes after it.
func TestKnownSnapshot(t *testing.T) {
	log := raft.NewInmemStore()
	if err := log.StoreLogs([]*raft.Log{{Index: 17, Term: 2}, {Index: 18, Term: 2}}); err != nil {
		t.Fatal(err)
	}
	s := settled{applied: func() uint64 { return 16 }, term: func() (uint64, error) { return 3, nil }, log: log}
	for _, c := range []struct {
		name              string
		term, index, last uint64
		answered, ok      bool
	}{
		{"applied", 3, 16, 2, true, true},
		{"older", 3, 4, 1, true, true},
		{"in the log", 3, 18, 2, true, true},
		{"in the log, of another history", 3, 18, 3, false, false},
		{"new", 3, 19, 2, false, false},
		{"of an old leader", 2, 16, 2, false, false},
		{"of a leader not heard of", 4, 16, 2, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := strings.NewReader("snapshot")
			answer := make(chan raft.RPCResponse, 1)
			req := &raft.InstallSnapshotRequest{Term: c.term, LastLogIndex: c.index, LastLogTerm: c.last}
			if got := s.answered(raft.RPC{Command: req, Reader: data, RespChan: answer}); got != c.answered {
				t.Fatalf("answered: %t", got)
			}
			if !c.answered {
				return
			}
			r := <-answer
			resp, _ := r.Response.(*raft.InstallSnapshotResponse)
			if ok := r.Error == nil && resp.Success && resp.Term == 3; ok != c.ok || data.Len() != 0 {
				t.Errorf("%+v, %v, %d bytes are left", resp, r.Error, data.Len())
			}
		})
	}
	s.term = func() (uint64, error) { return 0, errors.New("the disk") }
	answer := make(chan raft.RPCResponse, 1)
	s.answered(raft.RPC{Command: &raft.InstallSnapshotRequest{Term: 3}, Reader: strings.NewReader(""), RespChan: answer})
	if r := <-answer; r.Error == nil {
		t.Error("confirmed without knowing the term")
	}
}
