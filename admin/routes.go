package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"
)

// The operations of the API. Each is a POST of one JSON value to /v1/NAME; those
// that change nothing also take a GET without a body.
const (
	opStatus      = "status"
	opLeave       = "leave"
	opDrain       = "drain"
	opBalance     = "balance"
	opTokenCreate = "token/create"
	opTokenList   = "token/list"
	opTokenRevoke = "token/revoke"
	opUserAdd     = "user/add"
	opUserSet     = "user/set"
	opUserRemove  = "user/remove"
	opUserImport  = "user/import"
	opUserList    = "user/list"
	opAclSet      = "acl/set"
	opAclList     = "acl/list"
	opAclExplain  = "acl/explain"
	opAclTest     = "acl/test"
	opAclHistory  = "acl/history"
	opAclRollback = "acl/rollback"
	opBanAdd      = "ban/add"
	opBanList     = "ban/list"
	opBanRemove   = "ban/remove"
	opAuditList   = "audit/list"
	opCertIssue   = "cert/issue"
	opCertList    = "cert/list"
	opCertRevoke  = "cert/revoke"
	opCA          = "cert/ca"
	opSessionList = "session/list"
	opSessionEnd  = "session/end"
	opClockShow   = "clock/show"
	opClockStep   = "clock/step"
	opSettingList = "setting/list"
	opSettingSet  = "setting/set"
	opImport      = "import"
	opCAStatus    = "ca/status"
	opCARotate    = "ca/rotate"
	opCARetire    = "ca/retire"
	opCheckup     = "checkup"
)

// maxBody is the largest request and response, in bytes: a very long ACL, or
// some 100,000 users.
const maxBody = 16 << 20

// named is a request that is one name.
type named struct {
	Name string `json:"name"`
}

// pemText is a response that is PEM.
type pemText struct {
	PEM []byte `json:"pem"`
}

// nothing is a request without content.
type nothing struct{}

