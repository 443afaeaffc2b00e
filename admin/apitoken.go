package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// APITokens are what programs and people use the API with over the network.
type APITokens interface {
	CreateAPIToken(ctx context.Context, r APITokenRequest) (APIToken, error)
	ListAPITokens(ctx context.Context) ([]APITokenInfo, error)
	RemoveAPIToken(ctx context.Context, id string) (Change, error)
}

// APITokenRequest asks for a token. TTL 0 means that it does not expire.
type APITokenRequest struct {
	Name string        `json:"name"`
	Role Role          `json:"role"`
	TTL  time.Duration `json:"ttl_ns,omitempty"`
}

// APIToken is a new token: the only time that its secret is shown.
type APIToken struct {
	APITokenInfo
	Token string `json:"token"`
	Change
}

// APITokenInfo is a token without its secret.
type APITokenInfo struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
}

// CreateAPIToken is APITokens.CreateAPIToken.
func (c *Client) CreateAPIToken(ctx context.Context, r APITokenRequest) (APIToken, error) {
	return exchange[APIToken](ctx, c, http.MethodPost, "api-tokens", r)
}

// ListAPITokens is APITokens.ListAPITokens.
func (c *Client) ListAPITokens(ctx context.Context) ([]APITokenInfo, error) {
	p, err := exchange[Page[APITokenInfo]](ctx, c, http.MethodGet, "api-tokens?limit=1000", nil)
	return p.Items, err
}

// RemoveAPIToken is APITokens.RemoveAPIToken; Index 0 means that there was none.
func (c *Client) RemoveAPIToken(ctx context.Context, id string) (Change, error) {
	return exchange[Change](ctx, c, http.MethodDelete, "api-tokens/"+url.PathEscape(id), nil)
}
