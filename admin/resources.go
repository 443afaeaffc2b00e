package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The groups of the resources.
const (
	tagCluster  = "cluster"
	tagClients  = "clients"
	tagMessages = "messages"
	tagAccess   = "access"
)

// resources serves what the dashboard and programs use: lists in pages, writes that
// may be repeated, and streams.
func (s *Server) resources(m *mux, b Backend) {
	s.clusterResources(m, b)
	s.clientResources(m, b)
	s.messageResources(m, b)
	s.accessResources(m, b)
	s.tokenResources(m, b)
	s.banResources(m, b)
	s.auditResources(m, b)
}

func get(path, tag, summary string) route {
	return route{method: http.MethodGet, path: path, role: RoleViewer, tag: tag, summary: summary}
}

func put(path, tag, summary string, role Role) route {
	return route{method: http.MethodPut, path: path, role: role, tag: tag, summary: summary}
}

func remove(path, tag, summary string, role Role) route {
	return route{method: http.MethodDelete, path: path, role: role, tag: tag, summary: summary}
}

func post(path, tag, summary string, role Role) route {
	return route{method: http.MethodPost, path: path, role: role, tag: tag, summary: summary}
}

// noQuery is the request of a resource that takes nothing.
type noQuery struct{}

// nodeQuery names a node.
type nodeQuery struct {
	Node string `path:"node" doc:"id of a node"`
}

// drainQuery is how a node is to be drained.
type drainQuery struct {
	Node string   `path:"node" doc:"id of a node"`
	How  DrainHow `body:""`
}

func (s *Server) clusterResources(m *mux, b Backend) {
	o := b.Observer
	if o == nil {
		return
	}
	look := s.sampled(o.Overview)
	handleResource(s, m, get("/v1/overview", tagCluster, "The cluster at a glance: nodes, alarms, counters."),
		func(ctx context.Context, _ noQuery) (Overview, error) { return look(ctx) })
	handleResource(s, m, get("/v1/history", tagCluster, "Rates of the last ten minutes, node by node."),
		func(ctx context.Context, _ noQuery) (History, error) { return o.History(ctx) })
	handleResource(s, m, get("/v1/nodes/{node}/drain", tagCluster, "What draining a node will do."),
		func(ctx context.Context, q nodeQuery) (DrainPlan, error) { return o.PlanDrain(ctx, q.Node) })
	handleResource(s, m, put("/v1/nodes/{node}/drain", tagCluster, "Begin to drain a node; the answer does not wait for its clients.", RoleOperator).as(opDrain),
		func(ctx context.Context, q drainQuery) (DrainPlan, error) {
			if q.How.Rate < 0 || q.How.Timeout < 0 {
				return DrainPlan{}, &Error{Invalid, "rate and timeout_s are 0 or more"}
			}
			return o.BeginDrain(ctx, q.Node, q.How)
		})
	handleResource(s, m, remove("/v1/nodes/{node}/drain", tagCluster, "Have a drained node serve again.", RoleOperator).as(opDrain),
		func(ctx context.Context, q nodeQuery) (DrainPlan, error) { return o.EndDrain(ctx, q.Node) })
	handleResource(s, m, get("/v1/routes", tagCluster, "Filters that nodes want messages of QoS 0 for."), limited(o.Routes, func(q *RouteQuery) *int { return &q.Limit }))
	watch[noQuery, Overview](s, m, get("/v1/watch/overview", tagCluster, "The overview, every second."), func(ctx context.Context, _ noQuery, out *events) error {
		return every(ctx, overviewEvery, func() error {
			v, err := look(ctx)
			if err != nil {
				return out.send("problem", "", problemOf(asError(err)))
			}
			return out.send("overview", "", v)
		})
	})
}

// overviewEvery is how often watchers of the overview get it.
const overviewEvery = time.Second

// connectionQuery names a connection by its client id.
type connectionQuery struct {
	Client string `path:"client" doc:"client id, percent-encoded"`
}