// apiHandler serves the operations of b.
func (s *Server) apiHandler(b Backend) *mux {
	mux := newMux()
	s.resources(mux, b)
	if c := b.Cluster; c != nil {
		read(s, mux, opStatus, func(ctx context.Context, _ nothing) (Status, error) { return c.Status(ctx) })
		change(s, mux, opLeave, c.Leave)
		change(s, mux, opDrain, c.Drain)
	}
	if e := b.Balance; e != nil {
		change(s, mux, opBalance, func(ctx context.Context, _ nothing) ([]Share, error) { return e.Balance(ctx) })
	}
	if t := b.Tokens; t != nil {
		change(s, mux, opTokenCreate, t.CreateToken)
		read(s, mux, opTokenList, func(ctx context.Context, _ nothing) ([]TokenInfo, error) { return t.ListTokens(ctx) })
		change(s, mux, opTokenRevoke, func(ctx context.Context, r named) (Change, error) { return t.RevokeToken(ctx, r.Name) })
	}
	if u := b.Users; u != nil {
		change(s, mux, opUserAdd, func(ctx context.Context, r UserAdd) (Change, error) {
			defer clear(r.Password)
			return u.AddUser(ctx, r)
		})
		change(s, mux, opUserSet, func(ctx context.Context, r UserSet) (Change, error) {
			defer clear(r.Password)
			return u.SetUser(ctx, r)
		})
		change(s, mux, opUserRemove, func(ctx context.Context, r named) (Change, error) { return u.RemoveUser(ctx, r.Name) })
		change(s, mux, opUserImport, func(ctx context.Context, r UserImport) (UserImportResult, error) {
			defer func() {
				for _, e := range r.Users {
					clear(e.Password)
				}
			}()
			return u.ImportUsers(ctx, r)
		})
		read(s, mux, opUserList, func(ctx context.Context, r named) ([]User, error) { return u.ListUsers(ctx, r.Name) })
	}
	if l := b.Acls; l != nil {
		change(s, mux, opAclSet, l.SetAcl)
		read(s, mux, opAclList, func(ctx context.Context, r named) ([]Acl, error) { return l.ListAcls(ctx, r.Name) })
		read(s, mux, opAclExplain, l.ExplainAcl)
	}
	if c := b.Certs; c != nil {
		change(s, mux, opCertIssue, c.IssueCert)
		read(s, mux, opCertList, func(ctx context.Context, _ nothing) ([]Cert, error) { return c.ListCerts(ctx) })
		change(s, mux, opCertRevoke, func(ctx context.Context, r named) (Change, error) { return c.RevokeCert(ctx, r.Name) })
		read(s, mux, opCA, func(ctx context.Context, _ nothing) (pemText, error) {
			text, err := c.CA(ctx)
			return pemText{text}, err
		})
	}
	if e := b.Sessions; e != nil {
		read(s, mux, opSessionList, e.ListSessions)
		change(s, mux, opSessionEnd, func(ctx context.Context, r named) (Change, error) { return e.EndSession(ctx, r.Name) })
	}
	if c := b.Clock; c != nil {
		read(s, mux, opClockShow, func(ctx context.Context, r ClockRequest) (ClockReading, error) {
			r.Step = false
			return c.Clock(ctx, r)
		})
		change(s, mux, opClockStep, func(ctx context.Context, r ClockRequest) (ClockReading, error) {
			r.Step = true
			return c.Clock(ctx, r)
		})
	}
	if e := b.Settings; e != nil {
		read(s, mux, opSettingList, func(ctx context.Context, r named) ([]Setting, error) { return e.ListSettings(ctx, r.Name) })
		change(s, mux, opSettingSet, e.SetSetting)
	}
	if e := b.Backups; e != nil {
		mux.HandleFunc("POST /v1/"+opBackup, s.serveBackup(e))
	}
	if a := b.Authority; a != nil {
		read(s, mux, opCAStatus, func(ctx context.Context, _ nothing) (CAStatus, error) { return a.CAStatus(ctx) })
		change(s, mux, opCARotate, a.RotateCA)
		change(s, mux, opCARetire, a.RetireCA)
	}
	if d := b.Doctor; d != nil {
		read(s, mux, opCheckup, func(ctx context.Context, _ nothing) (Checkup, error) { return d.Checkup(ctx) })
	}
	if h := b.History; h != nil {
		read(s, mux, opAclTest, h.TestAcl)
		read(s, mux, opAclHistory, func(ctx context.Context, _ nothing) ([]AclVersion, error) { return h.ListAclVersions(ctx) })
		change(s, mux, opAclRollback, h.RollbackAcl)
	}
	if e := b.Bans; e != nil {
		change(s, mux, opBanAdd, e.AddBan)
		read(s, mux, opBanList, func(ctx context.Context, _ nothing) ([]Ban, error) { return e.ListBans(ctx) })
		change(s, mux, opBanRemove, e.RemoveBan)
	}
	if a := b.Auditor; a != nil {
		read(s, mux, opAuditList, a.ListAudit)
	}
	if i := b.Importer; i != nil {
		change(s, mux, opImport, i.Import)
	}
	if e := b.Retained; e != nil {
		read(s, mux, opRetainedList, e.ListRetained)
		change(s, mux, opRetainedSet, e.SetRetained)
		change(s, mux, opRetainedClear, func(ctx context.Context, r named) (RetainedCleared, error) { return e.ClearRetained(ctx, r.Name) })
	}
	if e := b.Repair; e != nil {
		read(s, mux, opSessionShow, func(ctx context.Context, r named) (SessionDetail, error) { return e.ShowSession(ctx, r.Name) })
		change(s, mux, opSessionKick, func(ctx context.Context, r named) (Kicked, error) { return e.KickClient(ctx, r.Name) })
		change(s, mux, opSessionPurge, func(ctx context.Context, r named) (SessionPurged, error) { return e.PurgeSession(ctx, r.Name) })
	}
	if t := b.Topper; t != nil {
		read(s, mux, opTop, func(ctx context.Context, _ nothing) (Top, error) { return t.Top(ctx) })
	}
	if t := b.Tracer; t != nil {
		r := programRoute[TraceRequest, TraceStep](opTrace)
		r.stream, r.kind = true, "application/octet-stream"
		mux.add(r, s.serveTrace(t))
	}
	if v := b.Verifier; v != nil {
		read(s, mux, opVerify, func(ctx context.Context, _ nothing) (Verification, error) { return v.Verify(ctx) })
	}
	mux.ServeMux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &Error{NotFound, fmt.Sprintf("this node has no operation %s %s: use the mqcluster of the same version", r.Method, r.URL.Path)})
	})
	return mux
}

