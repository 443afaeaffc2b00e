package admin

import (
	"bytes"
	"context"
	"slices"
	"sync"
)

// fake is a Backend that remembers what it was asked and answers err where one
// is set.
type fake struct {
	mu    sync.Mutex
	calls []any
	err   error
	wait  chan struct{} // Status waits for it, if there is one
}

func (f *fake) record(call any) (Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	if f.err != nil {
		return Change{}, f.err
	}
	return Change{Index: uint64(len(f.calls)), NotApplied: []string{}}, nil
}

func (f *fake) backend() Backend {
	return Backend{Cluster: f, Tokens: f, Users: f, Acls: f, Certs: f, Sessions: f, Balance: f}
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	if f.wait != nil {
		select {
		case <-f.wait:
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
	return Status{Node: "a", Quorum: true, Readiness: Readiness{Lease: true, CaughtUp: true, Serving: true}}, f.err
}
func (f *fake) Leave(_ context.Context, r LeaveRequest) (Change, error) { return f.record(r) }
func (f *fake) Balance(context.Context) ([]Share, error) {
	return []Share{{Node: "a", Clients: 30, Share: 20, Sent: 10}, {Node: "b", Out: true}}, nil
}

func (f *fake) Drain(_ context.Context, r DrainRequest) (DrainResult, error) {
	_, err := f.record(r)
	return DrainResult{Sent: 3}, err
}
func (f *fake) CreateToken(_ context.Context, r TokenRequest) (Token, error) {
	c, err := f.record(r)
	return Token{Token: "MQ1.x.y", Change: c}, err
}
func (f *fake) ListTokens(context.Context) ([]TokenInfo, error) {
	return []TokenInfo{{ID: "t"}}, f.err
}
func (f *fake) RevokeToken(_ context.Context, id string) (Change, error) { return f.record(id) }

func (f *fake) AddUser(_ context.Context, r UserAdd) (Change, error) {
	r.Password = append([]byte(nil), r.Password...) // the handler wipes its own
	return f.record(r)
}

func (f *fake) SetUser(_ context.Context, r UserSet) (Change, error) {
	r.Password = append([]byte(nil), r.Password...)
	return f.record(r)
}
func (f *fake) RemoveUser(_ context.Context, name string) (Change, error) { return f.record(name) }
func (f *fake) ImportUsers(_ context.Context, r UserImport) (UserImportResult, error) {
	r.Users = slices.Clone(r.Users)
	for i := range r.Users {
		r.Users[i].Password = bytes.Clone(r.Users[i].Password) // the handler wipes its own
	}
	c, err := f.record(r)
	return UserImportResult{Change: c, Added: len(r.Users)}, err
}
func (f *fake) ListUsers(_ context.Context, name string) ([]User, error) {
	return []User{{Name: name}}, f.err
}
func (f *fake) SetAcl(_ context.Context, r Acl) (Change, error) { return f.record(r) }
func (f *fake) ListAcls(_ context.Context, subject string) ([]Acl, error) {
	return []Acl{{Subject: subject}}, f.err
}
func (f *fake) ExplainAcl(_ context.Context, q AclQuestion) (AclAnswer, error) {
	return AclAnswer{Allowed: true, Rule: q.Topic}, f.err
}
func (f *fake) IssueCert(_ context.Context, r CertRequest) (IssuedCert, error) {
	_, err := f.record(r)
	return IssuedCert{KeyPEM: []byte("key")}, err
}
func (f *fake) ListCerts(context.Context) ([]Cert, error) { return nil, f.err }
func (f *fake) RevokeCert(_ context.Context, serial string) (Change, error) {
	return f.record(serial)
}
func (f *fake) CA(context.Context) ([]byte, error) { return []byte("ca"), f.err }
func (f *fake) ListSessions(_ context.Context, r SessionRequest) ([]Session, error) {
	return []Session{{Client: r.Prefix}}, f.err
}
func (f *fake) EndSession(_ context.Context, client string) (Change, error) { return f.record(client) }

// fakeHealth answers what it holds.
type fakeHealth struct {
	live  error
	ready Readiness
}

func (h *fakeHealth) Live() error      { return h.live }
func (h *fakeHealth) Ready() Readiness { return h.ready }
