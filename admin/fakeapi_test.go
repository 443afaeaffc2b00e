package admin

import (
	"context"
	"crypto/x509"
	"sync"
	"time"
)

// fakeCluster answers what the resources ask.
type fakeCluster struct {
	mu        sync.Mutex
	published []Message
	retained  map[string]Message
}

func (f *fakeCluster) Overview(context.Context) (Overview, error) {
	return Overview{
		Status: Status{Node: "a", Leader: "a", Quorum: true, Members: []Member{{Node: "a", Up: true, Role: RoleLeader}}},
		At:     time.Unix(1, 0), Alarms: []Alarm{{Level: AlarmWarning, Kind: "few_voters", Text: "one node votes"}},
		Nodes: []NodeReport{{Member: Member{Node: "a"}, Ready: true, CertUntil: time.Unix(2, 0)}},
	}, nil
}

func (f *fakeCluster) History(context.Context) (History, error) {
	return History{Step: 2000, Nodes: []NodeHistory{{Node: "a", Samples: []Sample{{Age: 1, In: 2}}}}}, nil
}

func (f *fakeCluster) plan(node string) DrainPlan {
	return DrainPlan{Node: node, Others: []ClientsOf{{Node: "b", Clients: 3}}, Warnings: []string{}}
}
func (f *fakeCluster) PlanDrain(_ context.Context, node string) (DrainPlan, error) {
	return f.plan(node), nil
}
func (f *fakeCluster) BeginDrain(_ context.Context, node string, _ DrainHow) (DrainPlan, error) {
	return f.plan(node), nil
}
func (f *fakeCluster) EndDrain(_ context.Context, node string) (DrainPlan, error) {
	return f.plan(node), nil
}
func (f *fakeCluster) Routes(context.Context, RouteQuery) (Page[Route], error) {
	return Page[Route]{Items: []Route{{Filter: "a/#", Nodes: []string{"a"}}}}, nil
}
func (f *fakeCluster) Connections(context.Context, ConnectionQuery) (Page[Connection], error) {
	return Page[Connection]{Items: []Connection{{Client: "c", Traffic: Traffic{Known: true}}}, Next: "c"}, nil
}
func (f *fakeCluster) Disconnect(context.Context, string) (Disconnected, error) {
	return Disconnected{Node: "a"}, nil
}
func (f *fakeCluster) SessionPage(context.Context, SessionQuery) (Page[SessionState], error) {
	return Page[SessionState]{Items: []SessionState{{Session: Session{Client: "c"}, State: SessionAway}}}, nil
}
func (f *fakeCluster) SessionDetail(_ context.Context, client string) (SessionReport, error) {
	return SessionReport{SessionState: SessionState{Session: Session{Client: client}}, Subs: []SubscriptionDetail{{Filter: "a", QoS: 1}}}, nil
}
func (f *fakeCluster) WatchClients(ctx context.Context, yield func(ClientEvent) error) error {
	if err := yield(ClientEvent{Kind: ClientConnected, Client: "c", Node: "a"}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (f *fakeCluster) Publish(_ context.Context, m Message) (Published, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published = append(f.published, m)
	if m.Retain {
		if f.retained == nil {
			f.retained = map[string]Message{}
		}
		if len(m.Payload) == 0 {
			delete(f.retained, m.Topic)
		} else {
			f.retained[m.Topic] = m
		}
	}
	return Published{Index: uint64(len(f.published)), Matched: true}, nil
}

func (f *fakeCluster) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.published)
}

func (f *fakeCluster) Retained(context.Context, RetainedQuery) (Page[RetainedItem], error) {
	return Page[RetainedItem]{Items: []RetainedItem{{Topic: "t", Payload: []byte("x")}}}, nil
}
func (f *fakeCluster) RetainedAt(_ context.Context, topic string) (RetainedItem, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.retained[topic]
	if !ok {
		return RetainedItem{}, &Error{NotFound, "topic retains nothing"}
	}
	return RetainedItem{Topic: topic, Payload: m.Payload, QoS: m.QoS}, nil
}
func (f *fakeCluster) Tail(ctx context.Context, filter string, yield func(TailEvent) error) error {
	if err := yield(TailEvent{Topic: filter, Payload: []byte("x"), Size: 1}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
func (f *fakeCluster) Topics(_ context.Context, q TopicQuery) (TopicList, error) {
	return TopicList{Under: q.Under, Items: []Topic{{Level: "a", Topic: "a", Rate: 1.5}}}, nil
}

// fakeTokens knows tokens, and users by the serials of their certificates.
type fakeTokens struct {
	mu  sync.Mutex
	all map[string]APITokenRecord
	// certs are the roles by common name.
	certs map[string]Role
}

// add makes a token.
func (f *fakeTokens) add(name string, role Role) (text, id string) {
	text, id, hash := NewAPIToken()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[string]APITokenRecord{}
	}
	f.all[id] = APITokenRecord{Name: name, Role: role, Hash: hash}
	return text, id
}

func (f *fakeTokens) drop(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, id)
}

func (f *fakeTokens) APIToken(id string) (APITokenRecord, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.all[id]
	return t, ok
}

func (f *fakeTokens) CertUser(leaf *x509.Certificate) (string, Role, error) {
	name := leaf.Subject.CommonName
	role := f.certs[name]
	if role == "" {
		return "", "", &Error{Denied, "user " + name + " has no role here"}
	}
	return name, role, nil
}

func (f *fakeTokens) CreateAPIToken(_ context.Context, r APITokenRequest) (APIToken, error) {
	text, id := f.add(r.Name, r.Role)
	return APIToken{APITokenInfo: APITokenInfo{ID: id, Name: r.Name, Role: r.Role}, Token: text, Change: Change{Index: 1, NotApplied: []string{}}}, nil
}

func (f *fakeTokens) ListAPITokens(context.Context) ([]APITokenInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []APITokenInfo{}
	for id, t := range f.all {
		out = append(out, APITokenInfo{ID: id, Name: t.Name, Role: t.Role})
	}
	return out, nil
}

func (f *fakeTokens) RemoveAPIToken(_ context.Context, id string) (Change, error) {
	if _, ok := f.APIToken(id); !ok {
		return Change{}, &Error{Conflict, "there is no API token \"" + id + "\""}
	}
	f.drop(id)
	return Change{Index: 1, NotApplied: []string{}}, nil
}
