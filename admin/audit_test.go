package admin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// auditBook keeps what it is told.
type auditBook struct {
	mu   sync.Mutex
	told []string
}

func (b *auditBook) Audited(_ context.Context, a *Asked, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, fmt.Sprintf("%s|%s|%s|%s|%v", a.Actor, a.Operation, a.Subject, a.Detail, err))
}

func (b *auditBook) ListAudit(context.Context, AuditQuery) ([]AuditRecord, error) { return nil, nil }

// TestAudited: each change that is asked for is told with who asked, as the kernel
// says, whether it is made or not, and with no secret in it; questions are not.
func TestAudited(t *testing.T) {
	book := &auditBook{}
	_, client, _ := open(t, Deps{Backend: Backend{Users: refusingUsers{}, Auditor: book}})
	disabled, roles := true, []string{"a", "b"}
	ctx := t.Context()
	_, _ = client.AddUser(ctx, UserAdd{Name: "dev1", Password: []byte("very secret"), Roles: []string{"r"}})
	_, _ = client.SetUser(ctx, UserSet{Name: "dev1", Password: []byte("very secret"), Disabled: &disabled, Roles: &roles})
	_, _ = client.RemoveUser(ctx, "dev1")
	_, _ = client.ListUsers(ctx, "")
	_, _ = client.ImportUsers(ctx, UserImport{Users: []UserEntry{{Name: "x", Hash: "very secret"}}})
	actor := fmt.Sprintf("uid %d", os.Getuid())
	if runtime.GOOS != "linux" {
		actor = "unknown"
	}
	book.mu.Lock()
	defer book.mu.Unlock()
	for i, line := range book.told {
		who, rest, _ := strings.Cut(line, "|")
		if !strings.HasPrefix(who, actor) {
			t.Errorf("the actor is %q, want %q", who, actor)
		}
		if strings.Contains(line, "very secret") {
			t.Errorf("a secret is in the audit: %s", line)
		}
		book.told[i] = rest
	}
	want := []string{
		"user/add|dev1|password, roles r|<nil>",
		"user/set|dev1|password, disabled true, roles a,b|no",
		"user/remove|dev1||no",
		"user/import|1 users||no",
	}
	if diff := cmp.Diff(want, book.told); diff != "" {
		t.Error(diff)
	}
}

// TestAuditedOverTheNetwork: the actor is who the token or the certificate proves,
// whichever way the change is asked for, and it is called the same both ways.
func TestAuditedOverTheNetwork(t *testing.T) {
	s := openSecured(t)
	token, _ := s.tokens.add("ci", RoleAdmin)
	anna := s.issue("anna")
	for _, a := range []ask{
		{method: "POST", path: "/v1/user/add", body: `{"name":"x","roles":["r"]}`, token: token},
		{method: "PUT", path: "/v1/users/y", body: `{"password":"dmVyeSBzZWNyZXQ=","roles":["r"]}`, token: token},
		{method: "GET", path: "/v1/users", token: token},
		{method: "POST", path: "/v1/publish", body: `{"topic":"a","text":"x"}`, token: token},
		{method: "POST", path: "/v1/api-tokens", body: `{"name":"deploy","role":"viewer"}`, token: token},
		{method: "PUT", path: "/v1/nodes/a/drain", body: `{"rate":5}`, cert: &anna},
		{method: "DELETE", path: "/v1/nodes/a/drain", cert: &anna},
		{method: "DELETE", path: "/v1/clients/c", cert: &anna},
		{method: "POST", path: "/v1/session/kick", body: `{"name":"c"}`, cert: &anna},
	} {
		if got := s.status(a); got != 200 {
			t.Fatalf("%s %s: %d", a.method, a.path, got)
		}
	}
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	want := []string{
		"token ci|user/add|x|roles r|<nil>",
		"token ci|user/set|y|password, roles r|<nil>",
		"token ci|api-token/create|deploy|viewer for 0s|<nil>",
		"certificate anna|drain|a|5 clients a second, within 0 s|<nil>",
		"certificate anna|drain|a|off true, stop false|<nil>",
		"certificate anna|session/kick|c||<nil>",
		"certificate anna|session/kick|c||<nil>",
	}
	if diff := cmp.Diff(want, s.book.told); diff != "" {
		t.Error(diff)
	}
}

// refusingUsers takes new users only.
type refusingUsers struct{ Users }

func (refusingUsers) AddUser(context.Context, UserAdd) (Change, error) { return Change{}, nil }
func (refusingUsers) SetUser(context.Context, UserSet) (Change, error) {
	return Change{}, errors.New("no")
}

func (refusingUsers) RemoveUser(context.Context, string) (Change, error) {
	return Change{}, errors.New("no")
}

func (refusingUsers) ImportUsers(context.Context, UserImport) (UserImportResult, error) {
	return UserImportResult{}, errors.New("no")
}

func (refusingUsers) ListUsers(context.Context, string) ([]User, error) { return nil, nil }
