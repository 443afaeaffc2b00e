// Package codec is the MQTT wire format, versions 3.1, 3.1.1 and 5.
//
// The packets of the hot path (PUBLISH and its acknowledgements) are parsed in
// place and written by hand, without allocation. All others pass a strict gate,
// which checks every byte, and are then decoded by mochi-mqtt's package
// packets, so that its decoder never sees what the gate has not understood.
//
// The package knows packets and nothing else: no session, no connection, no
// policy. Whether a filter is well formed, an alias known or a client allowed
// is the engine's to say.
package codec

import (
	"fmt"
)

// Packet types [MQTT-2.1.2].
const (
	TypeConnect     byte = 1
	TypeConnack     byte = 2
	TypePublish     byte = 3
	TypePuback      byte = 4
	TypePubrec      byte = 5
	TypePubrel      byte = 6
	TypePubcomp     byte = 7
	TypeSubscribe   byte = 8
	TypeSuback      byte = 9
	TypeUnsubscribe byte = 10
	TypeUnsuback    byte = 11
	TypePingreq     byte = 12
	TypePingresp    byte = 13
	TypeDisconnect  byte = 14
	TypeAuth        byte = 15
)

// Protocol versions, as CONNECT carries them.
const (
	Version31  byte = 3
	Version311 byte = 4
	Version5   byte = 5
)

// MaxPacket is the largest packet that MQTT can express, in bytes, fixed
// header included.
const MaxPacket = 268_435_455 + 5

// Reason codes that this package reports (MQTT 5, section 2.4).
const (
	ReasonMalformed          byte = 0x81
	ReasonProtocolError      byte = 0x82
	ReasonUnsupportedVersion byte = 0x84
	ReasonClientIDNotValid   byte = 0x85
	ReasonBadAuthMethod      byte = 0x8C
	ReasonTopicNameInvalid   byte = 0x90
	ReasonTopicAliasInvalid  byte = 0x94
	ReasonPacketTooLarge     byte = 0x95
	ReasonQuotaExceeded      byte = 0x97
)

// Error is a protocol error of the peer. Reason is the MQTT 5 reason code for
// DISCONNECT or CONNACK.
type Error struct {
	Reason byte
	Text   string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (0x%02X)", e.Text, e.Reason) }

// FrameType returns the packet type of a frame that Scan has found.
func FrameType(frame []byte) byte { return frame[0] >> 4 }
