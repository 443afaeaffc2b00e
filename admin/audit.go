package admin

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// Auditor keeps who changed what.
type Auditor interface {
	// Audited is called after each change that was asked for, with why it was not
	// made, if so. It must be quick; ctx is that of the request.
	Audited(ctx context.Context, a *Asked, err error)
	// ListAudit returns records, the newest first.
	ListAudit(ctx context.Context, q AuditQuery) ([]AuditRecord, error)
}

// Asked is a change that somebody asked for. It has no secret in it.
type Asked struct {
	Actor     string // such as "uid 0 (root)", "token ci" or "certificate jo"
	Operation string // such as "user/add"
	Subject   string // whom or what it is about
	Detail    string // what is to be changed
	// noted: the change is in the log together with who asked for it.
	noted atomic.Bool
}

// Note tells that the log has the change together with who asked for it, so that it
// need not be audited again.
func (a *Asked) Note() { a.noted.Store(true) }

// Noted tells whether Note was called.
func (a *Asked) Noted() bool { return a.noted.Load() }

type askedKey struct{}

type actorKey struct{}

// WithActor returns a context whose changes are audited as the actor's.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// AskedFrom returns what was asked for in a request, nil outside of one.
func AskedFrom(ctx context.Context) *Asked {
	a, _ := ctx.Value(askedKey{}).(*Asked)
	return a
}

// withPeer notes who is at the other end of a connection of the socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if actor := peerOf(c); actor != "" {
		return WithActor(ctx, actor)
	}
	return ctx
}

// asked begins the audit of a request.
func asked(ctx context.Context, op string, request any) (context.Context, *Asked) {
	a := &Asked{Actor: actorOf(ctx), Operation: op, Subject: subject(request), Detail: detail(request)}
	return context.WithValue(ctx, askedKey{}, a), a
}

// actorOf is who makes the request of ctx.
func actorOf(ctx context.Context) string {
	if p, ok := ctx.Value(principalKey{}).(Principal); ok {
		return p.actor() // who came by the network
	}
	if actor, _ := ctx.Value(actorKey{}).(string); actor != "" {
		return actor
	}
	return "unknown"
}

// detail is what a request is to change, without passwords, hashes and keys.
func detail(request any) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch r := request.(type) {
	case UserAdd:
		if len(r.Password) > 0 {
			add("password")
		}
		add("roles %s", strings.Join(r.Roles, ","))
	case UserSet:
		if len(r.Password) > 0 {
			add("password")
		}
		if r.Disabled != nil {
			add("disabled %v", *r.Disabled)
		}
		if r.Roles != nil {
			add("roles %s", strings.Join(*r.Roles, ","))
		}
		if r.Quota != nil {
			add("limits %+v", *r.Quota)
		}
	case userPutQuery:
		return detail(UserSet{Password: r.As.Password, Disabled: r.As.Disabled, Roles: r.As.Roles})
	case aclPutQuery:
		return detail(Acl{Rules: r.As.Rules})
	case subjectQuery:
		return detail(Acl{})
	case drainQuery:
		add("%d clients a second, within %d s", r.How.Rate, r.How.Timeout)
	case nodeQuery:
		return detail(DrainRequest{Off: true})
	case apiTokenQuery:
		add("%s for %s", r.Token.Role, r.Token.TTL)
	case Acl:
		add("%d rules: %s", len(r.Rules), strings.Join(r.Rules, "; "))
	case AclRollback:
		add("to version %d", r.Version)
	case banPutQuery:
		return detail(r.request())
	case BanRequest:
		if r.Lifetime > 0 {
			add("for %s", r.Lifetime)
		}
		add("%s", r.Reason)
	case TokenRequest:
		add("uses %d, for %s", r.Uses, r.TTL)
	case CertRequest:
		add("%s for %s", r.Algorithm, r.Lifetime)
	case SettingChange:
		if r.Unset {
			add("unset")
		} else {
			add("to %s", r.Value)
		}
	case LeaveRequest:
		add("force %v", r.Force)
	case DrainRequest:
		add("off %v, stop %v", r.Off, r.Stop)
	case BackupRequest:
		add("with the CA key %v", r.CAKey)
	case ImportBatch:
		add("%d users, %d ACLs, %d retained messages, %d sessions", len(r.Users), len(r.Acls), len(r.Retained), len(r.Sessions))
	}
	return strings.Join(parts, ", ")
}

// AuditQuery chooses records. What is empty chooses all; Limit 0 is 100.
type AuditQuery struct {
	Actor     string    `json:"actor,omitempty"`     // a part of it
	Operation string    `json:"operation,omitempty"` // how it begins, such as user
	Subject   string    `json:"subject,omitempty"`   // a part of it
	Since     time.Time `json:"since,omitzero"`
	Refused   bool      `json:"refused,omitempty"` // only what was not done
	Limit     int       `json:"limit,omitempty"`
}

// AuditRecord is one change, or an attempt.
type AuditRecord struct {
	Index     uint64    `json:"index"` // its place in the log; no two have the same
	At        time.Time `json:"at"`    // by the log's clock
	Actor     string    `json:"actor"`
	Node      string    `json:"node"` // that was asked
	Operation string    `json:"operation"`
	Subject   string    `json:"subject"`
	Detail    string    `json:"detail"`
	// Refused is why it was not done; empty: it was.
	Refused string `json:"refused,omitempty"`
}

// auditPage asks for a page of the audit.
type auditPage struct {
	Search    string `query:"q" doc:"only what has this in who asked, what for, or whom it was about"`
	Operation string `query:"operation" doc:"only operations that begin like this, such as user or acl/set"`
	Refused   bool   `query:"refused" doc:"true: only what was refused"`
	Cursor    string `query:"cursor" doc:"next of the page before"`
	Limit     int    `query:"limit" doc:"length of a page, 1000 at most; 100 if left out"`
}

// auditWhole is more than the log keeps.
const auditWhole = 1 << 20

func (s *Server) auditResources(m *mux, b Backend) {
	a := b.Auditor
	if a == nil {
		return
	}
	handleResource(s, m, get("/v1/audit", tagAccess, "Who asked for which change, the newest first."), func(ctx context.Context, q auditPage) (Page[AuditRecord], error) {
		all, err := a.ListAudit(ctx, AuditQuery{Operation: q.Operation, Refused: q.Refused, Limit: auditWhole})
		if err != nil {
			return Page[AuditRecord]{}, err
		}
		// The newest has the least key, so that what is added meanwhile moves no page.
		key := func(r AuditRecord) string { return fmt.Sprintf("%016x", ^r.Index) }
		return paged(all, q.Cursor, q.Limit, key, func(r AuditRecord) bool {
			return contains(r.Actor, q.Search) || contains(r.Operation, q.Search) || contains(r.Subject, q.Search)
		})
	})
}

// ListAudit is Auditor.ListAudit.
func (c *Client) ListAudit(ctx context.Context, q AuditQuery) ([]AuditRecord, error) {
	return call[[]AuditRecord](ctx, c, opAuditList, q)
}
