package admin

import (
	"context"
	"sync"
	"time"
)

// Observer tells how the cluster is and what it does.
type Observer interface {
	// Overview asks every member; one that does not answer within a second is down.
	Overview(ctx context.Context) (Overview, error)
	// History has the rates of every member that answers.
	History(ctx context.Context) (History, error)
	// PlanDrain tells what a drain of a member will do.
	PlanDrain(ctx context.Context, node string) (DrainPlan, error)
	// BeginDrain has a member drain and does not wait for its clients; a second call
	// changes nothing.
	BeginDrain(ctx context.Context, node string, how DrainHow) (DrainPlan, error)
	EndDrain(ctx context.Context, node string) (DrainPlan, error)
	Routes(ctx context.Context, q RouteQuery) (Page[Route], error)
}

// Overview is the cluster at a glance.
type Overview struct {
	Status
	At     time.Time    `json:"at"`
	Alarms []Alarm      `json:"alarms"` // the worst first
	Nodes  []NodeReport `json:"nodes"`
	Counts Counts       `json:"counts"`
}

// Counts are sizes of the replicated state.
type Counts struct {
	Sessions      int   `json:"sessions"`
	Connected     int   `json:"connected"` // of the sessions
	Subscriptions int   `json:"subscriptions"`
	Stored        int64 `json:"stored_messages"` // waiting for sessions, each once
	StoredBytes   int64 `json:"stored_bytes"`
}

// NodeReport is a member with what it tells of itself.
type NodeReport struct {
	Member
	Draining bool   `json:"draining"`
	Ready    bool   `json:"ready"`
	Lag      uint64 `json:"lag"`      // log entries that another member has applied and it has not
	Uptime   int64  `json:"uptime_s"` // of its process
	// CertUntil is when the node's certificate ends; zero if it did not tell.
	CertUntil time.Time `json:"cert_until,omitzero"`
	Counters  Counters  `json:"counters"`
}

// Counters are counts since a node's process started, but for those of now:
// Connected and Subscriptions.
type Counters struct {
	In            int64 `json:"messages_in"`
	Out           int64 `json:"messages_out"`
	BytesIn       int64 `json:"bytes_in"`
	BytesOut      int64 `json:"bytes_out"`
	Dropped       int64 `json:"dropped"`
	Connects      int64 `json:"connects"`
	Refused       int64 `json:"refused"`
	Connected     int64 `json:"connected"`
	Subscriptions int64 `json:"subscriptions"`
}

// The levels of an Alarm.
const (
	AlarmCritical = "critical" // acts on clients now, or is about to
	AlarmWarning  = "warning"  // something does not hold that should
	AlarmNotice   = "notice"   // somebody wanted it so
)

// Alarm is what an operator should know. Text names cause and remedy.
type Alarm struct {
	Level string `json:"level"`
	Kind  string `json:"kind"`
	Node  string `json:"node,omitempty"`
	Text  string `json:"text"`
}

// History is what the members did of late.
type History struct {
	Step  int64         `json:"step_ms"` // between two samples
	Nodes []NodeHistory `json:"nodes"`
}

// NodeHistory is what one member did of late.
type NodeHistory struct {
	Node    string   `json:"node"`
	Samples []Sample `json:"samples"` // oldest first
}

// Sample is what a member did within one step.
type Sample struct {
	Age       int64 `json:"age_ms"` // of its end, when it was told
	In        int64 `json:"in"`     // messages
	Out       int64 `json:"out"`
	BytesIn   int64 `json:"bytes_in"`
	BytesOut  int64 `json:"bytes_out"`
	Dropped   int64 `json:"dropped"`
	Connected int64 `json:"connected"` // clients, at its end
}

// DrainHow is how a node is drained.
type DrainHow struct {
	// Rate is how many clients are sent away a second; 0: spread over the time.
	Rate int `json:"rate,omitempty"`
	// Timeout is the time for it in seconds; 0: as the node is set.
	Timeout int `json:"timeout_s,omitempty"`
}

// DrainPlan is what a drain will do, or does.
type DrainPlan struct {
	Node     string `json:"node"`
	Draining bool   `json:"draining"`
	Clients  int    `json:"clients"` // that are connected there now
	Leads    bool   `json:"leads"`   // another node is to lead first
	// Others are the ready nodes that will have the clients, with how many they
	// have now.
	Others []ClientsOf `json:"others"`
	// Timeout is the time in which the clients are sent away if no rate is given, in
	// seconds.
	Timeout int `json:"timeout_s"`
	// Warnings say why one may not want to.
	Warnings []string `json:"warnings"`
}

// ClientsOf is how many clients a node has.
type ClientsOf struct {
	Node    string `json:"node"`
	Clients int    `json:"clients"`
}

// RouteQuery asks for routes.
type RouteQuery struct {
	Search string `query:"q" doc:"only filters that have this in them"`
	Node   string `query:"node" doc:"only filters that this node wants"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" doc:"length of a page, 1000 at most; 100 if left out"`
}

// Route is a filter and the nodes that have clients for it.
type Route struct {
	Filter string   `json:"filter"`
	Nodes  []string `json:"nodes"`
}

// sampled asks no more than once in half a second, however many want to know.
func (s *Server) sampled(ask func(context.Context) (Overview, error)) func(context.Context) (Overview, error) {
	var mu sync.Mutex
	var last Overview
	var failed error
	var at time.Time
	return func(ctx context.Context) (Overview, error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(at) > overviewEvery/2 {
			// Not with the deadline of who happens to be first.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			last, failed = ask(ctx)
			at = time.Now()
		}
		return last, failed
	}
}
