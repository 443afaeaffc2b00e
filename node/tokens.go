package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/identity"
)

func (n *Node) openTokens(ctx context.Context) error {
	j := n.cfg.Auth.JWT
	if !j.on() {
		return nil
	}
	keys, err := identity.OpenKeys(ctx, identity.KeysConfig{
		URL: j.JWKSURL, File: j.JWKSFile, CAFile: j.CAFile, Refresh: j.Refresh,
	}, n.log)
	if err != nil {
		return err
	}
	n.push("keys of the tokens' issuer", keys.Close)
	n.tokens = identity.NewTokens(identity.TokenConfig{
		Issuer: j.Issuer, Audience: j.Audience, Leeway: j.Leeway, UserClaim: j.UserClaim,
		RulesClaim: j.RulesClaim, RolesClaim: j.RolesClaim, Algorithms: j.Algorithms,
	}, keys)
	return nil
}

// on tells whether tokens are a source of users.
func (j *JWTConfig) on() bool { return j.JWKSURL != "" || j.JWKSFile != "" }

// proveToken returns the user of the token that came in the password's place. The
// user need not be known here; one that is, and is disabled, stays out.
func (n *Node) proveToken(ctx context.Context, c broker.Credentials) (string, error) {
	token, err := n.tokens.Verify(ctx, c.Password)
	switch {
	case errors.Is(err, identity.ErrNoKeys):
		return c.Username, fmt.Errorf("%w: %w", auth.ErrUnavailable, err)
	case err != nil:
		return c.Username, err
	case c.Username != "" && c.Username != token.User:
		return c.Username, fmt.Errorf("%w: the token is of user %q and the CONNECT of user %q: use one name, or none in the CONNECT", auth.ErrProof, token.User, c.Username)
	}
	n.proofs.tokened(c, token, n.tokenEnded)
	if u, known := n.store.Policy().User(token.User); known && u.Disabled {
		return token.User, auth.ErrDisabled
	}
	return token.User, nil
}

// reasonConnectTime is the MQTT 5 reason code "maximum connect time".
const reasonConnectTime = 0xA0

// tokenEnded ends the connection whose token counts no longer.
func (n *Node) tokenEnded(p proof) {
	n.log.Info("a client's token has expired", "client", p.client, "user", p.user)
	if p.client == "" || !n.broker.Kick(p.client, reasonConnectTime) {
		_ = p.conn.Close() // it has no session yet that could be told
	}
	time.AfterFunc(kickGrace, func() { _ = p.conn.Close() }) // should another have had the client id
}

// kickGrace is how long a client that is sent away may take to hear of it.
const kickGrace = 5 * time.Second

// rightsOf returns what a client may do.
func (n *Node) rightsOf(c broker.Credentials, user string) broker.Rights {
	w := auth.Who{User: user, ClientID: c.ClientID}
	if len(c.Certificates) > 0 {
		w.Cert = certFields(c.Certificates[0])
	}
	if n.tokens != nil {
		w.Grant = n.proofs.granted(c)
	}
	r := n.store.Policy().RightsOf(w)
	if w.Cert == (auth.CertFields{}) && w.Grant == nil || !n.identityLevel() {
		return r
	}
	return borneRights{r, bearerOf(&w)}
}

// borneRights are rights that depend on more than user and client id.
type borneRights struct {
	*auth.Rights
	bearer *logpb.Bearer
}

var _ broker.Bearer = borneRights{}

// Bearer implements broker.Bearer.
func (r borneRights) Bearer() *logpb.Bearer { return r.bearer }

func bearerOf(w *auth.Who) *logpb.Bearer {
	b := &logpb.Bearer{Cn: w.Cert.CN, O: w.Cert.O, Ou: w.Cert.OU, Dns: w.Cert.DNS}
	if w.Grant != nil {
		b.Roles, b.Rules = w.Grant.Roles, ruleRecords(w.Grant.Rules)
	}
	return b
}

func ruleRecords(rules []auth.Rule) (out []*logpb.Rule) {
	for _, r := range rules {
		out = append(out, &logpb.Rule{Allow: r.Allow, Action: uint32(r.Action), Filter: r.Filter})
	}
	return out
}

// maxCertField is the longest name of a certificate that rules may use, in bytes.
const maxCertField = 255

// certFields are the names in a certificate that rules may use.
func certFields(c *x509.Certificate) auth.CertFields {
	first := func(all ...string) string {
		// What is no name stands for nothing.
		if len(all) == 0 || len(all[0]) > maxCertField || !utf8.ValidString(all[0]) {
			return ""
		}
		return all[0]
	}
	return auth.CertFields{
		CN: first(c.Subject.CommonName), O: first(c.Subject.Organization...), OU: first(c.Subject.OrganizationalUnit...), DNS: first(c.DNSNames...),
	}
}
