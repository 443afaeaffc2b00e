package codec

import "github.com/mqcluster/mqcluster/session"

// PublishPacket is a PUBLISH as ParsePublish found it. Its slices alias the
// frame.
type PublishPacket struct {
	Dup, Retain bool
	QoS         byte
	PacketID    uint16
	Topic       []byte
	Payload     []byte
	Alias       uint16
	HasAlias    bool
	// Expiry is the message expiry interval in seconds.
	Expiry    uint32
	HasExpiry bool
	// Properties are those that travel with the message, as
	// session.Message.Properties has them. They alias the frame where they are
	// contiguous and are copied where not.
	Properties []byte
}

// ParsePublish parses frame, one whole PUBLISH of a client.
func ParsePublish(frame []byte, version byte, p *PublishPacket) error { panic("soon") }

// PublishOptions is what differs between the receivers of one message.
type PublishOptions struct {
	QoS         byte
	Dup, Retain bool
	PacketID    uint16
	// Expiry is what remains of the message expiry interval, in seconds.
	Expiry    uint32
	HasExpiry bool
	// SubscriptionIDs, Alias, OmitTopic and the expiry are for version 5 only
	// and ignored for others. Alias 0 means none.
	SubscriptionIDs []uint32
	Alias           uint16
	OmitTopic       bool
}

// AppendPublish appends m as a PUBLISH to dst.
func AppendPublish(dst []byte, version byte, m *session.Message, o PublishOptions) []byte {
	panic("soon")
}

// PublishSize returns the bytes that AppendPublish would append.
func PublishSize(version byte, m *session.Message, o PublishOptions) int { panic("soon") }

// IDOffset returns the offset of the two bytes of the packet id in a PUBLISH of
// QoS 1 or 2, so that a shared encoding can be patched; 0 at QoS 0.
func IDOffset(frame []byte) int { panic("soon") }
