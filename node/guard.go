package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/broker/refused"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/identity"
)

// guard keeps out who is banned, slows down who guesses passwords, and has the
// cluster ban who goes too far. What it counts is of this node alone; its bans are
// everybody's.
type guard struct {
	n        *Node
	throttle *auth.Throttle
	bans     *prometheus.CounterVec

	mu sync.Mutex
	// scans counts what no client does that works, flaps connections by client id.
	scans *auth.Tally[netip.Addr]
	flaps *auth.Tally[string]
	// guests are addresses from which somebody was let in of late: many may be behind
	// one, and the bad one is not worth the others.
	guests  *auth.Tally[netip.Addr]
	banning map[string]bool // bans on their way into the log
}

// guestFor is how long an address from which somebody was let in is not banned for
// what others there do.
const guestFor = time.Hour

func (n *Node) openGuard() error {
	a := n.cfg.Abuse
	n.refusals = refused.New(n.log)
	n.guard = &guard{
		n:        n,
		throttle: auth.NewThrottle(auth.ThrottleConfig{PerAddress: a.AddressFailures, PerUser: a.UserFailures, Window: a.Window}),
		bans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mqcluster_node_automatic_bans_total", Help: "Bans that this node had put into the log by itself, by kind.",
		}, []string{"kind"}),
		scans: auth.NewTally[netip.Addr](a.ScanLimit, a.Window), flaps: auth.NewTally[string](a.FlapLimit, a.Window),
		guests: auth.NewTally[netip.Addr](1, guestFor), banning: map[string]bool{},
	}
	for _, kind := range []string{auth.BanAddress, auth.BanClient} {
		n.guard.bans.WithLabelValues(kind)
	}
	return errors.Join(n.reg.Register(n.guard.bans), n.reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mqcluster_node_bans", Help: "Bans in force.",
	}, func() float64 { return float64(n.store.Bans().Len()) })))
}

// admits tells whether a client's credentials are to be looked at. user is whom it
// claims to be, if anybody.
func (g *guard) admits(c broker.Credentials, user string) error {
	// Whether a user is banned is told to who has proved to be it.
	if err := g.n.store.Bans().Check(c.Address.Addr(), "", c.ClientID); err != nil {
		return err
	}
	if g.token(c) {
		return nil
	}
	return g.throttle.Allow(refused.Source(c.Address.Addr()), user)
}

// token tells whether the credentials are a token: nobody guesses a signature, and
// whoever comes with a key that is not known yet comes again.
func (g *guard) token(c broker.Credentials) bool {
	return g.n.tokens != nil && identity.IsToken(c.Password)
}

// judged notes what became of credentials, and returns the last word on them. user is
// whom they proved, or whom the client claims to be.
func (g *guard) judged(c broker.Credentials, user string, err error) error {
	source := refused.Source(c.Address.Addr())
	for _, wrong := range []error{auth.ErrUnknownUser, auth.ErrWrongPassword, auth.ErrNoCredentials, auth.ErrProof} {
		if errors.Is(err, wrong) {
			if !g.token(c) {
				g.throttle.Failed(source, user)
			}
			g.misbehaved(c.Address)
			return err
		}
	}
	if err == nil {
		err = g.n.store.Bans().Check(c.Address.Addr(), user, c.ClientID)
	}
	if err != nil {
		return err
	}
	g.throttle.Succeeded(source, user)
	now := time.Now()
	g.mu.Lock()
	g.guests.Add(source, now)
	flaps := g.flaps.Add(c.ClientID, now)
	g.mu.Unlock()
	if flaps {
		g.ban(auth.BanClient, c.ClientID, fmt.Sprintf("connected %d times within %s", g.n.cfg.Abuse.FlapLimit, g.n.cfg.Abuse.Window))
	}
	return nil
}

// banned is asked by the listeners.
func (g *guard) banned(a netip.Addr) bool {
	_, banned := g.n.store.Bans().Address(a)
	return banned
}

// refused is told by the listeners whom they refused.
func (g *guard) refused(reason string, remote netip.AddrPort) {
	source := refused.Source(remote.Addr())
	g.n.refusals.Note("listener_"+reason, source.String())
	switch reason {
	case "tls", "websocket", "too_much", "timeout":
		g.misbehaved(remote)
	}
}

// misbehaved notes that somebody at an address did what no client does that works.
func (g *guard) misbehaved(remote netip.AddrPort) {
	source, now := refused.Source(remote.Addr()), time.Now()
	g.mu.Lock()
	scans := g.scans.Add(source, now) && !g.guests.Has(source, now)
	g.mu.Unlock()
	if !scans {
		return
	}
	network := netip.PrefixFrom(source, source.BitLen())
	if source.Is6() {
		network = netip.PrefixFrom(source, 64)
	}
	g.ban(auth.BanAddress, network.String(), fmt.Sprintf("failed %d times within %s and never got in", g.n.cfg.Abuse.ScanLimit, g.n.cfg.Abuse.Window))
}

// ban has the cluster keep somebody out for a while. It does not wait.
func (g *guard) ban(kind, value, reason string) {
	key := kind + "\x00" + value
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.banning[key] || len(g.banning) >= 100 || g.n.ctx.Err() != nil || !g.n.identityLevel() {
		return
	}
	g.banning[key] = true
	g.n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(g.n.ctx, controlTimeout)
		defer cancel()
		life := g.n.cfg.Abuse.BanTime
		err := g.n.propose(ctx, &logpb.Item{
			Kind: &logpb.Item_BanPut{BanPut: &logpb.BanPut{Kind: kind, Value: value, Reason: reason, Automatic: true, Lifetime: life.Milliseconds()}},
			By:   &logpb.By{Actor: "node " + g.n.cfg.Node.ID, Node: g.n.cfg.Node.ID, Operation: "ban/add", Subject: kind + " " + value, Detail: reason},
		})
		if err == nil {
			g.bans.WithLabelValues(kind).Inc()
			g.n.log.Warn("somebody is banned", "kind", kind, "value", auth.Shorten(value, 128), "why", reason, "for", life)
		} else {
			g.n.log.Debug("a ban did not get into the log", "kind", kind, "err", err)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.banning, key)
	})
}