func (s *Server) clientResources(m *mux, b Backend) {
	c := b.Clients
	if c == nil {
		return
	}
	handleResource(s, m, get("/v1/clients", tagClients, "Connected clients of all nodes."), limited(c.Connections, func(q *ConnectionQuery) *int { return &q.Limit }))
	handleResource(s, m, remove("/v1/clients/{client}", tagClients, "Close a client's connection; its session stays, and it may come back.", RoleOperator).as(opSessionKick),
		func(ctx context.Context, q connectionQuery) (Disconnected, error) { return c.Disconnect(ctx, q.Client) })
	handleResource(s, m, get("/v1/sessions", tagClients, "Sessions of all clients, connected or not."), limited(c.SessionPage, func(q *SessionQuery) *int { return &q.Limit }))
	handleResource(s, m, get("/v1/sessions/{client}", tagClients, "A session with its subscriptions."),
		func(ctx context.Context, q connectionQuery) (SessionReport, error) {
			return c.SessionDetail(ctx, q.Client)
		})
	if e := b.Sessions; e != nil {
		handleResource(s, m, remove("/v1/sessions/{client}", tagClients, "End a session: its subscriptions and its queue are gone, its connection is closed.", RoleOperator).as(opSessionEnd),
			func(ctx context.Context, q connectionQuery) (Change, error) { return once(e.EndSession(ctx, q.Client)) })
	}
	watch[noQuery, ClientEvent](s, m, get("/v1/watch/clients", tagClients, "Clients that come and go, on all nodes, as they do."), func(ctx context.Context, _ noQuery, out *events) error {
		return c.WatchClients(ctx, func(e ClientEvent) error { return out.send("client", "", e) })
	})
}

// limited checks the length of the page that is asked for.
func limited[Q, A any](do func(context.Context, Q) (A, error), limit func(*Q) *int) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (answer A, err error) {
		l := limit(&q)
		if *l, err = pageLimit(*l); err != nil {
			return answer, err
		}
		return do(ctx, q)
	}
}

// once makes the second removal as good as the first.
func once(c Change, err error) (Change, error) {
	if e := asErrorOrNil(err); e != nil && (e.Kind == NotFound || e.Kind == Conflict && strings.HasPrefix(e.Msg, "there is no ")) {
		return Change{NotApplied: []string{}}, nil
	}
	return c, err
}

func asErrorOrNil(err error) *Error {
	if err == nil {
		return nil
	}
	return asError(err)
}

// userQuery names a user.
type userQuery struct {
	User string `path:"user" doc:"name, percent-encoded"`
}

// userPutQuery is a user as it is to be.
type userPutQuery struct {
	User string  `path:"user" doc:"name, percent-encoded"`
	As   UserPut `body:""`
}

// UserPut is what a user is to be; what is left out stays, or is nothing if the user
// is new.
type UserPut struct {
	Password []byte    `json:"password,omitempty"` // base64
	Disabled *bool     `json:"disabled,omitempty"`
	Roles    *[]string `json:"roles,omitempty"`
}

// listQuery asks for a page.
type listQuery struct {
	Search string `query:"q" doc:"only what has this in its name"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" doc:"length of a page, 1000 at most; 100 if left out"`
}

// subjectQuery names the subject of an ACL.
type subjectQuery struct {
	Subject string `path:"subject" doc:"user:NAME, role:NAME, anonymous or *, percent-encoded"`
}

// aclPutQuery are the rules that a subject is to have.
type aclPutQuery struct {
	Subject string `path:"subject" doc:"user:NAME, role:NAME, anonymous or *, percent-encoded"`
	As      Rules  `body:""`
}

// Rules are rules in the order that counts.
type Rules struct {
	Rules []string `json:"rules"`
}

