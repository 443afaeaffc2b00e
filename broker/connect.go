package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// connect handles everything up to CONNACK. On an error the connection is to be
// closed; in.connected tells whether there is a session to release.
func (c *client) connect() error {
	frame, err := c.firstFrame()
	if err != nil {
		return err
	}
	if c.info.Greeted != nil {
		c.info.Greeted()
	}
	p, err := codec.Decode(frame, 0)
	if err != nil {
		return c.refuseConnect(codec.ConnectVersion(frame), err)
	}
	c.version = p.ProtocolVersion
	will := codec.Will(frame)
	c.will = will != nil
	assigned := c.identify(p)
	p.Connect.ClientIdentifier = c.id
	if err := c.admit(p, will); err != nil {
		return c.refuseConnect(c.version, err)
	}
	claimed, err := c.claim(p, will)
	if errors.Is(err, fsm.ErrUnknown) {
		// It may have been carried out, and CONNACK could only say yes or no.
		return errDone
	}
	if err != nil {
		return c.refuseConnect(c.version, err)
	}
	if c.info.Authenticated != nil {
		c.info.Authenticated()
	}
	if err := c.welcome(p, claimed, assigned); err != nil {
		return err
	}
	if c.b.draining.Load() {
		c.retire(c.b.sendAway()) // it was let in before, and Drain did not see it
	}
	return nil
}

// firstFrame reads the first packet, which must be CONNECT [MQTT-3.1.0-1].
func (c *client) firstFrame() ([]byte, error) {
	in := &c.in
	for {
		if in.w > in.r {
			buf := in.buf[in.r:in.w]
			if codec.FrameType(buf) != codec.TypeConnect && c.auth == nil {
				return nil, errDone
			}
			n, _, err := codec.ScanClient(buf, c.b.cfg.MaxPacketSize)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				in.r += n
				return buf[:n], nil
			}
		}
		if err := c.receive(); err != nil {
			return nil, err
		}
	}
}

// identify sets what the CONNECT says of the client and returns the client id
// if the server chose it.
func (c *client) identify(p *packets.Packet) (assigned string) {
	cfg := &c.b.cfg
	c.id = p.Connect.ClientIdentifier
	if c.id == "" {
		// 130 bits: no other client has it.
		c.id = "auto-" + rand.Text()
		assigned = c.id
	}
	keep := p.Connect.Keepalive
	if cfg.MaxKeepAlive != 0 && (keep == 0 || keep > cfg.MaxKeepAlive) && c.version == 5 {
		keep = cfg.MaxKeepAlive
	}
	c.keepAlive = int64(keep) * int64(time.Second) * 3 / 2 // [MQTT-3.1.2-22]
	c.problem = true
	c.window = cfg.MaxInflight
	if c.version < 5 {
		if !p.Connect.Clean {
			c.expiry = session.Never
		}
		c.expiry = min(c.expiry, cfg.MaxSessionExpiry)
		return assigned
	}
	pr := &p.Properties
	c.problem = !pr.RequestProblemInfoFlag || pr.RequestProblemInfo == 1
	c.maxPacket = int(pr.MaximumPacketSize)
	c.aliasMax = min(int(pr.TopicAliasMaximum), cfg.TopicAliasMaximum)
	if pr.ReceiveMaximum != 0 {
		c.window = min(c.window, int(pr.ReceiveMaximum))
	}
	c.expiry = min(pr.SessionExpiryInterval, cfg.MaxSessionExpiry)
	if pr.AuthenticationMethod != "" {
		c.auth = &exchanging{method: pr.AuthenticationMethod}
	}
	return assigned
}

