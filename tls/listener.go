package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ListenerConfig is the TLS of one client listener. Certificates may be anybody's
// or the cluster's own.
type ListenerConfig struct {
	// CertFile is the certificate with its intermediates, leaf first; empty: the
	// node's identity serves. KeyFile empty: the key is in CertFile.
	// KeyPassFile holds the passphrase of an encrypted key.
	CertFile, KeyFile, KeyPassFile string
	// ClientCAFile has the CAs of client certificates; empty: the cluster's CA.
	// With CRLFile, each of these CAs needs a valid CRL in it.
	ClientCAFile, CRLFile string
	// RequestClientCert asks clients for a certificate and verifies it if one
	// comes; RequireClientCert refuses clients that send none.
	RequestClientCert, RequireClientCert bool
	MinVersion                           string   // "1.2" (default) or "1.3"
	Ciphers                              []string // IANA names, TLS 1.2 only; empty: strongCiphers
	// Names are the host names and addresses that clients use. Each must be in
	// the certificate.
	Names []string
	// Revoked tells of a client certificate's Serial whether it was revoked. It
	// is asked on every handshake, resumed ones too, and must not block.
	Revoked func(serial string) bool
}

// Listener holds the TLS settings of one client listener, and what they were
// read from. It is safe for concurrent use; handshakes take no lock.
type Listener struct {
	cfg      ListenerConfig
	fallback *Identity

	mu    sync.Mutex // serialises the making of states
	keys  [][32]byte
	state atomic.Pointer[listenerState]
}

// listenerState is what one generation of handshakes uses. It is immutable.
type listenerState struct {
	files  *listenerFiles
	own    *credentials // the identity's that config was made of; nil without one
	roots  *x509.CertPool
	config *tls.Config
	// before are the clients that came under this generation; nil with a CRL, which
	// looks at the chains themselves.
	before *verified
}

// OpenListener reads and checks the files of cfg. Without a CertFile or a
// ClientCAFile it uses the fallback, which may be nil otherwise, and follows its
// replacements.
func OpenListener(cfg ListenerConfig, fallback *Identity) (*Listener, error) {
	if err := cfg.validate(fallback != nil); err != nil {
		return nil, err
	}
	l := &Listener{cfg: cfg, fallback: fallback}
	if err := l.Reload(); err != nil {
		return nil, err
	}
	return l, nil
}

func (cfg ListenerConfig) asks() bool { return cfg.RequestClientCert || cfg.RequireClientCert }

func (cfg ListenerConfig) validate(fallback bool) error {
	if _, err := parseVersion(cfg.MinVersion); err != nil {
		return err
	}
	suites, err := parseCiphers(cfg.Ciphers)
	switch {
	case err != nil:
		return err
	case len(suites) > 0 && cfg.MinVersion == "1.3":
		return errors.New("ciphers can be chosen for TLS 1.2 only: leave them out, or set the minimum version to 1.2")
	case cfg.CertFile == "" && (cfg.KeyFile != "" || cfg.KeyPassFile != ""):
		return errors.New("a key file is set and no certificate file: set both, or neither to serve with the node's certificate")
	case cfg.CertFile == "" && !fallback:
		return errors.New("the listener has no certificate: set a certificate and a key file")
	case cfg.ClientCAFile == "" && cfg.asks() && !fallback:
		return errors.New("client certificates are to be verified and no CA file is set: set one")
	case cfg.CRLFile != "" && cfg.ClientCAFile == "":
		return errors.New("a CRL file needs a client CA file: set one; certificates of the cluster's CA are revoked without a CRL")
	}
	return nil
}

// Config returns the settings for tls.Server or tls.NewListener. They follow
// every Reload, SetTicketKeys and change of the identity from the next handshake
// on, and may be cloned.
func (l *Listener) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return l.fresh().config, nil
		},
	}
}

