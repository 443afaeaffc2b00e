package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/auth"
)

// issuer signs tokens.
type issuer struct {
	method jwt.SigningMethod
	kid    string
	key    crypto.Signer
}

func newIssuer(t testing.TB, kid, alg string) *issuer {
	t.Helper()
	i := &issuer{method: jwt.GetSigningMethod(alg), kid: kid}
	var err error
	switch alg {
	case "RS256":
		i.key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, i.key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// jwk is the public key as a set has it.
func (i *issuer) jwk() map[string]string {
	b64 := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	m := map[string]string{"kid": i.kid, "alg": i.method.Alg(), "use": "sig"}
	switch p := i.key.Public().(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		raw, err := p.Bytes()
		if err != nil {
			panic(err) // a key that was made here
		}
		m["kty"], m["crv"], m["x"], m["y"] = "EC", "P-256", b64(raw[1:33]), b64(raw[33:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(p)
	}
	return m
}

func keySet(all ...*issuer) []byte {
	keys := []map[string]string{}
	for _, i := range all {
		keys = append(keys, i.jwk())
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err) // maps of strings
	}
	return text
}

// claims are those of a token that counts, changed.
func claims(change func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{"iss": "https://login.example.org", "aud": []string{"mqtt"}, "sub": "dev1", "exp": time.Now().Add(time.Minute).Unix()}
	if change != nil {
		change(c)
	}
	return c
}

func (i *issuer) sign(t testing.TB, c jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(i.method, c)
	if i.kid != "" {
		tok.Header["kid"] = i.kid
	}
	text, err := tok.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func tokens(t testing.TB, cfg KeysConfig) *Tokens {
	t.Helper()
	keys, err := OpenKeys(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	return NewTokens(TokenConfig{
		Issuer: "https://login.example.org", Audience: "mqtt", Leeway: 5 * time.Second, RulesClaim: "acl", RolesClaim: "roles",
	}, keys)
}

func file(t testing.TB, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokens(t *testing.T) {
	rs, es, ed := newIssuer(t, "rs", "RS256"), newIssuer(t, "es", "ES256"), newIssuer(t, "ed", "EdDSA")
	stranger := newIssuer(t, "es", "ES256") // with the name of a known key
	v := tokens(t, KeysConfig{File: file(t, keySet(rs, es, ed))})
	with := func(key string, value any) string {
		return es.sign(t, claims(func(c jwt.MapClaims) {
			if c[key] = value; value == nil {
				delete(c, key)
			}
		}))
	}
	// Signed by the public key as if it were a shared secret.
	confused := func() string {
		tok := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil))
		tok.Header["kid"] = "rs"
		text, err := tok.SignedString(rs.key.Public().(*rsa.PublicKey).N.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}()
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	rs512 := &issuer{method: jwt.SigningMethodRS512, kid: "rs", key: rs.key}
	wrongKid := &issuer{method: es.method, kid: "ed", key: es.key}
	many := make([]string, maxTokenRules+1)
	for i := range many {
		many[i] = "allow both x"
	}
	for _, tt := range []struct {
		name, token string
		want        Token
		ok          bool
	}{
		{"RS256", rs.sign(t, claims(nil)), Token{User: "dev1"}, true},
		{"ES256", es.sign(t, claims(nil)), Token{User: "dev1"}, true},
		{"EdDSA", ed.sign(t, claims(nil)), Token{User: "dev1"}, true},
		{"rules and roles", es.sign(t, claims(func(c jwt.MapClaims) {
			c["acl"], c["roles"] = []string{"allow publish plant/%c/#"}, []string{"sensors"}
		})), Token{User: "dev1", Grant: &auth.Grant{
			Roles: []string{"sensors"}, Rules: []auth.Rule{{Allow: true, Action: auth.Publish, Filter: "plant/%c/#"}},
		}}, true},
		{"expired within the leeway", with("exp", time.Now().Add(-2*time.Second).Unix()), Token{User: "dev1"}, true},
		{"expired", with("exp", time.Now().Add(-10*time.Second).Unix()), Token{}, false},
		{"without an end", with("exp", nil), Token{}, false},
		{"not yet", with("nbf", time.Now().Add(time.Minute).Unix()), Token{}, false},
		{"issued in the future", with("iat", time.Now().Add(time.Minute).Unix()), Token{}, false},
		{"foreign issuer", with("iss", "https://evil.example.org"), Token{}, false},
		{"no issuer", with("iss", nil), Token{}, false},
		{"foreign audience", with("aud", "mail"), Token{}, false},
		{"no audience", with("aud", nil), Token{}, false},
		{"no user", with("sub", nil), Token{}, false},
		{"a user with a NUL", with("sub", "dev\x001"), Token{}, false},
		{"a user that is a number", with("sub", 7), Token{}, false},
		{"a user of 64 KiB", with("sub", strings.Repeat("x", 12<<10)), Token{}, false},
		{"rules that are none", with("acl", []string{"allow everything"}), Token{}, false},
		{"rules that are no list", with("acl", "allow both #"), Token{}, false},
		{"too many rules", with("acl", many), Token{}, false},
		{"a role that is none", with("roles", []string{""}), Token{}, false},
		{"signed by somebody else", stranger.sign(t, claims(nil)), Token{}, false},
		{"another key's name", wrongKid.sign(t, claims(nil)), Token{}, false},
		{"an algorithm that does not count", rs512.sign(t, claims(nil)), Token{}, false},
		{"HS256 by the public key", confused, Token{}, false},
		{"not signed", unsigned, Token{}, false},
		{"nonsense", "eyJ.eyJ.x", Token{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), []byte(tt.token))
			if tt.ok != (err == nil) {
				t.Fatalf("%+v %v", got, err)
			}
			if err != nil {
				if !errors.Is(err, auth.ErrProof) {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if left := time.Until(got.Until); left > time.Minute+6*time.Second {
				t.Errorf("it counts for %v", left)
			}
			got.Until = time.Time{}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if !IsToken([]byte(tt.token)) {
				t.Error("it is not taken for a token")
			}
		})
	}
}

// TestKeyRotation: a token of a key that is new is taken as soon as the issuer
// publishes it, and one of a key that is gone is not.
func TestKeyRotation(t *testing.T) {
	older, newer := newIssuer(t, "1", "ES256"), newIssuer(t, "2", "EdDSA")
	var set atomic.Pointer[[]byte]
	one := keySet(older)
	set.Store(&one)
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(*set.Load())
	}))
	defer s.Close()
	v := tokens(t, KeysConfig{URL: s.URL, Refresh: time.Hour})
	ok := func(i *issuer, want bool) {
		t.Helper()
		if _, err := v.Verify(t.Context(), []byte(i.sign(t, claims(nil)))); (err == nil) != want {
			t.Errorf("a token of key %s: %v", i.kid, err)
		}
	}
	ok(older, true)
	two := keySet(newer)
	set.Store(&two)
	ok(newer, true)
	ok(older, false)
	if n := asked.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times", n)
	}
	for range 100 {
		ok(newIssuer(t, "unknown", "EdDSA"), false)
	}
	if n := asked.Load(); n > 3 {
		t.Errorf("unknown keys had the issuer asked %d times", n)
	}
}

// TestIssuerDownAtStart: a node starts, says that it cannot tell, and knows the keys
// when the issuer is there.
func TestIssuerDownAtStart(t *testing.T) {
	i := newIssuer(t, "1", "ES256")
	var up atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(keySet(i))
	}))
	defer s.Close()
	v := tokens(t, KeysConfig{URL: s.URL})
	token := []byte(i.sign(t, claims(nil)))
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, ErrNoKeys) {
		t.Errorf("without keys: %v", err)
	}
	up.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := v.Verify(ctx, token)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the keys are not known: %v", err)
		}
		<-tick.C
	}
	// Down again: the last keys go on counting.
	up.Store(false)
	if err := v.keys.refresh(t.Context()); err == nil {
		t.Error("a failure was not told")
	}
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("with the issuer down: %v", err)
	}
}

