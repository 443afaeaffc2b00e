package broker

import (
	"bytes"
	"cmp"
	"context"
	"errors"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
)

// Enhanced is one method of enhanced authentication (MQTT 5, section 4.12).
type Enhanced interface {
	// Begin starts an exchange for the client that presented c.
	Begin(c Credentials) Exchange
}

// Exchange is one run of a method with one client.
type Exchange interface {
	// Next takes what the client sent and returns what it is to be sent. done
	// ends the exchange, with the user that it proved; an error refuses it.
	Next(ctx context.Context, data []byte) (reply []byte, user string, done bool, err error)
}

// exchanging is the state of a client's enhanced authentication.
type exchanging struct {
	method   string
	data     []byte   // for CONNACK
	exchange Exchange // under way again, after CONNACK
}

// enhanced runs the exchange of a CONNECT.
func (c *client) enhanced(ctx context.Context, cred Credentials, data []byte) (string, error) {
	m := c.b.deps.Enhanced[c.auth.method]
	if m == nil {
		return "", &refusal{reasonBadMethod, "the authentication method is not known here"}
	}
	ex := m.Begin(cred)
	for {
		reply, user, done, err := ex.Next(ctx, data)
		if err != nil {
			return "", err
		}
		if done {
			c.auth.data = reply
			return user, nil
		}
		if data, err = c.challenge(reply); err != nil {
			return "", err
		}
	}
}

// challenge sends AUTH and returns the data of the client's answer.
func (c *client) challenge(data []byte) ([]byte, error) {
	b, err := codec.AppendPacket(nil, c.authPacket(reasonContinue, data))
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(b); err != nil {
		return nil, err
	}
	frame, err := c.firstFrame()
	if err != nil {
		return nil, err
	}
	if codec.FrameType(frame) != codec.TypeAuth {
		return nil, &refusal{reasonProtocolError, "only AUTH may follow AUTH"}
	}
	p, err := codec.Decode(frame, c.version)
	if err != nil {
		return nil, err
	}
	if p.Properties.AuthenticationMethod != c.auth.method || p.ReasonCode != reasonContinue {
		return nil, &refusal{reasonProtocolError, "AUTH changes the method"}
	}
	return bytes.Clone(p.Properties.AuthenticationData), nil
}

func (c *client) authPacket(reason byte, data []byte) *packets.Packet {
	p := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ProtocolVersion: 5, ReasonCode: reason}
	p.Properties.AuthenticationMethod = c.auth.method
	p.Properties.AuthenticationData = data
	p.Mods.MaxSize = uint32(c.maxPacket)
	return p
}

// errOtherUser: the session is one user's.
var errOtherUser = errors.New("the client proved to be another user than before")

// reauthenticate handles AUTH of a connected client. The user must stay the
// same, because the session is its own.
func (c *client) reauthenticate(p *packets.Packet) error {
	data := p.Properties.AuthenticationData
	switch {
	case c.auth == nil || p.Properties.AuthenticationMethod != c.auth.method:
		return &codec.Error{Reason: reasonProtocolError, Text: "AUTH without the method of CONNECT"}
	case p.ReasonCode == reasonReauthenticate:
		c.auth.exchange = c.b.deps.Enhanced[c.auth.method].Begin(c.credentials())
	case c.auth.exchange == nil:
		return &codec.Error{Reason: reasonProtocolError, Text: "AUTH without an exchange under way"}
	}
	ctx, cancel := context.WithTimeout(c.b.ctx, c.b.cfg.ConnectTimeout)
	defer cancel()
	reply, user, done, err := c.auth.exchange.Next(ctx, data)
	if err != nil || (done && user != c.user) {
		reason, cause := refusedLogin(err)
		c.refusedFor(reason, cause, "err", cmp.Or(err, errOtherUser))
		return &codec.Error{Reason: reasonNotAuthorized, Text: "not authorized"}
	}
	reason := reasonContinue
	if done {
		reason, c.auth.exchange = reasonSuccess, nil
	}
	b, err := codec.AppendPacket(nil, c.authPacket(reason, reply))
	if err != nil {
		return err
	}
	c.reply(func(dst []byte) []byte { return append(dst, b...) })
	return nil
}