// admit decides whether the client may connect.
func (c *client) admit(p *packets.Packet, will *session.Will) error {
	b := c.b
	if !b.available() {
		return &refusal{reasonUnavailable, "this node is not part of a quorum now: connect to another one, or try again"}
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.cfg.ConnectTimeout)
	defer cancel()
	cred := c.credentials()
	cred.Username, cred.HasUsername, cred.Password = string(p.Connect.Username), p.Connect.UsernameFlag, p.Connect.Password
	if c.info.UserFromCert != "" {
		cred.Username, cred.HasUsername, cred.Password = c.info.UserFromCert, true, nil
	}
	var err error
	switch {
	case c.auth != nil:
		c.user, err = c.enhanced(ctx, cred, p.Properties.AuthenticationData)
	case !cred.HasUsername && len(cred.Certificates) == 0 && c.info.AllowAnonymous:
	default:
		c.user, err = b.deps.Auth.Authenticate(ctx, cred)
	}
	if err != nil {
		b.m.authFailed.Inc()
		reason, cause := refusedLogin(err)
		c.refusedFor(reason, cause, "claims", cred.Username, "err", err)
		return authRefusal(err)
	}
	if err := c.checkWill(will); err != nil {
		c.refused(refusedWill, "err", err)
		return err
	}
	return c.open()
}

// open counts the connection as one of its user's, and notes what CONNACK tells of
// the user's limits: they hold as long as the connection does.
func (c *client) open() error {
	b := &c.may().bounds
	c.packetMax, c.incoming, c.window = b.packetSize, b.inflight, less(c.window, b.outgoing)
	a, ok := c.b.accounts.open(c.user, b.connections)
	if !ok {
		c.refused(refusedConnections)
		return &refusal{reasonQuota, "the user has as many connections as it may"}
	}
	c.account = a
	return nil
}

// available tells whether the node may accept and acknowledge.
func (b *Broker) available() bool {
	return b.serving.Load() && !b.draining.Load() && b.deps.Log.Leased()
}

func (c *client) checkWill(w *session.Will) error {
	if w == nil {
		return nil
	}
	switch {
	case w.Message.QoS > *c.b.cfg.MaxQoS:
		return &refusal{reasonQoSNotSupported, "the QoS of the will is not supported"}
	case routing.ValidTopic(w.Message.Topic) != nil:
		return &refusal{reasonTopicInvalid, "the topic of the will is not valid"}
	case c.tooDeep(w.Message.Topic):
		return &refusal{reasonTopicInvalid, "the topic of the will has more levels than are allowed"}
	case reserved(w.Message.Topic) || !c.may().MayPublish(w.Message.Topic):
		return &refusal{reasonNotAuthorized, "the client may not publish to the topic of its will"}
	}
	return nil
}

// claim gets the session from the log. It waits for the log.
func (c *client) claim(p *packets.Packet, w *session.Will) (*fsm.Claimed, error) {
	cl := &logpb.Claim{
		Client: c.id, User: c.user, CleanStart: p.Connect.Clean, Expiry: c.expiry,
		Protocol: uint32(c.version), Will: willRecord(w), Address: c.info.Remote.String(),
	}
	if b, ok := c.may().Rights.(Bearer); ok && cl.Will != nil {
		cl.Will.Bearer = b.Bearer()
	}
	got := make(chan fsm.Result, 1)
	c.b.deps.Log.Submit(&logpb.Item{Kind: &logpb.Item_Claim{Claim: cl}}, func(r fsm.Result) {
		if r.Err == nil {
			c.own(r.Claim)
		}
		got <- r
	})
	r := <-got
	switch {
	case r.Err == nil:
		c.in.connected = true
		return r.Claim, nil
	case errors.Is(r.Err, fsm.ErrForeignSession):
		c.refused(refusedForeign)
		return nil, &refusal{reasonClientID, "the client id belongs to a session of another user: use another one"}
	case errors.Is(r.Err, fsm.ErrUnknown):
		return nil, r.Err
	}
	return nil, &refusal{reasonUnavailable, "the cluster cannot take the connection now: connect to another node, or try again"}
}

func willRecord(w *session.Will) *logpb.Will {
	if w == nil {
		return nil
	}
	m := &w.Message
	r := &logpb.Will{
		Topic: m.Topic, Payload: m.Payload, Qos: uint32(m.QoS), Retain: m.Retain, Properties: m.Properties, Delay: w.Delay,
	}
	if w.HasExpiry {
		r.Expiry = &w.Expiry
	}
	return r
}

// reserved tells whether topic is one that clients may not publish to: "$SYS"
// and whatever else begins with a dollar sign.
func reserved(topic string) bool { return topic != "" && topic[0] == '$' }