func TestKeySets(t *testing.T) {
	i := newIssuer(t, "1", "ES256")
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that it is refused is the test
	if err != nil {
		t.Fatal("this Go makes no weak keys, take one from a file:", err)
	}
	weakSet := keySet(&issuer{method: jwt.SigningMethodRS256, kid: "w", key: weak})
	for name, text := range map[string]string{
		"empty": "", "no set": "[]", "no keys": `{"keys":[]}`, "weak": string(weakSet),
		"a secret":       `{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0","kid":"1","alg":"HS256"}]}`,
		"for encryption": strings.Replace(string(keySet(i)), `"sig"`, `"enc"`, 1),
		"another curve":  `{"keys":[{"kty":"EC","crv":"P-384","x":"AA","y":"AA","kid":"1"}]}`,
	} {
		if keys, err := parseKeys([]byte(text)); err == nil {
			t.Errorf("%s: %d keys were taken", name, len(keys))
		}
	}
	for text, ok := range map[string]bool{
		"https://login.example.org/keys": true, "http://127.0.0.1:8080/": true, "http://localhost/k": true, "http://[::1]/k": true,
		"http://login.example.org/keys": false, "ftp://x/": false, "": false, "file:///etc/passwd": false, "https://user:pass@x/": false,
	} {
		if err := ValidKeysURL(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := OpenKeys(t.Context(), KeysConfig{URL: "http://login.example.org/"}, quiet()); err == nil {
		t.Error("keys are got in clear text")
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"1"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err == nil && len(keys) == 0 || len(keys) > maxKeys {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
	})
}

func FuzzVerifyToken(f *testing.F) {
	i := newIssuer(f, "1", "EdDSA")
	v := tokens(f, KeysConfig{File: file(f, keySet(i))})
	f.Add([]byte(i.sign(f, claims(nil)))[:60])
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	f.Fuzz(func(t *testing.T, token []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := v.Verify(ctx, token); err == nil {
			t.Fatalf("%q is a token of %q", token, got.User)
		}
	})
}
