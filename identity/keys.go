package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

// Bounds of a key set, and of getting it.
const (
	maxKeySet    = 1 << 20 // bytes
	maxKeys      = 100
	minRSABits   = 2048
	fetchTimeout = 10 * time.Second
	// unknownPause lies between two fetches that tokens with an unknown key ask for:
	// anybody can send such.
	unknownPause = 10 * time.Second
	// retryFirst and retryMost bound the pause after a fetch that failed.
	retryFirst = time.Second
	retryMost  = time.Minute
)

// KeysConfig says where the keys of the issuer are: at a URL or in a file, as a JSON
// web key set [RFC 7517].
type KeysConfig struct {
	URL, File string
	// CAFile has the CAs that the URL's server is trusted by; empty: the system's.
	CAFile string
	// Refresh is how often they are read again.
	Refresh time.Duration
}

// ValidKeysURL tells whether keys can be got from a URL: over TLS, or from this
// machine.
func ValidKeysURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is not a URL: write such as https://login.example.org/keys", text)
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme == "https" || u.Scheme == "http" && local {
		return nil
	}
	return fmt.Errorf("%q is not https: whoever is on the way could give keys of their own", text)
}

// Keys are the issuer's public keys, read again now and then until Close. While they
// cannot be read the last ones that could count.
type Keys struct {
	cfg    KeysConfig
	log    *slog.Logger
	client *http.Client
	cancel context.CancelFunc
	done   sync.WaitGroup
	ask    chan struct{} // capacity 1: an unknown key was met

	mu      sync.Mutex
	all     []key
	read    bool          // they were, once
	tried   time.Time     // when an unknown key last had them read
	changed chan struct{} // closed and made anew after each attempt
}

type key struct {
	id, alg string
	public  any
}

// OpenKeys reads the keys, and returns though they cannot be read now: then it tries
// again, and says so in the log. An error is one of the configuration.
func OpenKeys(ctx context.Context, cfg KeysConfig, log *slog.Logger) (*Keys, error) {
	if cfg.Refresh <= 0 {
		cfg.Refresh = 5 * time.Minute
	}
	k := &Keys{cfg: cfg, log: log, ask: make(chan struct{}, 1), changed: make(chan struct{})}
	if cfg.URL != "" {
		if err := k.openClient(); err != nil {
			return nil, err
		}
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	first := k.refresh(ctx)
	k.done.Go(func() { k.run(run, first) })
	return k, nil
}

func (k *Keys) openClient() error {
	if err := ValidKeysURL(k.cfg.URL); err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if k.cfg.CAFile != "" {
		text, err := os.ReadFile(k.cfg.CAFile)
		if err != nil {
			return fmt.Errorf("the CAs of the keys' server cannot be read: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return fmt.Errorf("file %s holds no certificate: give a PEM file of CAs", k.cfg.CAFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	k.client = &http.Client{Transport: transport, Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("it redirects too often")
		}
		return ValidKeysURL(r.URL.String())
	}}
	return nil
}

// Close ends the reading. It is idempotent.
func (k *Keys) Close() error {
	k.cancel()
	k.done.Wait()
	if k.client != nil {
		k.client.CloseIdleConnections()
	}
	return nil
}

// run reads the keys again, soon where that failed.
func (k *Keys) run(ctx context.Context, last error) {
	pause := retryFirst
	for {
		wait := k.cfg.Refresh
		if last != nil {
			wait, pause = min(pause, k.cfg.Refresh), min(2*pause, retryMost)
		} else {
			pause = retryFirst
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-k.ask:
			timer.Stop()
		}
		last = k.refresh(ctx)
	}
}

// refresh reads the keys; those that cannot be read leave the former in force.
func (k *Keys) refresh(ctx context.Context) error {
	all, err := k.fetch(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.changed)
	k.changed = make(chan struct{})
	if err != nil {
		if ctx.Err() == nil {
			k.log.Warn("the keys of the tokens' issuer cannot be read; tried again", "keys", len(k.all), "err", err)
		}
		return err
	}
	if !k.read || len(all) != len(k.all) {
		k.log.Info("the keys of the tokens' issuer were read", "keys", len(all))
	}
	k.all, k.read = all, true
	return nil
}

func (k *Keys) fetch(ctx context.Context) ([]key, error) {
	text, err := k.text(ctx)
	if err != nil {
		return nil, err
	}
	return parseKeys(text)
}

func (k *Keys) text(ctx context.Context) ([]byte, error) {
	if k.cfg.URL == "" {
		f, err := os.Open(k.cfg.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readKeySet(f)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.cfg.URL, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := k.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", k.cfg.URL, resp.Status)
	}
	return readKeySet(resp.Body)
}

func readKeySet(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeySet+1))
	if err == nil && len(text) > maxKeySet {
		err = fmt.Errorf("the key set has more than %d bytes", maxKeySet)
	}
	return text, err
}

// parseKeys takes the keys out of a set that verify one of Algorithms. Others, and
// secret ones, are left out. A set without any of ours is an error, since it would
// lock everybody out.
func parseKeys(text []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("it is not a JSON web key set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys, more than %d", len(set.Keys), maxKeys)
	}
	var out []key
	for _, raw := range set.Keys {
		if one, ok := parseKey(raw); ok {
			out = append(out, one)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the key set has no key for RS256 (of 2048 bits at least), ES256 or EdDSA")
	}
	return out, nil
}

func parseKey(raw json.RawMessage) (one key, ok bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(raw, &m) != nil || m.USE != "" && m.USE != "sig" {
		return one, false
	}
	k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return one, false
	}
	one = key{id: m.KID, public: k.Key()}
	switch p := k.Key().(type) {
	case *rsa.PublicKey:
		one.alg = "RS256"
		ok = p.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		one.alg = "ES256"
		ok = p.Curve == elliptic.P256()
	case ed25519.PublicKey:
		one.alg = "EdDSA"
		ok = len(p) == ed25519.PublicKeySize
	}
	return one, ok && (m.ALG == "" || string(m.ALG) == one.alg)
}

// find returns the public key of an id for an algorithm. A token without an id may
// be of any key of its algorithm if there is one only. Of an unknown one the keys are
// read again, not too often, and find waits for that.
func (k *Keys) find(ctx context.Context, id, alg string) (any, error) {
	public, err := k.look(id, alg)
	if err == nil {
		return public, nil
	}
	k.mu.Lock()
	wait := k.changed
	pause := unknownPause
	if !k.read {
		pause = retryFirst
	}
	if time.Since(k.tried) < pause {
		k.mu.Unlock()
		return nil, err
	}
	k.tried = time.Now()
	k.mu.Unlock()
	select {
	case k.ask <- struct{}{}:
	default: // it is asked already
	}
	select {
	case <-wait:
	case <-ctx.Done():
	}
	return k.look(id, alg)
}

func (k *Keys) look(id, alg string) (public any, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.read {
		return nil, ErrNoKeys
	}
	fit := 0
	for _, one := range k.all {
		if one.alg == alg && (id == "" || one.id == id) {
			public = one.public
			fit++
		}
	}
	switch {
	case fit == 1:
		return public, nil
	case fit > 1:
		return nil, errors.New("the token does not say by which of several keys it is signed (kid)")
	}
	return nil, fmt.Errorf("there is no key %.60q for %s", id, alg)
}
