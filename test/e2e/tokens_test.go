//go:build linux

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// tokenIssuer signs tokens by keys of its own and writes them where nodes read.
type tokenIssuer struct {
	file string
	kid  atomic.Int64
	key  ed25519.PrivateKey
}

// rotate makes a new key, the only one from now on.
func (i *tokenIssuer) rotate(t *testing.T) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.key = private
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"%d","x":%q}]}`, i.kid.Add(1), base64.RawURLEncoding.EncodeToString(public))
	if err := os.WriteFile(i.file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
}

// token signs claims; those of a token that counts are there already.
func (i *tokenIssuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": "https://login.example.org", "aud": "mqtt", "sub": "gw7", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := part(map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": fmt.Sprint(i.kid.Load())}) + "." + part(all)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.key, []byte(text)))
}

// TestTokens logs in by JSON web tokens of an issuer that the cluster has no users
// of: rights come from the token, the connection ends with it, its keys change.
func TestTokens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	issuer := &tokenIssuer{file: filepath.Join(dir, "keys.json")}
	c := NewCluster(t, Options{Flags: append([]string{
		"--auth.jwt.jwks-file", issuer.file, "--auth.jwt.issuer", "https://login.example.org", "--auth.jwt.audience", "mqtt", "--auth.jwt.leeway", "0",
		"--auth.jwt.rules-claim", "acl", "--auth.jwt.roles-claim", "roles", "--auth.jwt.refresh", "1s",
	}, cheap...)})
	n := c.Nodes[0]
	n.CLI("acl", "set", "*", "--clear")
	n.CLI("acl", "set", "user:"+user, "allow both #")
	n.CLI("acl", "set", "role:readers", "allow subscribe news/#")
	at := func(node *Node, name, token string) login {
		return login{address: node.TLS, tls: c.ClientTLS, user: name, pass: token}
	}
	rights := map[string]any{"acl": []string{"allow publish plant/%u/#", "allow subscribe plant/#"}, "roles": []string{"readers"}}

	// The keys are not there yet: the node has started, and says so.
	issuer.key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	if _, ack, err := at(n, "gw7", issuer.token(t, nil)).connect(t, clean("early")); err != nil || ack.Reason != 0x88 {
		t.Errorf("without keys: %v %v", ack, err)
	}
	issuer.rotate(t)
	await(t, patience, func() bool {
		_, ack, err := at(n, "gw7", issuer.token(t, rights)).connect(t, clean("first"))
		return err == nil && ack.Reason == 0
	}, func() string { return "the keys are there, and the token is not taken" })

	t.Run("rights", func(t *testing.T) {
		var cl *Client
		for _, node := range c.Nodes {
			await(t, patience, func() bool {
				var ack *rawmqtt.Packet
				var err error
				cl, ack, err = at(node, "gw7", issuer.token(t, rights)).connect(t, clean("gw7-"+node.ID))
				return err == nil && ack.Reason == 0
			}, func() string { return node.ID + " does not take the token" })
			ack, err := cl.Subscribe(1, rawmqtt.Sub("plant/#", 1), rawmqtt.Sub("news/#", 1), rawmqtt.Sub("other/#", 1))
			if err != nil || ack.Reasons[0] != 1 || ack.Reasons[1] != 1 || ack.Reasons[2] < 0x80 {
				t.Errorf("SUBACK %v %v", ack, err)
			}
			for topic, ok := range map[string]bool{"plant/gw7/x": true, "plant/gw8/x": false, "news/x": false} {
				p, err := cl.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: 1, ID: cl.next(), Payload: []byte("x")})
				if err != nil || (p.Reason < 0x80) != ok {
					t.Errorf("publish to %s: %v %v", topic, p, err)
				}
			}
		}
	})
	t.Run("refusals", func(t *testing.T) {
		none := "eyJhbGciOiJub25lIn0." + strings.Split(issuer.token(t, nil), ".")[1] + "."
		other := &tokenIssuer{file: filepath.Join(dir, "other.json")}
		other.rotate(t)
		for name, l := range map[string]login{
			"expired":        at(n, "gw7", issuer.token(t, map[string]any{"exp": time.Now().Add(-time.Second).Unix()})),
			"foreign issuer": at(n, "gw7", issuer.token(t, map[string]any{"iss": "https://evil.example.org"})),
			"foreign aud":    at(n, "gw7", issuer.token(t, map[string]any{"aud": "mail"})),
			"not signed":     at(n, "gw7", none),
			"another key":    at(n, "gw7", other.token(t, nil)),
			"another name":   at(n, user, issuer.token(t, nil)),
		} {
			if _, ack, err := l.connect(t, clean("refused")); err != nil || ack.Reason != 0x86 {
				t.Errorf("%s: %v %v", name, ack, err)
			}
		}
	})
	t.Run("it ends with the token, and its will fires by its rights", func(t *testing.T) {
		w := c.Nodes[1].Connect(clean("witness"))
		w.Sub(rawmqtt.Sub("plant/#", 1))
		o := clean("short")
		o.Will = &rawmqtt.Will{Topic: "plant/gw7/will", Payload: []byte("gone")}
		short := map[string]any{"exp": time.Now().Add(3 * time.Second).Unix(), "acl": rights["acl"]}
		cl := at(n, "gw7", issuer.token(t, short)).must(t, o)
		start := time.Now()
		got, err := cl.AwaitClose(patience)
		if err != nil || len(got) == 0 || got[len(got)-1].Type != rawmqtt.DISCONNECT || got[len(got)-1].Reason != 0xa0 {
			t.Errorf("at its end: %v %v", got, err)
		}
		t.Logf("closed %v after the CONNECT with a token of 3 s", time.Since(start).Round(time.Millisecond))
		if m := w.Messages(1, patience)[0]; m.Topic != "plant/gw7/will" {
			t.Errorf("the will is %v", m)
		}
	})
	t.Run("keys change", func(t *testing.T) {
		old := issuer.token(t, rights)
		issuer.rotate(t)
		for _, node := range c.Nodes {
			await(t, patience, func() bool {
				_, ack, err := at(node, "gw7", issuer.token(t, rights)).connect(t, clean("rotated"))
				return err == nil && ack.Reason == 0
			}, func() string { return "the new key is not taken at " + node.ID })
			if _, ack, err := at(node, "gw7", old).connect(t, clean("rotated")); err != nil || ack.Reason < 0x80 {
				t.Errorf("a token of the old key: %v %v", ack, err)
			}
		}
	})
	t.Run("a user who is disabled here", func(t *testing.T) {
		cl := at(n, "gw7", issuer.token(t, rights)).must(t, clean("disabled"))
		n.CLI("user", "add", "gw7", "--no-password")
		n.CLI("user", "disable", "gw7")
		if _, err := cl.AwaitClose(patience); err != nil {
			t.Errorf("it stays: %v", err)
		}
		if _, ack, err := at(n, "gw7", issuer.token(t, rights)).connect(t, clean("disabled")); err != nil || ack.Reason != 0x8a {
			t.Errorf("it comes back: %v %v", ack, err)
		}
	})
}