func (s *Server) accessResources(m *mux, b Backend) {
	if u := b.Users; u != nil {
		handleResource(s, m, get("/v1/users", tagAccess, "Users."), listed(func(ctx context.Context) ([]User, error) { return u.ListUsers(ctx, "") },
			func(u User) string { return u.Name }, func(u User, search string) bool { return contains(u.Name, search) }))
		handleResource(s, m, put("/v1/users/{user}", tagAccess, "Make a user, or change one.", RoleAdmin).as(opUserSet), func(ctx context.Context, q userPutQuery) (Change, error) {
			defer clear(q.As.Password)
			return putUser(ctx, u, q)
		})
		handleResource(s, m, remove("/v1/users/{user}", tagAccess, "Remove a user; its clients are sent away.", RoleAdmin).as(opUserRemove),
			func(ctx context.Context, q userQuery) (Change, error) { return once(u.RemoveUser(ctx, q.User)) })
	}
	l := b.Acls
	if l == nil {
		return
	}
	handleResource(s, m, get("/v1/acls", tagAccess, "Rules by subject."), listed(func(ctx context.Context) ([]Acl, error) { return l.ListAcls(ctx, "") },
		func(a Acl) string { return a.Subject }, func(a Acl, search string) bool { return contains(a.Subject, search) }))
	handleResource(s, m, put("/v1/acls/{subject}", tagAccess, "Replace the rules of a subject.", RoleAdmin).as(opAclSet), func(ctx context.Context, q aclPutQuery) (Change, error) {
		return l.SetAcl(ctx, Acl{Subject: q.Subject, Rules: q.As.Rules})
	})
	handleResource(s, m, remove("/v1/acls/{subject}", tagAccess, "Remove the rules of a subject.", RoleAdmin).as(opAclSet), func(ctx context.Context, q subjectQuery) (Change, error) {
		return l.SetAcl(ctx, Acl{Subject: q.Subject})
	})
}

// putUser changes a user that exists and adds one that does not.
func putUser(ctx context.Context, u Users, q userPutQuery) (Change, error) {
	set := UserSet{Name: q.User, Password: q.As.Password, Disabled: q.As.Disabled, Roles: q.As.Roles}
	c, err := u.SetUser(ctx, set)
	if e := asErrorOrNil(err); e == nil || e.Kind != NotFound {
		return c, err
	}
	add := UserAdd{Name: q.User, Password: q.As.Password}
	if q.As.Roles != nil {
		add.Roles = *q.As.Roles
	}
	c, err = u.AddUser(ctx, add)
	if err != nil || q.As.Disabled == nil || !*q.As.Disabled {
		return c, err
	}
	return u.SetUser(ctx, UserSet{Name: q.User, Disabled: q.As.Disabled})
}

// What the audit calls changes that no operation of the program makes.
const (
	opAPITokenCreate = "api-token/create"
	opAPITokenRemove = "api-token/remove"
)

// tokenQuery names a token.
type tokenQuery struct {
	ID string `path:"id" doc:"id of the token"`
}

// apiTokenQuery is a token to make.
type apiTokenQuery struct {
	Token APITokenRequest `body:""`
}

func (s *Server) tokenResources(m *mux, b Backend) {
	t := b.APITokens
	if t == nil {
		return
	}
	handleResource(s, m, get("/v1/api-tokens", tagAccess, "Tokens of this API, without their secrets."), listed(t.ListAPITokens,
		func(t APITokenInfo) string { return t.ID }, func(t APITokenInfo, search string) bool { return contains(t.Name, search) }))
	handleResource(s, m, post("/v1/api-tokens", tagAccess, "Make a token of this API. The answer is the only time that its secret is shown.", RoleAdmin).as(opAPITokenCreate),
		func(ctx context.Context, q apiTokenQuery) (APIToken, error) {
			if !q.Token.Role.Valid() {
				return APIToken{}, &Error{Invalid, fmt.Sprintf("role is %q: write viewer, operator or admin", q.Token.Role)}
			}
			return t.CreateAPIToken(ctx, q.Token)
		})
	handleResource(s, m, remove("/v1/api-tokens/{id}", tagAccess, "Remove a token: who has it is out at once.", RoleAdmin).as(opAPITokenRemove),
		func(ctx context.Context, q tokenQuery) (Change, error) { return once(t.RemoveAPIToken(ctx, q.ID)) })
}
