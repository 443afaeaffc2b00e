package admin

import (
	"net/http"
	"reflect"
	"strings"
)

// route is one operation of the API: what serves it, who may use it over the
// network, and what the OpenAPI document says of it.
type route struct {
	method, path string // path as in a pattern of http.ServeMux
	role         Role
	op           string // what the audit calls it, if it changes something
	summary, tag string
	in           reflect.Type // of the body, or with the tags path, query and body
	out          reflect.Type // nil: nothing
	// stream: the answer has no end of its own; its kind is kind.
	stream bool
	kind   string // media type of the answer; "" is application/json
	// plain routes are those of the mqcluster program: their body is the whole
	// request.
	plain bool
}

// as returns r with what the audit calls it: as the operation of the program that does
// the same, where there is one.
func (r route) as(op string) route {
	r.op = op
	return r
}

func (r *route) pattern() string { return r.method + " " + r.path }

// mux serves routes and knows what they are.
type mux struct {
	http.ServeMux
	routes map[string]*route // by pattern
}

func newMux() *mux { return &mux{routes: map[string]*route{}} }

// add serves a route.
func (m *mux) add(r route, handler http.HandlerFunc) {
	m.routes[r.pattern()] = &r
	m.ServeMux.HandleFunc(r.pattern(), handler)
}

// HandleFunc serves a pattern. Over the network only an admin may use it.
func (m *mux) HandleFunc(pattern string, handler http.HandlerFunc) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		m.ServeMux.HandleFunc(pattern, handler) // what nobody else serves
		return
	}
	m.add(route{method: method, path: path, role: RoleAdmin, summary: summaryOf(strings.TrimPrefix(path, "/v1/")), tag: tagProgram, plain: true}, handler)
}

// routeOf returns the route of a request, nil if it has none.
func (m *mux) routeOf(r *http.Request) *route {
	_, pattern := m.ServeMux.Handler(r)
	return m.routes[pattern]
}

// tagProgram is on the operations of the mqcluster program.
const tagProgram = "program"

// operators tells of what no viewer may do whether it needs no admin.
func operators(op string) bool {
	switch op {
	case opDrain, opBalance, opSessionEnd, opSessionKick, opSessionPurge, opRetainedSet, opRetainedClear, opTrace, opVerify:
		return true
	}
	return false
}

// summaryOf says what an operation of the program does.
func summaryOf(op string) string {
	for _, s := range []struct{ op, text string }{
		{opStatus, "The cluster as this node sees it."},
		{opLeave, "Remove a member from the cluster."},
		{opDrain, "Send this node's clients away, and answer when they have gone."},
		{opBalance, "Even out how many clients the nodes have."},
		{opTokenCreate, "Make a token that machines join with."},
		{opTokenList, "List the join tokens."},
		{opTokenRevoke, "Revoke a join token."},
		{opUserAdd, "Add a user."},
		{opUserSet, "Change a user."},
		{opUserRemove, "Remove a user."},
		{opUserImport, "Add or change many users."},
		{opUserList, "List the users."},
		{opAclSet, "Replace the rules of a subject."},
		{opAclList, "List rules by subject."},
		{opAclExplain, "Tell whether a user may do something, and which rule decides."},
		{opAclTest, "Tell how rules would decide, which are not in force."},
		{opAclHistory, "List the versions of the rules."},
		{opAclRollback, "Bring back the rules of an earlier version."},
		{opBanAdd, "Ban a client id, a user or an address."},
		{opBanList, "List the bans."},
		{opBanRemove, "Lift a ban."},
		{opAuditList, "List who changed what, the newest first."},
		{opCertIssue, "Issue a client certificate."},
		{opCertList, "List the certificates that the cluster issued."},
		{opCertRevoke, "Revoke a certificate."},
		{opCA, "The certificates of the cluster's CAs."},
		{opCAStatus, "Show the cluster's CAs and how far a rotation is."},
		{opCARotate, "Put a new CA in the place of the cluster's."},
		{opCARetire, "Trust a CA that was replaced no longer."},
		{opCheckup, "Check every node and the cluster for what is wrong."},
		{opSessionList, "List sessions."},
		{opSessionEnd, "End a session."},
		{opSessionShow, "Show all that is known of a session."},
		{opSessionKick, "Close the connection of a client; its session stays."},
		{opSessionPurge, "Have a session give up all that waits for it."},
		{opRetainedList, "List retained messages."},
		{opRetainedSet, "Have a topic retain a message."},
		{opRetainedClear, "Clear the topics that match a filter."},
		{opTop, "Count what every node, client and topic does."},
		{opTrace, "Follow messages on their way through the cluster: one JSON value a line, without end."},
		{opVerify, "Compare what the nodes have stored."},
		{opClockShow, "Read the cluster's clock."},
		{opClockStep, "Set the cluster's clock forward."},
		{opSettingList, "List the cluster's settings."},
		{opSettingSet, "Change a setting of the cluster."},
		{opImport, "Take over what another broker had."},
		{opBackup, "The whole state as a stream."},
	} {
		if s.op == op {
			return s.text
		}
	}
	return op
}
