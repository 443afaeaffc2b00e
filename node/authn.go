package node

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/identity"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// verifyQueue is how many clients may wait for their password to be verified,
// for each worker: about ten seconds' worth.
const verifyQueue = 300

func (n *Node) openAuth(ctx context.Context) error {
	params := n.hashCost()
	if err := params.Validate(); err != nil {
		return err
	}
	workers := n.hashWorkers()
	n.shared = make(chan auth.Entry, 1024)
	n.memory = auth.NewMemory(auth.MemoryConfig{OnRemember: n.share})
	n.verifier = auth.NewVerifier(workers, workers*verifyQueue, auth.WithMemory(n.memory), auth.WithRenew(n.renewHash))
	n.secrets = &secrets{use: n.useSecrets}
	if err := n.openGuard(); err != nil {
		return err
	}
	if err := n.countChecks(); err != nil {
		return err
	}
	if err := n.openTokens(ctx); err != nil {
		return err
	}
	return n.verifier.SetCost(params)
}

func (n *Node) countChecks() error {
	hashed := func() float64 { n, _ := n.verifier.Checks(); return float64(n) }
	remembered := func() float64 { _, n := n.verifier.Checks(); return float64(n) }
	for how, count := range map[string]func() float64{"hashed": hashed, "remembered": remembered} {
		if err := n.reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "mqcluster_node_password_checks_total",
			Help:        "Passwords of clients that were checked, by how: hashed, or remembered from an earlier check on any node.",
			ConstLabels: prometheus.Labels{"how": how},
		}, count)); err != nil {
			return err
		}
	}
	return nil
}

// hashWorkers is how many password hashes are computed at once.
func (n *Node) hashWorkers() int {
	if n.cfg.Auth.Workers > 0 {
		return n.cfg.Auth.Workers
	}
	return max(1, runtime.GOMAXPROCS(0)/2)
}

func (n *Node) hashCost() auth.Params {
	p := auth.DefaultParams()
	if n.cfg.Auth.Argon2Memory > 0 {
		p.Memory = uint32(n.cfg.Auth.Argon2Memory >> 10)
	}
	if n.cfg.Auth.Argon2Time > 0 {
		p.Time = uint32(n.cfg.Auth.Argon2Time)
	}
	return p
}

// authenticate implements authenticator.
func (n *Node) authenticate(ctx context.Context, c broker.Credentials) (string, error) {
	if err := n.guard.admits(c, c.Username); err != nil {
		return "", err
	}
	user, err := n.prove(ctx, c)
	return user, n.guard.judged(c, user, err)
}

// prove returns the user that the credentials prove.
func (n *Node) prove(ctx context.Context, c broker.Credentials) (string, error) {
	l := n.listenerConfig(c.Listener)
	policy := n.store.Policy()
	certName, err := certificateUser(l, c)
	if err != nil {
		return "", err
	}
	switch {
	case certName != "":
		if c.HasUsername && c.Username != certName {
			return "", fmt.Errorf("%w: the certificate is of user %q and the CONNECT of user %q: use one name", auth.ErrUnknownUser, certName, c.Username)
		}
		n.proofs.shown(c, certName, 0)
		return certName, admits(policy, certName)
	case n.tokens != nil && identity.IsToken(c.Password):
		return n.proveToken(ctx, c)
	case !c.HasUsername && l != nil && l.AllowAnonymous:
		n.proofs.shown(c, "", 0)
		return "", nil
	case !c.HasUsername:
		return "", auth.ErrNoCredentials
	}
	// Noted first: a change while the password is being verified is seen too.
	u, ok := policy.User(c.Username)
	if ok {
		n.proofs.shown(c, c.Username, u.Version)
	}
	if err := n.verifier.Authenticate(ctx, policy, c.Username, c.Password); err != nil {
		return c.Username, err
	}
	// A change that came before the note was looked for in vain there.
	if now, still := n.store.Policy().User(c.Username); !still || now.Disabled || now.Version != u.Version {
		return c.Username, auth.ErrWrongPassword
	}
	n.keepScram(u, c.Password)
	return c.Username, nil
}

// admits tells whether a user that a certificate proves may connect.
func admits(p *auth.Policy, name string) error {
	u, ok := p.User(name)
	switch {
	case !ok:
		return auth.ErrUnknownUser
	case u.Disabled:
		return auth.ErrDisabled
	}
	return nil
}

// policyChanged is called on the goroutine that applies.
func (n *Node) policyChanged() {
	select {
	case n.recheck <- struct{}{}:
	default: // it is noted already
	}
}

// reasonNotAuthorized is the MQTT 5 reason code.
const reasonNotAuthorized = 0x87

// expelLoop ends the connections whose user may connect no longer, whose
// password was changed, whose certificate was revoked, or who are banned. What the others may do,
// the broker looks up again by itself.
func (n *Node) expelLoop() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.recheck:
		}
		n.expelBroken()
	}
}

