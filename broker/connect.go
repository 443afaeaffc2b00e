package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// refusal is why a CONNECT is answered with an error.
type refusal struct {
	reason byte
	text   string
}

func (r *refusal) Error() string { return r.text }

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
	return c.welcome(p, claimed, assigned)
}

// firstFrame reads the first packet, which must be CONNECT [MQTT-3.1.0-1].
func (c *client) firstFrame() ([]byte, error) {
	in := &c.in
	for {
		if in.w > in.r {
			buf := in.buf[in.r:in.w]
			if codec.FrameType(buf) != codec.TypeConnect && !c.authenticating {
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
	c.method = pr.AuthenticationMethod
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
	cred := Credentials{
		ClientID: c.id, Username: string(p.Connect.Username), HasUsername: p.Connect.UsernameFlag,
		Password: p.Connect.Password, Certificates: c.info.Certificates,
		Listener: c.info.Listener, Address: c.info.Remote,
	}
	if c.info.UserFromCert != "" {
		cred.Username, cred.HasUsername, cred.Password = c.info.UserFromCert, true, nil
	}
	var err error
	switch {
	case c.method != "":
		c.user, err = c.enhanced(ctx, cred, p.Properties.AuthenticationData)
	case !cred.HasUsername && len(cred.Certificates) == 0 && c.info.AllowAnonymous:
	default:
		c.user, err = b.deps.Auth.Authenticate(ctx, cred)
	}
	if err != nil {
		b.m.authFailed.Inc()
		b.log.Info("a client was refused", "client", c.id, "address", c.info.Remote, "err", err)
		return authRefusal(err)
	}
	return c.checkWill(will)
}

// available tells whether the node may accept and acknowledge.
func (b *Broker) available() bool {
	return b.serving.Load() && !b.draining.Load() && b.deps.Log.Leased()
}

// authRefusal hides from the client whether user or password was wrong.
func authRefusal(err error) error {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, auth.ErrBusy):
		return &refusal{reasonBusy, auth.ErrBusy.Error()}
	case errors.Is(err, auth.ErrUnknownUser), errors.Is(err, auth.ErrWrongPassword), errors.Is(err, auth.ErrNoCredentials):
		return &refusal{reasonBadCredentials, "user name or password is wrong"}
	case errors.Is(err, auth.ErrDisabled):
		return &refusal{reasonBanned, "the user is disabled"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &refusal{reasonUnavailable, "the server is too busy to check the password: try again"}
	}
	return &refusal{reasonNotAuthorized, "not authorized"}
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

// own makes c the connection of its session. It runs where the claim is
// applied: what the log publishes after it reaches the session.
func (c *client) own(cl *fsm.Claimed) {
	b := c.b
	c.mu.Lock()
	c.epoch, c.logged, c.horizon = uint64(cl.Epoch), cl.Logged, cl.Horizon
	c.resumeFrom(cl)
	c.mu.Unlock()
	b.mu.Lock()
	old := b.clients[c.id]
	b.clients[c.id] = c
	b.mu.Unlock()
	now := b.n.connected.Add(1)
	for {
		peak := b.n.peak.Load()
		if now <= peak || b.n.peak.CompareAndSwap(peak, now) {
			break
		}
	}
	if old != nil {
		// Its EventEnded came before; this is for a log that forgets it.
		b.detach(old)
		old.shut(shutdown{reason: reasonTakenOver, lost: true})
	}
	for _, s := range cl.Subscriptions {
		b.place(c, s, true)
	}
}

// resumeFrom puts the outgoing side where the session is. The caller holds
// c.mu.
func (c *client) resumeFrom(cl *fsm.Claimed) {
	o := &c.out
	o.chunk = firstChunk
	o.read, o.cursor = cl.Cursor, cl.Cursor
	o.behind = cl.Present
	if n := len(cl.Inflight) + len(cl.Outbound); n > 0 {
		o.resumed, o.again = map[session.Pos]session.Out{}, map[session.Pos]session.Out{}
		o.taken = make(map[uint16]struct{}, n)
	}
	for _, f := range cl.Inflight {
		out := session.Out{Pos: f.Pos, PacketID: f.PacketID}
		if f.PacketID == 0 {
			out.State = session.OutDone
		} else {
			o.taken[f.PacketID] = struct{}{}
		}
		o.resume(out)
	}
	for _, out := range cl.Outbound {
		c.resumeOut(out)
	}
	c.resumeReplays(cl.Replays)
}

// resume notes what an earlier connection sent.
func (o *outgoing) resume(out session.Out) {
	if out.Pos.Retained() {
		o.again[out.Pos] = out
	} else {
		o.resumed[out.Pos] = out
	}
}

// resumeOut goes on with a QoS 2 message [MQTT-4.4.0-1].
func (c *client) resumeOut(out session.Out) {
	o := &c.out
	if out.Message != nil && !out.Pos.Retained() {
		// Its queue has given it up while it was under way: its record carries it.
		o.taken[out.PacketID] = struct{}{}
		c.pushQueue(message{m: out.Message, pos: out.Pos, id: out.PacketID, qos: 2, dup: true, logged: true})
		return
	}
	own := out.Pos.Retained()
	o.resume(out)
	if own && out.State != session.OutDone {
		o.keep(out.Pos)
	}
	switch out.State {
	case session.OutReceived:
		o.fly(out.PacketID, flight{pos: out.Pos, qos: 2, received: true, owed: !own, logged: true})
		o.control = codec.AppendAck(o.control, c.version, codec.TypePubrel, out.PacketID, 0)
		if !own {
			o.owed.add(out.Pos)
		}
	case session.OutSent:
		o.taken[out.PacketID] = struct{}{}
		if own {
			// Its record carries it, because the topic's message may be another now.
			c.pushQueue(message{
				m: out.Message, pos: out.Pos, id: out.PacketID, qos: 2, dup: true, retain: true, logged: true,
			})
		}
	}
}

// welcome writes CONNACK; from here on the client is served.
func (c *client) welcome(p *packets.Packet, cl *fsm.Claimed, assigned string) error {
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ack, err := codec.AppendPacket(nil, c.connack(p, cl, assigned))
	if err != nil {
		return err
	}
	c.lastIn.Store(c.b.tick.Load())
	c.ready.Store(true)
	c.b.n.connects.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if o.closing {
		return errDone
	}
	o.open = true
	o.control = append(ack, o.control...)
	c.wake()
	if feeds := slices.Clone(o.feeds); len(feeds) > 0 {
		c.wg.Go(func() {
			defer c.recovered()
			c.runFeeds(feeds)
		})
	}
	return nil
}

func (c *client) connack(p *packets.Packet, cl *fsm.Claimed, assigned string) *packets.Packet {
	cfg := &c.b.cfg
	ack := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: c.version,
		// 3.1 has no session present flag.
		SessionPresent: cl.Present && c.version > 3,
	}
	if c.version < 5 {
		return ack
	}
	ack.Mods.MaxSize = uint32(c.maxPacket)
	pr := &ack.Properties
	pr.ReceiveMaximum = uint16(cfg.ReceiveMaximum)
	pr.MaximumPacketSize = uint32(cfg.MaxPacketSize)
	pr.TopicAliasMaximum = uint16(cfg.TopicAliasMaximum)
	pr.AssignedClientID = assigned
	if *cfg.MaxQoS < 2 {
		pr.MaximumQos, pr.MaximumQosFlag = *cfg.MaxQoS, true
	}
	pr.RetainAvailable, pr.RetainAvailableFlag = 1, true
	pr.WildcardSubAvailable, pr.WildcardSubAvailableFlag = 1, true
	pr.SubIDAvailable, pr.SubIDAvailableFlag = 1, true
	pr.SharedSubAvailable, pr.SharedSubAvailableFlag = 1, true
	if c.expiry != p.Properties.SessionExpiryInterval {
		pr.SessionExpiryInterval, pr.SessionExpiryIntervalFlag = c.expiry, true
	}
	if k := cfg.MaxKeepAlive; k != 0 && (p.Connect.Keepalive == 0 || p.Connect.Keepalive > k) {
		pr.ServerKeepAlive, pr.ServerKeepAliveFlag = k, true
	}
	pr.AuthenticationMethod, pr.AuthenticationData = c.method, c.authData
	return ack
}

// refuseConnect answers a CONNECT that is not accepted, where the version has
// an answer.
func (c *client) refuseConnect(version byte, err error) error {
	c.b.n.refused.Add(1)
	r := &refusal{reason: reasonUnspecified}
	var ce *codec.Error
	if !errors.As(err, &r) && errors.As(err, &ce) {
		r = &refusal{ce.Reason, ce.Text}
	}
	ack := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: version, ReasonCode: r.reason}
	switch {
	case version == 5:
		ack.Properties.ReasonString = r.text
		ack.Properties.ServerReference = ""
		if r.reason == reasonUnavailable && c.b.cfg.ServerReference != "" {
			ack.ReasonCode, ack.Properties.ServerReference = reasonUseAnother, c.b.cfg.ServerReference
		}
		ack.Mods.MaxSize = uint32(c.maxPacket)
	case version == 0:
		return err
	default:
		if ack.ReasonCode = returnCode(r.reason); ack.ReasonCode == 0 {
			return err
		}
	}
	b, aerr := codec.AppendPacket(nil, ack)
	if aerr != nil {
		return aerr
	}
	c.mu.Lock()
	if !c.out.closing {
		c.out.control = append(c.out.control, b...)
	}
	c.mu.Unlock()
	return err
}

// returnCode is the CONNACK code before version 5, 0 if there is none that
// fits and the connection is closed without an answer.
func returnCode(reason byte) byte {
	switch reason {
	case reasonVersion:
		return 1
	case reasonClientID:
		return 2
	case reasonUnavailable, reasonBusy, reasonUseAnother:
		return 3
	case reasonBadCredentials:
		return 4
	case reasonNotAuthorized, reasonBanned, reasonTopicInvalid, reasonQoSNotSupported:
		return 5
	}
	return 0
}

// appendDisconnect appends DISCONNECT, which only version 5 servers send.
func appendDisconnect(dst []byte, c *client, s shutdown) []byte {
	p := &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5, ReasonCode: s.reason,
	}
	p.Mods.MaxSize = uint32(c.maxPacket)
	p.Properties.ReasonString = s.text
	if s.reason == reasonUseAnother {
		p.Properties.ServerReference = c.b.cfg.ServerReference
	}
	out, err := codec.AppendPacket(dst, p)
	if err != nil {
		return dst
	}
	return out
}

// reserved tells whether topic is one that clients may not publish to: "$SYS"
// and whatever else begins with a dollar sign.
func reserved(topic string) bool { return topic != "" && topic[0] == '$' }
