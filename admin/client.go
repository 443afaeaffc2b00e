package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Client calls the API of the node that listens on one socket. It is safe for
// concurrent use and keeps no connection that would have to be closed.
type Client struct {
	socket string // or the address of the API on the network, for errors
	base   string // before /v1/
	token  string
	http   *http.Client
}

// NewRemoteClient returns a Client of the API on the network: base is such as
// https://node1.example.org:9443. Without a token settings has to have a client
// certificate.
func NewRemoteClient(base, token string, settings *tls.Config) *Client {
	return &Client{socket: base, base: base, token: token, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: settings, TLSHandshakeTimeout: 10 * time.Second, Proxy: http.ProxyFromEnvironment,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// NewClient returns a Client; nothing is dialled yet.
func NewClient(socket string) *Client {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	return &Client{socket: socket, base: "http://node", http: &http.Client{Transport: transport}}
}

// call posts a request and decodes the answer. Errors: *Error of the node, or
// one that wraps ErrNoNode.
func call[A any](ctx context.Context, c *Client, op string, request any) (A, error) {
	return exchange[A](ctx, c, http.MethodPost, op, request)
}

// request makes a request of an operation.
func (c *Client) request(ctx context.Context, method, op string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+"/v1/"+op, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the request of %s cannot be made: %w", op, err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	return r, nil
}

// exchange sends a request, nil for none, and decodes the answer. Errors are those of
// call.
func exchange[A any](ctx context.Context, c *Client, method, op string, request any) (A, error) {
	var answer A
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return answer, fmt.Errorf("the request of %s cannot be encoded: %w", op, err)
		}
	}
	defer clear(body) // it may hold a password
	post, err := c.request(ctx, method, op, body)
	if err != nil {
		return answer, err
	}
	if request != nil {
		post.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(post)
	if err != nil {
		return answer, c.explain(ctx, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return answer, c.explain(ctx, err)
	}
	if response.StatusCode != http.StatusOK {
		refused := &Error{}
		if json.Unmarshal(text, refused) != nil || refused.Msg == "" {
			return answer, fmt.Errorf("what listens on %s is no node (%s): check --data-dir", c.socket, response.Status)
		}
		return answer, refused
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("the answer of the node is not understood (%w): use the mqcluster of the same version", err)
	}
	return answer, nil
}

// explain says what a failed exchange means for the operator.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %w", err)
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		return &Error{Unavailable, "the node did not answer in time: raise --timeout, or look into its log"}
	case c.base == c.socket:
		return fmt.Errorf("the API at %s cannot be used: check --api, --ca-file and whether the node runs: %w", c.base, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w %s", ErrNoNode, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the admin socket %s belongs to another user: run this as that user or as root", c.socket)
	}
	return fmt.Errorf("the node on %s ended the exchange: look into its log: %w", c.socket, err)
}

// Status returns the cluster as the node sees it.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, opStatus, nothing{})
}

// Leave is Cluster.Leave.
func (c *Client) Leave(ctx context.Context, r LeaveRequest) (Change, error) {
	return call[Change](ctx, c, opLeave, r)
}

// Drain is Cluster.Drain.
func (c *Client) Drain(ctx context.Context, r DrainRequest) (DrainResult, error) {
	return call[DrainResult](ctx, c, opDrain, r)
}

// CreateToken is Tokens.CreateToken.
func (c *Client) CreateToken(ctx context.Context, r TokenRequest) (Token, error) {
	return call[Token](ctx, c, opTokenCreate, r)
}

// ListTokens is Tokens.ListTokens.
func (c *Client) ListTokens(ctx context.Context) ([]TokenInfo, error) {
	return call[[]TokenInfo](ctx, c, opTokenList, nothing{})
}

// RevokeToken is Tokens.RevokeToken.
func (c *Client) RevokeToken(ctx context.Context, id string) (Change, error) {
	return call[Change](ctx, c, opTokenRevoke, named{id})
}

// AddUser is Users.AddUser.
func (c *Client) AddUser(ctx context.Context, r UserAdd) (Change, error) {
	return call[Change](ctx, c, opUserAdd, r)
}

// SetUser is Users.SetUser.
func (c *Client) SetUser(ctx context.Context, r UserSet) (Change, error) {
	return call[Change](ctx, c, opUserSet, r)
}

// RemoveUser is Users.RemoveUser.
func (c *Client) RemoveUser(ctx context.Context, name string) (Change, error) {
	return call[Change](ctx, c, opUserRemove, named{name})
}

// ImportUsers is Users.ImportUsers.
func (c *Client) ImportUsers(ctx context.Context, r UserImport) (UserImportResult, error) {
	return call[UserImportResult](ctx, c, opUserImport, r)
}

// ListUsers is Users.ListUsers.
func (c *Client) ListUsers(ctx context.Context, name string) ([]User, error) {
	return call[[]User](ctx, c, opUserList, named{name})
}

// SetAcl is Acls.SetAcl.
func (c *Client) SetAcl(ctx context.Context, r Acl) (Change, error) {
	return call[Change](ctx, c, opAclSet, r)
}

// ListAcls is Acls.ListAcls.
func (c *Client) ListAcls(ctx context.Context, subject string) ([]Acl, error) {
	return call[[]Acl](ctx, c, opAclList, named{subject})
}

// ExplainAcl is Acls.ExplainAcl.
func (c *Client) ExplainAcl(ctx context.Context, q AclQuestion) (AclAnswer, error) {
	return call[AclAnswer](ctx, c, opAclExplain, q)
}

// IssueCert is Certs.IssueCert.
func (c *Client) IssueCert(ctx context.Context, r CertRequest) (IssuedCert, error) {
	return call[IssuedCert](ctx, c, opCertIssue, r)
}

// ListCerts is Certs.ListCerts.
func (c *Client) ListCerts(ctx context.Context) ([]Cert, error) {
	return call[[]Cert](ctx, c, opCertList, nothing{})
}

// RevokeCert is Certs.RevokeCert.
func (c *Client) RevokeCert(ctx context.Context, serial string) (Change, error) {
	return call[Change](ctx, c, opCertRevoke, named{serial})
}

// CA is Certs.CA.
func (c *Client) CA(ctx context.Context) ([]byte, error) {
	answer, err := call[pemText](ctx, c, opCA, nothing{})
	return answer.PEM, err
}

// ListSessions is Sessions.ListSessions.
func (c *Client) ListSessions(ctx context.Context, r SessionRequest) ([]Session, error) {
	return call[[]Session](ctx, c, opSessionList, r)
}

// EndSession is Sessions.EndSession.
func (c *Client) EndSession(ctx context.Context, client string) (Change, error) {
	return call[Change](ctx, c, opSessionEnd, named{client})
}

// ListSettings is Settings.ListSettings.
func (c *Client) ListSettings(ctx context.Context, key string) ([]Setting, error) {
	return call[[]Setting](ctx, c, opSettingList, named{key})
}

// SetSetting is Settings.SetSetting.
func (c *Client) SetSetting(ctx context.Context, r SettingChange) (Change, error) {
	return call[Change](ctx, c, opSettingSet, r)
}