// expelBroken ends the connections whose proof holds no longer.
func (n *Node) expelBroken() {
	n.expelMu.Lock()
	defer n.expelMu.Unlock()
	var trusts func(*x509.Certificate) bool
	if n.caChanged.Swap(false) {
		trusts = n.identity.Trusts
	}
	for _, p := range n.proofs.broken(n.store.Policy(), n.store.Bans(), n.store.Revoked, trusts) {
		n.log.Info("a client may be connected no longer", "client", p.client)
		if p.client == "" || !n.broker.Kick(p.client, reasonNotAuthorized) {
			_ = p.conn.Close() // it has no session yet that could be told
		}
	}
}

// serveEnforced returns when the connections that what was applied here forbids are
// ended.
func (n *Node) serveEnforced(context.Context, string, none) (none, error) {
	n.expelBroken()
	return none{}, nil
}

// certificateUser is the user that the certificate names, empty where the
// listener does not take users from certificates or none came.
func certificateUser(l *Listener, c broker.Credentials) (string, error) {
	if l == nil || l.Identity == IdentityNone || l.Identity == "" || len(c.Certificates) == 0 {
		return "", nil
	}
	return mtls.ClientName(c.Certificates[0], l.Identity)
}

func (n *Node) listenerConfig(name string) *Listener {
	for i := range n.cfg.Listeners {
		if n.cfg.Listeners[i].Name == name {
			return &n.cfg.Listeners[i]
		}
	}
	return nil
}

// share passes a verified password's keyed hash to the peers, later: it is
// called on the way to a CONNACK.
func (n *Node) share(e auth.Entry) {
	select {
	case n.shared <- e:
	default: // the peers verify it themselves then
	}
}

// shareLoop tells the peers what was remembered here, in batches.
func (n *Node) shareLoop() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case e := <-n.shared:
			batch := []auth.Entry{e}
			for more := true; more && len(batch) < 1024; {
				select {
				case e := <-n.shared:
					batch = append(batch, e)
				default:
					more = false
				}
			}
			for peer := range n.book.members() {
				if peer == n.cfg.Node.ID {
					continue
				}
				if err := n.call(n.ctx, peer, pathRemember, batch, new(none)); err != nil {
					n.log.Debug("a peer was not told of verified passwords", "member", peer, "err", err)
				}
			}
		}
	}
}

func (n *Node) serveRemember(_ context.Context, _ string, batch []auth.Entry) (none, error) {
	for _, e := range batch {
		n.memory.Learn(e)
	}
	return none{}, nil
}

// secrets are keys that live in the nodes' memory only: the leader makes them
// and hands them down with the leases.
type secrets struct {
	use func(secretKeys)

	mu   sync.Mutex
	keys secretKeys
}

type secretKeys struct {
	ID       uint32     `json:"id"` // of the newest password key
	Password []byte     `json:"password"`
	Tickets  [][32]byte `json:"tickets"` // the newest first
	Made     time.Time  `json:"made"`
}

// secretLife is how long keys are used for new entries and tickets.
const secretLife = 12 * time.Hour

func (s *secrets) receive(blob []byte) {
	var k secretKeys
	if json.Unmarshal(blob, &k) != nil || len(k.Password) == 0 {
		return
	}
	s.mu.Lock()
	s.keys = k
	s.mu.Unlock()
	s.use(k)
}

// renew returns the blob that the leader is to hand down, nil if it need not be
// changed.
func (s *secrets) renew(now time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys.Password) > 0 && now.Sub(s.keys.Made) < secretLife {
		return nil
	}
	k := secretKeys{ID: s.keys.ID + 1, Password: randomBytes(32), Made: now}
	k.Tickets = append([][32]byte{[32]byte(randomBytes(32))}, s.keys.Tickets...)
	k.Tickets = k.Tickets[:min(len(k.Tickets), 2)]
	s.keys = k
	blob, err := json.Marshal(k)
	if err != nil {
		return nil
	}
	return blob
}

// replace makes new keys without the old ones: somebody has those who should not.
func (s *secrets) replace(now time.Time) []byte {
	s.mu.Lock()
	s.keys = secretKeys{ID: s.keys.ID}
	s.mu.Unlock()
	return s.renew(now)
}

func (s *secrets) blob() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys.Password) == 0 {
		return nil
	}
	blob, err := json.Marshal(s.keys)
	if err != nil {
		return nil
	}
	return blob
}

func (n *Node) useSecrets(k secretKeys) {
	n.memory.SetKey(k.ID, k.Password)
	n.recalled.Do(func() { n.wg.Go(n.recall) })
	n.tlsMu.Lock()
	defer n.tlsMu.Unlock()
	for _, l := range n.tls {
		l.SetTicketKeys(k.Tickets)
	}
}
