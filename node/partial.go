package node

import (
	"errors"
	"io"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// Parts says what of a backup is to be put into a cluster that runs.
type Parts struct {
	Users, ACLs, Retained bool
	// Filter leaves out retained messages whose topics it does not match; empty
	// takes all.
	Filter string
	// Overwrite has what is otherwise in the cluster become as it is in the backup.
	Overwrite bool
}

// Bounds of one batch, well below what the admin API takes.
const (
	partThings = 500
	partBytes  = 2 << 20
)

// ReadParts reads the stream of a backup whose log time was taken from a reading
// before, and gives its parts away in batches. Whether the stream is whole is known
// only at its end: read it once before.
func ReadParts(in io.Reader, want Parts, logTime time.Time, give func(admin.ImportBatch) error) error {
	batch := admin.ImportBatch{Overwrite: want.Overwrite}
	things, bytes := 0, 0
	flush := func() error {
		if things == 0 {
			return nil
		}
		err := give(batch)
		batch, things, bytes = admin.ImportBatch{Overwrite: want.Overwrite}, 0, 0
		return err
	}
	_, err := backup.Read(in, func(k, v []byte) error {
		p, err := fsm.ReadPart(k, v)
		if err != nil || !want.add(&batch, p, logTime) {
			return err
		}
		things, bytes = things+1, bytes+len(k)+len(v)
		if things < partThings && bytes < partBytes {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// add tells whether p is wanted.
func (w Parts) add(b *admin.ImportBatch, p fsm.Part, logTime time.Time) bool {
	switch {
	case p.User != nil && w.Users:
		b.Users = append(b.Users, admin.ImportUser{Name: p.User.Name, Hash: p.User.Hash, Disabled: p.User.Disabled, Roles: p.User.Roles})
	case p.ACL != nil && w.ACLs:
		acl := admin.Acl{Subject: p.ACL.Subject}
		for _, r := range p.ACL.Rules {
			acl.Rules = append(acl.Rules, auth.Rule{Allow: r.Allow, Action: auth.Action(r.Action), Filter: r.Filter}.String())
		}
		b.Acls = append(b.Acls, acl)
	case p.Retained != nil && w.Retained && (w.Filter == "" || routing.Match(w.Filter, p.Retained.Topic)):
		return w.addRetained(b, p.Retained, logTime)
	default:
		return false
	}
	return true
}

func (w Parts) addRetained(b *admin.ImportBatch, m *session.Message, logTime time.Time) bool {
	out := admin.ImportMessage{Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, QoS: m.QoS, Retain: true}
	if m.ExpiresAt != 0 {
		left := m.ExpiresAt - logTime.UnixMilli()
		if left <= 0 {
			return false
		}
		seconds := uint32((left + 999) / 1000)
		out.Expiry = &seconds
	}
	b.Retained = append(b.Retained, out)
	return true
}
