package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// dropBehind deletes a log that ends before the newest snapshot: the process ended
// when it had a snapshot of the leader's and not deleted the log yet. What raft
// stores next comes after the snapshot, and would follow with a gap. It is durable
// on return.
func dropBehind(log raft.LogStore, snaps raft.SnapshotStore) error {
	list, err := snaps.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	last, err := log.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if len(list) == 0 || last == 0 || last >= list[0].Index {
		return nil
	}
	first, err := log.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if err := log.DeleteRange(first, last); err != nil {
		return fmt.Errorf("delete the log behind snapshot %s: %w", list[0].ID, err)
	}
	return nil
}
