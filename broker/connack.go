package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/broker/refused"
	"github.com/mqcluster/mqcluster/fsm"
)

// refusal is why a CONNECT is answered with an error.
type refusal struct {
	reason byte
	text   string
}

func (r *refusal) Error() string { return r.text }

// Why something is refused: values of the label reason of refusals_total, and of the
// log.
const (
	refusedCredentials = "credentials"
	refusedDisabled    = "disabled"
	refusedBanned      = "banned"
	refusedThrottled   = "throttled"
	refusedBusy        = "busy"
	refusedAuth        = "authentication" // any other cause of it
	refusedProtocol    = "protocol"
	refusedPublish     = "publish_denied"
	refusedSubscribe   = "subscribe_denied"
	refusedWill        = "will"
	refusedForeign     = "foreign_session"
	refusedConnections = "user_connections"
	refusedSubscribes  = "subscriptions"
	refusedLevels      = "topic_levels"
	refusedSize        = "packet_size"
	refusedInflight    = "inflight"
	refusedRate        = "message_rate" // it waits, and is not lost
	refusedBytes       = "byte_rate"    // likewise
)

// refusedReasons are all of them.
func refusedReasons() []string {
	return []string{
		refusedCredentials, refusedDisabled, refusedBanned, refusedThrottled, refusedBusy, refusedAuth, refusedProtocol,
		refusedPublish, refusedSubscribe, refusedWill, refusedForeign, refusedConnections, refusedSubscribes, refusedLevels,
		refusedSize, refusedInflight, refusedRate, refusedBytes,
	}
}

// refused counts that something of the client is refused, and tells of it, but not
// each time.
func (c *client) refused(reason string, args ...any) { c.refusedFor(reason, "", args...) }

// refusedFor is refused with a cause that is told of by itself.
func (c *client) refusedFor(reason, cause string, args ...any) {
	c.b.m.refusals[reason].Inc()
	c.b.deps.Refused.NoteCause(reason, cause, refused.Source(c.info.Remote.Addr()).String(), append([]any{"client", c.id, "user", c.user}, args...)...)
}

// refusedLogin is the reason of an error of authentication, and its cause.
func refusedLogin(err error) (reason, cause string) {
	for _, r := range []struct {
		is     error
		reason string
	}{
		{auth.ErrUnknownUser, refusedCredentials}, {auth.ErrWrongPassword, refusedCredentials}, {auth.ErrNoCredentials, refusedCredentials}, {auth.ErrProof, refusedCredentials},
		{auth.ErrDisabled, refusedDisabled}, {auth.ErrBanned, refusedBanned}, {auth.ErrThrottled, refusedThrottled}, {auth.ErrBusy, refusedBusy},
	} {
		if errors.Is(err, r.is) {
			return r.reason, r.is.Error()
		}
	}
	return refusedAuth, ""
}

// authRefusal hides from the client whether user or password was wrong.
func authRefusal(err error) error {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, auth.ErrBusy):
		return &refusal{reasonBusy, auth.ErrBusy.Error()}
	case errors.Is(err, auth.ErrUnknownUser), errors.Is(err, auth.ErrWrongPassword), errors.Is(err, auth.ErrNoCredentials), errors.Is(err, auth.ErrProof):
		return &refusal{reasonBadCredentials, "user name or password is wrong"}
	case errors.Is(err, auth.ErrDisabled):
		return &refusal{reasonBanned, "the user is disabled"}
	case errors.Is(err, auth.ErrBanned):
		return &refusal{reasonBanned, "the client is banned"}
	case errors.Is(err, auth.ErrThrottled):
		return &refusal{reasonConnectRate, "too many logins have failed: try again later"}
	case errors.Is(err, auth.ErrMethod):
		return &refusal{reasonBadMethod, "the authentication method is not known here"}
	case errors.Is(err, auth.ErrUnavailable):
		return &refusal{reasonUnavailable, "the server cannot check the credentials now: try again"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &refusal{reasonUnavailable, "the server is too busy to check the password: try again"}
	}
	return &refusal{reasonNotAuthorized, "not authorized"}
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
	pr.ReceiveMaximum = uint16(c.incoming)
	pr.MaximumPacketSize = uint32(c.packetMax)
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
	if c.auth != nil {
		pr.AuthenticationMethod, pr.AuthenticationData = c.auth.method, c.auth.data
	}
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
		if r.reason == reasonUnavailable && c.b.cfg.ServerReference != "" {
			ack.ReasonCode, ack.Properties.ServerReference = c.b.goneReason(), c.b.cfg.ServerReference
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
	if s.reason == reasonUseAnother || s.reason == reasonMoved {
		p.Properties.ServerReference = c.b.cfg.ServerReference
	}
	out, err := codec.AppendPacket(dst, p)
	if err != nil {
		return dst
	}
	return out
}
