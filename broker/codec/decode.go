package codec

import (
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/session"
)

// Decode decodes frame, one whole packet as Scan found it, other than PUBLISH
// and its acknowledgements. Where client and server send the same type, it must
// be what a client may send. For CONNECT version is ignored and taken from the
// packet. The packet does not alias frame.
func Decode(frame []byte, version byte) (*packets.Packet, error) { panic("soon") }

// DecodeServer is Decode for clients: it takes what a server may send, PUBLISH
// and its acknowledgements included.
func DecodeServer(frame []byte, version byte) (*packets.Packet, error) { panic("soon") }

// ConnectVersion returns in which version a CONNACK that refuses the CONNECT in
// frame is to be written: 3, 4 or 5, the nearest one where the level is not
// known, and 0 where the protocol name is not and the connection is to be
// closed without an answer [MQTT-3.1.2-1].
func ConnectVersion(frame []byte) byte { panic("soon") }

// Will returns the will in a CONNECT that Decode has accepted, nil if it has
// none. Unlike Decode's, its properties are in wire form and order, and an
// expiry interval of 0 is told from none. Message.Publisher, Stamp and
// ExpiresAt are left to the caller.
func Will(frame []byte) *session.Will { panic("soon") }

// AppendPacket appends any packet but PUBLISH and its acknowledgements to dst.
// Where p.Mods.MaxSize is set and the packet is larger, it is written without
// reason string and user properties [MQTT-3.2.2-19]; where that does not help,
// the error's reason is ReasonPacketTooLarge.
func AppendPacket(dst []byte, p *packets.Packet) ([]byte, error) { panic("soon") }