// read serves an operation that changes nothing.
func read[Q, A any](s *Server, mux *mux, op string, do func(context.Context, Q) (A, error)) {
	handler := handle(s, op, do)
	r := programRoute[Q, A](op)
	if op != opVerify { // which costs every node a walk over all that it has
		r.role = RoleViewer
	}
	mux.add(r, handler)
	r.method, r.in = http.MethodGet, nil
	mux.add(r, handler)
}

// programRoute is the route of an operation of the mqcluster program.
func programRoute[Q, A any](op string) route {
	r := route{
		method: http.MethodPost, path: "/v1/" + op, role: RoleAdmin, summary: summaryOf(op), tag: tagProgram,
		in: reflect.TypeFor[Q](), out: reflect.TypeFor[A](), plain: true,
	}
	if operators(op) {
		r.role = RoleOperator
	}
	return r
}

// change serves an operation that changes something, and has it audited.
func change[Q, A any](s *Server, mux *mux, op string, do func(context.Context, Q) (A, error)) {
	mux.add(programRoute[Q, A](op), handle(s, op, audited(s, op, do)))
}

// audited is do with a line in the log and a record in the audit for each request,
// made or refused.
func audited[Q, A any](s *Server, op string, do func(context.Context, Q) (A, error)) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) {
		ctx, a := asked(ctx, op, q)
		answer, err := do(ctx, q)
		s.record(ctx, a, err)
		return answer, err
	}
}

// record says what became of a change that somebody asked for.
func (s *Server) record(ctx context.Context, a *Asked, err error) {
	args := []any{"operation", a.Operation, "subject", a.Subject, "actor", a.Actor}
	if err != nil {
		s.log.Warn("operator's change refused", append(args, "err", err)...)
	} else {
		s.log.Info("operator's change done", args...)
	}
	if s.auditor != nil {
		s.auditor.Audited(ctx, a, err)
	}
}

// subject is whom or what a request is about, for the log.
func subject(request any) string {
	switch r := request.(type) {
	case named:
		return r.Name
	case UserAdd:
		return r.Name
	case UserSet:
		return r.Name
	case UserImport:
		return fmt.Sprintf("%d users", len(r.Users))
	case Acl:
		return r.Subject
	case AclRollback:
		return r.Subject
	case BanRequest:
		return r.Kind + " " + r.Value
	case banQuery:
		return subject(r.request())
	case banPutQuery:
		return subject(r.request())
	case CertRequest:
		return r.Name
	case LeaveRequest:
		return r.Node
	case SettingChange:
		return r.Key
	case RetainedSet:
		return r.Topic
	case apiTokenQuery:
		return r.Token.Name
	}
	return pathOf(request)
}

// handle decodes a request, calls do and encodes its answer or error.
func handle[Q, A any](s *Server, op string, do func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, ok := requestOf[Q](w, r, op)
		if !ok {
			return
		}
		// The server's own deadline is for requests that are answered at once: it would
		// end the context of a drain at a slow pace. A connection that has none needs
		// none taken away.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		answer, err := do(r.Context(), q)
		if err != nil {
			writeError(w, asError(err))
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// requestOf reads the request of an operation; where it is not understood it answers,
// and ok is false.
func requestOf[Q any](w http.ResponseWriter, r *http.Request, op string) (q Q, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil && len(bytes.TrimSpace(body)) > 0 {
		err = decodeStrict(body, &q)
	}
	clear(body) // it may hold a password
	if err != nil {
		writeError(w, &Error{Invalid, fmt.Sprintf("the request of %s is not understood (%v): use the mqcluster of the same version", op, err)})
		return q, false
	}
	return q, true
}

// decodeStrict refuses unknown fields and anything after the value.
func decodeStrict(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after its end")
	}
	return nil
}

// asError gives every error a kind.
func asError(err error) *Error {
	var known *Error
	switch {
	case errors.As(err, &known):
		// What wraps an Error adds to its sentence.
		return &Error{known.Kind, err.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Unavailable, "the node did not finish in time: look at mqcluster status and try again"}
	}
	return &Error{Internal, err.Error()}
}

func (k Kind) status() int {
	switch k {
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case Invalid:
		return http.StatusBadRequest
	case Unavailable:
		return http.StatusServiceUnavailable
	case Denied:
		return http.StatusForbidden
	case Unauthenticated:
		return http.StatusUnauthorized
	case TooMany:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}
