package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/consensus"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// Backup implements admin.Backups.
func (b backend) Backup(ctx context.Context, r admin.BackupRequest, w io.Writer) error {
	_, err := b.n.writeBackup(ctx, r, w)
	return adminError(err)
}

// writeBackup writes the state at one log index as a stream. Everything that was
// acknowledged anywhere in the cluster before it was called is in it, unless
// r.Stale. Apply goes on meanwhile and waits for nothing of it.
func (n *Node) writeBackup(ctx context.Context, r admin.BackupRequest, w io.Writer) (backup.Whole, error) {
	var whole backup.Whole
	ca, err := n.backupCA(r)
	if err != nil {
		return whole, err
	}
	if err := n.barrier(ctx); err != nil && !r.Stale {
		return whole, err
	}
	state, err := n.store.Copy()
	if err != nil {
		return whole, err
	}
	defer func() {
		if err := state.Close(); err != nil {
			n.log.Warn("close the copy of the state that was backed up", "err", err)
		}
	}()
	whole.Header = n.backupHeader(state)
	buffered := bufio.NewWriterSize(w, 256<<10)
	out, err := backup.NewWriter(buffered, whole.Header)
	if err != nil {
		return whole, err
	}
	if err := state.Each(n.careful(ctx, out.Put)); err != nil {
		return whole, fmt.Errorf("write the backup: %w", err)
	}
	if ca != nil {
		if err := out.PutCA(*ca); err != nil {
			return whole, err
		}
	}
	if whole.Contents, err = out.End(); err != nil {
		return whole, err
	}
	return whole, buffered.Flush()
}

// barrier returns when this node has applied everything that was acknowledged
// before: what is proposed now comes behind it.
func (n *Node) barrier(ctx context.Context) error {
	_, err := n.proposeResult(ctx, &logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{}}})
	if err != nil {
		return faultf(http.StatusServiceUnavailable, "whether this node has everything that was acknowledged cannot be told without a leader (%s): try again, ask a node with a quorum, or take what it has with --stale", err)
	}
	return nil
}

func (n *Node) backupHeader(state *fsm.Copy) backup.Header {
	h := backup.Header{
		ClusterID: n.identity.ClusterID(), ClusterName: state.Settings[settingClusterName],
		Node: n.cfg.Node.ID, Version: n.deps.Version, Level: fsm.Level,
		Index: state.Applied, LogTime: time.UnixMilli(state.Stamp).UTC(), Taken: time.Now().UTC().Truncate(time.Second),
	}
	for _, m := range state.Members {
		h.Nodes = append(h.Nodes, m.Node)
	}
	return h
}

// backupCA is the authority if it is asked for.
func (n *Node) backupCA(r admin.BackupRequest) (*backup.CA, error) {
	if !r.CAKey {
		return nil, nil
	}
	// In a rotation it is the old one: every device trusts that.
	ca, err := n.keyring.get(n.caRecord().Nodes)
	if err != nil {
		return nil, faultf(http.StatusConflict, "this node does not have the key of the CA, or cannot open it (%s): ask a node that votes", err)
	}
	out := new(backup.CA)
	out.Cert, out.Key, err = ca.PEM()
	return out, err
}

// Between two looks at the disk so many records, or bytes, are written at most.
const (
	looksEvery = 4096
	looksBytes = 1 << 20
)

// careful has put stop when ctx ends, and when the disk of this node, on which the
// backup may lie, gets fuller by a mark: the cluster needs what is left.
func (n *Node) careful(ctx context.Context, put func(k, v []byte) error) func(k, v []byte) error {
	began, records, bytes := n.disk.Room(), 0, 0
	return func(k, v []byte) error {
		records, bytes = records+1, bytes+len(k)+len(v)
		if records >= looksEvery || bytes >= looksBytes {
			records, bytes = 0, 0
			if err := ctx.Err(); err != nil {
				return err
			}
			if room := n.disk.Room(); room > began || room == consensus.RoomNone {
				return faultf(http.StatusServiceUnavailable, "the disk of node %s is nearly full, and the node needs what is left: make room, or write the backup to another disk", n.cfg.Node.ID)
			}
		}
		return put(k, v)
	}
}