// fresh returns the state, remade if the identity was replaced since.
func (l *Listener) fresh() *listenerState {
	s := l.state.Load()
	if s.own == l.identity() {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remake(l.state.Load().files)
}

func (l *Listener) identity() *credentials {
	if l.fallback == nil {
		return nil
	}
	return l.fallback.current.Load()
}

// Leaf returns the certificate that the listener serves with now.
func (l *Listener) Leaf() *x509.Certificate {
	s := l.fresh()
	if s.files.pair != nil {
		return s.files.pair.Leaf
	}
	return s.own.leaf
}

// SetTicketKeys sets the keys of session tickets: the first one makes tickets,
// all open them. Nodes that share keys resume each other's sessions. Before the
// first call each Config has keys of its own, which crypto/tls rotates.
func (l *Listener) SetTicketKeys(keys [][32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = slices.Clone(keys)
	l.remake(l.state.Load().files)
}

// Reload reads the files again. They are checked whole before they replace the
// old ones, which stay if anything is wrong. It blocks on the files.
func (l *Listener) Reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	raw, err := l.cfg.read()
	if err != nil {
		return err
	}
	files, err := l.cfg.load(raw)
	if err != nil {
		return err
	}
	leaf := files.pair
	if leaf == nil {
		leaf = &l.identity().pair
	}
	for _, name := range l.cfg.Names {
		if err := CheckName(leaf.Leaf, name); err != nil {
			return err
		}
	}
	l.remake(files)
	return nil
}

// Watch reads the files every interval and reloads them when their content has
// changed, until ctx ends. report gets nil after a reload and the error of one
// that failed, the same error once. Content is compared and not the time of the
// last change: the files are small, and times miss a change within their grain.
func (l *Listener) Watch(ctx context.Context, interval time.Duration, report func(error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := l.refresh()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if report != nil && (changed && err == nil || text != last && err != nil) {
			report(err)
		}
		last = text
	}
}

// refresh reloads if the files have changed. A set that was refused is tried
// again: what was wrong may have been the time, or half a set.
func (l *Listener) refresh() (changed bool, err error) {
	raw, err := l.cfg.read()
	if err != nil {
		return false, err
	}
	if raw.sum() == l.state.Load().files.sum {
		return false, nil
	}
	return true, l.Reload()
}

// remake makes the state of files, the identity and the ticket keys of now, and
// puts it in use. The caller holds mu.
func (l *Listener) remake(files *listenerFiles) *listenerState {
	s := &listenerState{files: files, own: l.identity(), roots: files.roots}
	// Both were validated by OpenListener.
	version, _ := parseVersion(l.cfg.MinVersion)
	suites, _ := parseCiphers(l.cfg.Ciphers)
	if len(suites) == 0 {
		suites = strongCiphers()
	}
	pair := files.pair
	if pair == nil {
		pair = &s.own.pair
	}
	if s.roots == nil && s.own != nil {
		s.roots = s.own.roots
	}
	if files.crls == nil {
		s.before = new(verified)
	}
	s.config = &tls.Config{
		MinVersion:       version,
		CipherSuites:     suites,
		Certificates:     []tls.Certificate{*pair},
		VerifyConnection: func(state tls.ConnectionState) error { return l.verify(s, state) },
	}
	switch {
	case l.cfg.RequireClientCert:
		s.config.ClientAuth = tls.RequireAndVerifyClientCert
	case l.cfg.RequestClientCert:
		s.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if l.cfg.asks() {
		s.config.ClientCAs = s.roots
	}
	if len(l.keys) > 0 {
		s.config.SetSessionTicketKeys(l.keys)
	}
	l.state.Store(s)
	return s
}

// chains returns how the client's certificates lead up to the roots; none where that
// was seen before, and nobody has to look at them.
func (s *listenerState) chains(state tls.ConnectionState) (chains [][]*x509.Certificate, err error) {
	chains = state.VerifiedChains
	if s.before == nil && !state.DidResume {
		return chains, nil
	}
	key := presented(state.PeerCertificates)
	if state.DidResume {
		if s.before != nil && s.before.find(key, time.Now()) {
			return nil, nil
		}
		if chains, err = verifyChain(state.PeerCertificates, s.roots, x509.ExtKeyUsageClientAuth); err != nil {
			return nil, err
		}
	}
	if s.before != nil {
		s.before.note(key, chains)
	}
	return chains, nil
}

// verify judges a client's certificate on every handshake. A resumed session
// brings the certificate of its first handshake, which may have been another
// listener's, node's or day's: it is verified as if it had come now.
func (l *Listener) verify(s *listenerState, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		if l.cfg.RequireClientCert {
			return failf(ErrNoCertificate, "client sent no certificate: give it one of a CA that is trusted here")
		}
		return nil
	}
	chains, err := s.chains(state)
	if err != nil {
		return err
	}
	leaf := state.PeerCertificates[0]
	e, err := clientEntity(leaf)
	if err != nil {
		return err
	}
	if l.fallback != nil && s.files.roots == nil && e.kind != "" && e.cluster != l.fallback.clusterID {
		return failf(ErrUntrusted, "the certificate of %q is of cluster %s: issue one of this cluster", e.name, e.cluster)
	}
	if l.cfg.Revoked != nil && l.cfg.Revoked(Serial(leaf)) {
		return failf(ErrRevoked, "the certificate of %s (serial %s) was revoked: issue a new one with mqcluster cert issue", subjectOf(leaf), Serial(leaf))
	}
	return s.files.crls.check(chains, time.Now())
}
