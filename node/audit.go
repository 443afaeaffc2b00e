package node

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// auditTime bounds how long an answer waits until the audit has the change.
const auditTime = 5 * time.Second

// Bounds of what the audit keeps of one change; the log itself has its own.
const (
	maxAuditSubject = 256
	maxAuditDetail  = 1024
)

// identityLevel tells whether all members know, or have known once, what this
// version puts into the log for bans, the audit and rights.
func (n *Node) identityLevel() bool { return n.store.Reached() >= fsm.LevelIdentity }

// reached says in one sentence why something may not be proposed before that.
func (n *Node) reached(what string) error {
	if n.identityLevel() {
		return nil
	}
	if err := n.everyoneAt(fsm.LevelIdentity, what); err != nil {
		return err
	}
	return &admin.Error{Kind: admin.Unavailable, Msg: what + " has to wait until this node knows its cluster: try again"}
}

// byAsked is who asked for the change of a request, nil outside of one and before
// all members know of it.
func (n *Node) byAsked(ctx context.Context) *logpb.By {
	a := admin.AskedFrom(ctx)
	if a == nil {
		return nil
	}
	return n.byNode(a.Actor, a.Operation, a.Subject, a.Detail)
}

// byNode is who asked this node for something, nil before all members know of it.
func (n *Node) byNode(actor, operation, subject, detail string) *logpb.By {
	if !n.identityLevel() {
		return nil
	}
	valid := func(s string, most int) string { return auth.Shorten(strings.ToValidUTF8(s, "\uFFFD"), most) }
	return &logpb.By{
		Actor: valid(actor, maxAuditSubject), Node: n.cfg.Node.ID, Operation: valid(operation, maxAuditSubject),
		Subject: valid(subject, maxAuditSubject), Detail: valid(detail, maxAuditDetail),
	}
}

// Audited implements admin.Auditor.
func (b backend) Audited(ctx context.Context, a *admin.Asked, refused error) {
	n := b.n
	outcome := ""
	if refused != nil {
		outcome = auth.Shorten(strings.ToValidUTF8(refused.Error(), "\uFFFD"), maxAuditDetail)
	}
	by := n.byNode(a.Actor, a.Operation, a.Subject, a.Detail)
	n.syslog.send(a, outcome)
	if e, ok := errors.AsType[*admin.Error](refused); a.Noted() || by == nil || ok && e.Kind == admin.Unavailable {
		return // what the log did not take now it would not take as a record either
	}
	// The request may be over, and the audit is not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	item := &logpb.Item{Kind: &logpb.Item_AuditPut{AuditPut: &logpb.AuditPut{By: by, Outcome: outcome}}}
	if err := n.propose(ctx, item); err != nil {
		n.log.Warn("a change is not in the audit of the cluster", "operation", a.Operation, "subject", a.Subject, "actor", a.Actor, "err", err)
	}
}

// The bounds of a listing.
const (
	auditLimit = 100
	auditMost  = 10_000
)

// ListAudit implements admin.Auditor.
func (b backend) ListAudit(_ context.Context, q admin.AuditQuery) ([]admin.AuditRecord, error) {
	if q.Limit <= 0 {
		q.Limit = auditLimit
	}
	q.Limit = min(q.Limit, auditMost)
	var out []admin.AuditRecord
	err := b.n.store.Audit(func(r *logpb.Audit) bool {
		by := r.By
		if r.Stamp < q.Since.UnixMilli() && !q.Since.IsZero() {
			return false
		}
		if strings.Contains(by.GetActor(), q.Actor) && strings.HasPrefix(by.GetOperation(), q.Operation) &&
			strings.Contains(by.GetSubject(), q.Subject) && (!q.Refused || r.Outcome != "") {
			out = append(out, admin.AuditRecord{
				Index: r.Pos, At: time.UnixMilli(r.Stamp), Actor: by.GetActor(), Node: by.GetNode(), Operation: by.GetOperation(),
				Subject: by.GetSubject(), Detail: by.GetDetail(), Refused: r.Outcome,
			})
		}
		return len(out) < q.Limit
	})
	return out, err
}
