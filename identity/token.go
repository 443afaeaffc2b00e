package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mqcluster/mqcluster/auth"
)

// Bounds of a token.
const (
	maxToken      = 16 << 10 // bytes
	maxTokenRules = 100
	maxTokenRoles = 32
)

// Algorithms are those that a token may be signed by. None is without a public key.
func Algorithms() []string { return []string{"RS256", "ES256", "EdDSA"} }

// TokenConfig says which tokens count.
type TokenConfig struct {
	// Issuer and Audience are what iss must be and aud must have. Both are needed: a
	// token for somebody else's service must not open this one.
	Issuer, Audience string
	// Leeway is by how much clocks may differ.
	Leeway time.Duration
	// UserClaim names the claim that is the user's name; "sub" if empty.
	UserClaim string
	// RulesClaim and RolesClaim name claims with rules and roles; empty: none.
	RulesClaim, RolesClaim string
	// Algorithms are some of Algorithms(); nil means all.
	Algorithms []string
}

// Token is what a token says.
type Token struct {
	User string
	// Until is when it counts no longer, the leeway included.
	Until time.Time
	Grant *auth.Grant // nil if it brings none
}

// Tokens verifies tokens. It is safe for concurrent use.
type Tokens struct {
	cfg    TokenConfig
	keys   *Keys
	parser *jwt.Parser
}

// NewTokens returns a Tokens that asks keys.
func NewTokens(cfg TokenConfig, keys *Keys) *Tokens { return newTokens(cfg, keys, time.Now) }

func newTokens(cfg TokenConfig, keys *Keys, now func() time.Time) *Tokens {
	if cfg.UserClaim == "" {
		cfg.UserClaim = "sub"
	}
	if cfg.Algorithms == nil {
		cfg.Algorithms = Algorithms()
	}
	return &Tokens{cfg: cfg, keys: keys, parser: jwt.NewParser(
		jwt.WithValidMethods(cfg.Algorithms), jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
		jwt.WithExpirationRequired(), jwt.WithLeeway(cfg.Leeway), jwt.WithIssuedAt(), jwt.WithTimeFunc(now),
	)}
}

// IsToken tells whether a password can only be meant as a token: three parts in
// base64, of which the first is a JSON object.
func IsToken(password []byte) bool {
	if !bytes.HasPrefix(password, []byte("eyJ")) || bytes.Count(password, []byte{'.'}) != 2 {
		return false
	}
	for _, b := range password {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '_', b == '.':
		default:
			return false
		}
	}
	return true
}

// Verify returns what the token says, if it is one of the issuer's that counts now.
// It may wait for new keys, until ctx ends at the latest. An error is an auth.ErrProof
// or ErrNoKeys.
func (t *Tokens) Verify(ctx context.Context, token []byte) (Token, error) {
	if len(token) > maxToken {
		return Token{}, fmt.Errorf("%w: the token has %d bytes, more than %d", auth.ErrProof, len(token), maxToken)
	}
	claims := jwt.MapClaims{}
	_, err := t.parser.ParseWithClaims(string(token), claims, func(tok *jwt.Token) (any, error) {
		kid, _ := tok.Header["kid"].(string)
		return t.keys.find(ctx, kid, tok.Method.Alg())
	})
	switch {
	case errors.Is(err, ErrNoKeys):
		return Token{}, ErrNoKeys
	case err != nil:
		return Token{}, fmt.Errorf("%w: the token is not accepted: %w", auth.ErrProof, err)
	}
	out, err := t.read(claims)
	if err != nil {
		return Token{}, fmt.Errorf("%w: the token is not accepted: %w", auth.ErrProof, err)
	}
	return out, nil
}

// read takes what counts out of claims that the issuer has signed.
func (t *Tokens) read(claims jwt.MapClaims) (out Token, err error) {
	exp, err := claims.GetExpirationTime()
	if err != nil || exp == nil {
		return out, errors.New("it does not say until when it counts (exp)")
	}
	out.Until = exp.Add(t.cfg.Leeway)
	out.User, _ = claims[t.cfg.UserClaim].(string)
	if err := auth.ValidUser(out.User); err != nil {
		return out, fmt.Errorf("claim %s: %w", t.cfg.UserClaim, err)
	}
	var grant auth.Grant
	rules, err := texts(claims, t.cfg.RulesClaim, maxTokenRules)
	if err != nil {
		return out, err
	}
	for _, text := range rules {
		rule, err := auth.ParseRule(text)
		if err != nil {
			return out, fmt.Errorf("claim %s: %w", t.cfg.RulesClaim, err)
		}
		grant.Rules = append(grant.Rules, rule)
	}
	if grant.Roles, err = texts(claims, t.cfg.RolesClaim, maxTokenRoles); err != nil {
		return out, err
	}
	for _, role := range grant.Roles {
		if err := auth.ValidRole(role); err != nil {
			return out, fmt.Errorf("claim %s: %w", t.cfg.RolesClaim, err)
		}
	}
	if len(grant.Rules)+len(grant.Roles) > 0 {
		out.Grant = &grant
	}
	return out, nil
}

// texts returns a claim that is a list of texts, nil if it is not there. What else
// it is is an error: rights that cannot be read must not be left out.
func texts(claims jwt.MapClaims, name string, most int) (out []string, err error) {
	v, there := claims[name]
	if name == "" || !there {
		return nil, nil
	}
	items, ok := v.([]any)
	if !ok || len(items) > most {
		return nil, fmt.Errorf("claim %s is not a list of at most %d texts", name, most)
	}
	for _, item := range items {
		text, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("claim %s is not a list of at most %d texts", name, most)
		}
		out = append(out, text)
	}
	return out, nil
}
