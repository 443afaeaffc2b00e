package node

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/broker/listener"
	"github.com/mqcluster/mqcluster/identity"
	mtls "github.com/mqcluster/mqcluster/tls"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// unauthenticatedBytes is what all connections that have not proved who they
	// are may make the node hold.
	unauthenticatedBytes = 64 << 20
	// certCheck is how often certificate files are looked at.
	certCheck = 2 * time.Second
)

func (n *Node) openBroker(ctx context.Context) (err error) {
	l := n.cfg.Limits
	n.broker, err = broker.Open(ctx, broker.Config{
		MaxPacketSize: int(l.MaxPacketSize), ReceiveMaximum: l.ReceiveMaximum, MaxInflight: l.MaxInflight,
		MaxSubscriptions: l.MaxSubscriptions, MaxQueuedBytes: int(l.ClientBuffer), TopicAliasMaximum: l.TopicAliasMaximum,
		MaxSessionExpiry: uint32(l.PersistentClientExpiration / time.Second), MaxKeepAlive: uint16(l.MaxKeepAlive / time.Second),
		RetainedRate: cmp.Or(l.RetainedRate, -1),
		MessageRate:  l.MessageRate, ByteRate: int(l.ByteRate), TopicLevels: l.TopicLevels,
		RevealDenials: n.cfg.Auth.RevealDenials, ConnectTimeout: l.ConnectTimeout, UnservedTimeout: n.cfg.Drain.IsolatedAfter,
		StallTimeout: l.StallTimeout, DrainGrace: uint32(n.cfg.Drain.Grace / time.Second), ServerReference: n.cfg.Drain.Reference,
	}, broker.Deps{
		Log: brokerLog{n}, Routes: n.routes, Auth: authenticator{n},
		Enhanced: map[string]broker.Enhanced{identity.SCRAM: scramMethod{n}}, Refused: n.refusals, Misbehaved: n.guard.misbehaved,
		Logger: n.log, Registerer: n.reg, NodeID: n.cfg.Node.ID, Stamp: n.store.Stamp, Scarce: n.consensus.Scarce,
	})
	if err != nil {
		return err
	}
	n.push("broker", n.broker.Close)
	return nil
}

func (n *Node) openListeners(ctx context.Context) error {
	share := listener.Deps{
		Serve: n.serveClient, Explain: mtls.Describe, Logger: n.log, Registerer: n.reg, Banned: n.guard.banned, Refused: n.guard.refused,
		Budget:    listener.NewBudget(n.cfg.Limits.UnauthenticatedConnections, unauthenticatedBytes),
		Admission: listener.NewAdmission(listener.AdmissionConfig{MaxConnections: n.cfg.Limits.MaxConnections, Short: n.heap.short.Load, Messages: n.broker.Messages}),
	}
	if err := n.reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mqcluster_node_handshakes_waiting", Help: "TLS handshakes that wait for a core.",
	}, func() float64 { return float64(share.Admission.Waiting()) })); err != nil {
		return err
	}
	for i := range n.cfg.Listeners {
		if err := n.openListener(ctx, &n.cfg.Listeners[i], share); err != nil {
			return err
		}
	}
	n.serving.Store(true)
	return nil
}

func (n *Node) openListener(ctx context.Context, c *Listener, deps listener.Deps) error {
	if c.Secure() {
		t, err := mtls.OpenListener(mtls.ListenerConfig{
			CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, KeyPassFile: c.TLS.KeyPassFile,
			ClientCAFile: c.TLS.ClientCAFile, CRLFile: c.TLS.CRLFile, RequireClientCert: c.TLS.RequireClientCert,
			RequestClientCert: c.Identity == IdentityCN || c.Identity == IdentitySAN,
			MinVersion:        c.TLS.MinVersion, Ciphers: c.TLS.Ciphers, Revoked: n.store.Revoked,
		}, n.identity)
		if err != nil {
			return err
		}
		n.addTLS(tlsListener{t, c.Name, c.Address})
		n.wg.Go(func() {
			t.Watch(n.ctx, certCheck, func(err error) {
				if err != nil {
					n.log.Error("changed certificate files are not used", "listener", c.Name, "err", err)
					return
				}
				n.log.Info("certificate files were reloaded", "listener", c.Name)
			})
		})
		deps.TLS = t.Config
	} else {
		n.log.Warn("a listener without TLS: passwords and messages can be read on the way", "listener", c.Name, "address", c.Address)
	}
	var from []string
	for _, p := range c.ProxyFrom {
		from = append(from, p.String())
	}
	l, err := listener.Open(ctx, listener.Config{
		Name: c.Name, Address: c.Address, Kind: c.Kind, MaxConnections: c.MaxConnections,
		ConnectRate: float64(c.ConnectRate), HandshakeTimeout: n.cfg.Limits.ConnectTimeout,
		ProxyFrom: from, Path: c.Path, AllowedOrigins: c.AllowedOrigins,
	}, deps)
	if err != nil {
		return err
	}
	n.listeners = append(n.listeners, l)
	n.push("listener "+c.Name, l.Close)
	n.log.Info("listening", "listener", c.Name, "address", l.Addr().String())
	return nil
}

// addTLS gives a listener the ticket keys that the cluster shares.
func (n *Node) addTLS(t tlsListener) {
	n.secrets.mu.Lock()
	keys := n.secrets.keys.Tickets
	n.secrets.mu.Unlock()
	n.tlsMu.Lock()
	defer n.tlsMu.Unlock()
	n.tls = append(n.tls, t)
	if len(keys) > 0 {
		t.SetTicketKeys(keys)
	}
}

// listenerTLS are the TLS settings of the listeners that have some, by name.
func (n *Node) listenerTLS() map[string]*mtls.Listener {
	n.tlsMu.Lock()
	defer n.tlsMu.Unlock()
	out := map[string]*mtls.Listener{}
	for _, t := range n.tls {
		out[t.name] = t.Listener
	}
	return out
}

// serveClient passes a connection to the broker, and returns what serves it from
// here on.
func (n *Node) serveClient(ctx context.Context, c net.Conn, info listener.Info) (rest func()) {
	ci := broker.ConnInfo{Listener: info.Listener, Remote: info.Remote, Greeted: info.Greeted, Authenticated: info.Authenticated}
	if info.TLS != nil {
		ci.Certificates = info.TLS.PeerCertificates
	}
	forget := n.proofs.open(c, ci)
	if len(ci.Certificates) > 0 && n.store.Revoked(mtls.Serial(ci.Certificates[0])) {
		// Since the handshake, and before anybody could know of this connection.
		forget()
		return nil
	}
	serve := n.broker.Serve(ctx, c, ci)
	if serve == nil {
		forget()
		return nil
	}
	return func() {
		defer forget()
		serve()
	}
}
