package codec

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/session"
)

// text returns s with its length before it.
func text(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }

// frame puts a fixed header before the parts.
func frame(first byte, parts ...string) []byte {
	b := strings.Join(parts, "")
	return append(appendVarint([]byte{first}, uint32(len(b))), b...)
}

// props puts the property length before the parts.
func props(parts ...string) string {
	b := strings.Join(parts, "")
	return string(appendVarint(nil, uint32(len(b)))) + b
}

// reasonOf returns the reason of err: 0 for none, 0xFF for an error that is not
// an Error.
func reasonOf(err error) byte {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return 0xFF
}

func TestScan(t *testing.T) {
	tests := []struct {
		name    string
		buf     string
		most    int
		n, need int
		reason  byte
	}{
		{"nothing", "", 0, 0, 2, 0},
		{"type only", "\xC0", 0, 0, 2, 0},
		{"ping", "\xC0\x00", 0, 2, 0, 0},
		{"ping and more", "\xC0\x00\xC0", 0, 2, 0, 0},
		{"length unfinished", "\x30\x80", 0, 0, 3, 0},
		{"body missing", "\x30\x05\x00", 0, 0, 7, 0},
		{"largest length", "\x30\xFF\xFF\xFF\x7F", 0, 0, MaxPacket, 0},
		{"type 0", "\x00", 0, 0, 0, 0x81},
		{"length of five bytes", "\x30\x80\x80\x80\x80", 0, 0, 0, 0x81},
		{"[MQTT-1.5.5-1] length longer than needed", "\x30\x85\x00", 0, 0, 0, 0x81},
		{"too large, before its body came", "\x30\xFF\xFF\xFF\x7F", 1 << 20, 0, 0, 0x95},
		{"exactly the limit", "\x30\x05\x00", 7, 0, 7, 0},
		{"one over the limit", "\x30\x06\x00", 7, 0, 0, 0x95},
		{"[MQTT-2.1.3-1] CONNECT flags", "\x11", 0, 0, 0, 0x81},
		{"[MQTT-3.3.1-4] QoS 3", "\x36", 0, 0, 0, 0x81},
		{"[MQTT-3.3.1-2] DUP at QoS 0", "\x38", 0, 0, 0, 0x81},
		{"[MQTT-3.6.1-1] PUBREL flags", "\x60", 0, 0, 0, 0x81},
		{"[MQTT-3.8.1-1] SUBSCRIBE flags", "\x80", 0, 0, 0, 0x81},
		{"[MQTT-3.10.1-1] UNSUBSCRIBE flags", "\xA3", 0, 0, 0, 0x81},
		{"PUBREL with the DUP of 3.1", "\x6A\x02\x00\x01", 0, 4, 0, 0},
		{"[MQTT-3.14.1-1] DISCONNECT flags", "\xE1", 0, 0, 0, 0x81},
		{"PINGREQ with a body", "\xC0\x01", 0, 0, 0, 0x81},
		{"PUBACK without id", "\x40\x01", 0, 0, 0, 0x81},
		{"CONNACK", "\x20\x02\x00\x00", 0, 4, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, need, err := Scan([]byte(tt.buf), tt.most)
			if n != tt.n || need != tt.need || reasonOf(err) != tt.reason {
				t.Errorf("Scan = %d, %d, %v; want %d, %d, reason %#x", n, need, err, tt.n, tt.need, tt.reason)
			}
		})
	}
	for _, first := range []byte{0x20, 0x90, 0xB0, 0xD0} {
		if _, _, err := ScanClient([]byte{first}, 0); reasonOf(err) != ReasonProtocolError {
			t.Errorf("ScanClient of type %d: %v", first>>4, err)
		}
	}
}

func TestParsePublish(t *testing.T) {
	const (
		expiry = "\x02\x00\x00\x00\x3C"
		alias  = "\x23\x00\x07"
		format = "\x01\x01"
	)
	ctype := "\x03" + text("a/b")
	user := "\x26" + text("k") + text("v")
	tests := []struct {
		name    string
		frame   []byte
		version byte
		want    PublishPacket
		reason  byte
	}{
		{name: "3.1.1", version: 4, frame: frame(0x3B, text("a/b"), "\x00\x09", "hello"),
			want: PublishPacket{Dup: true, Retain: true, QoS: 1, PacketID: 9, Topic: []byte("a/b"), Payload: []byte("hello")}},
		{name: "no payload", version: 4, frame: frame(0x30, text("a")),
			want: PublishPacket{Topic: []byte("a"), Payload: []byte{}}},
		{name: "5, no properties", version: 5, frame: frame(0x34, text("a"), "\x01\x00", props(), "x"),
			want: PublishPacket{QoS: 2, PacketID: 256, Topic: []byte("a"), Payload: []byte("x")}},
		{name: "contiguous properties", version: 5, frame: frame(0x30, text("a"), props(expiry, format, ctype, user, user, alias), "x"),
			want: PublishPacket{Topic: []byte("a"), Payload: []byte("x"), Alias: 7, HasAlias: true, Expiry: 60, HasExpiry: true,
				Properties: []byte(format + ctype + user + user)}},
		{name: "scattered properties", version: 5, frame: frame(0x30, text("a"), props(user, expiry, user, format, alias, ctype)),
			want: PublishPacket{Topic: []byte("a"), Payload: []byte{}, Alias: 7, HasAlias: true, Expiry: 60, HasExpiry: true,
				Properties: []byte(user + user + format + ctype)}},
		{name: "alias instead of topic", version: 5, frame: frame(0x30, text(""), props(alias)),
			want: PublishPacket{Topic: []byte{}, Payload: []byte{}, Alias: 7, HasAlias: true}},
		{name: "expiry 0 is one", version: 5, frame: frame(0x30, text("a"), props("\x02\x00\x00\x00\x00")),
			want: PublishPacket{Topic: []byte("a"), Payload: []byte{}, HasExpiry: true}},

		{name: "[MQTT-2.2.1-3] id 0", version: 4, frame: frame(0x32, text("a"), "\x00\x00"), reason: 0x81},
		{name: "id missing", version: 4, frame: frame(0x32, text("a"), "\x00"), reason: 0x81},
		{name: "topic cut short", version: 4, frame: frame(0x30, "\x00\x05abc"), reason: 0x81},
		{name: "[MQTT-3.3.2-2] wildcard +", version: 5, frame: frame(0x30, text("a/+"), props()), reason: 0x90},
		{name: "[MQTT-3.3.2-2] wildcard #", version: 4, frame: frame(0x30, text("#")), reason: 0x90},
		{name: "[MQTT-1.5.4-1] bad UTF-8", version: 5, frame: frame(0x30, text("\xC0\x80"), props()), reason: 0x81},
		{name: "[MQTT-1.5.4-1] surrogate", version: 5, frame: frame(0x30, text("\xED\xA0\x80"), props()), reason: 0x81},
		{name: "[MQTT-1.5.4-2] U+0000", version: 5, frame: frame(0x30, text("a\x00"), props()), reason: 0x81},
		{name: "no topic, no alias", version: 5, frame: frame(0x30, text(""), props()), reason: 0x82},
		{name: "[MQTT-4.7.3-1] no topic", version: 4, frame: frame(0x30, text("")), reason: 0x82},
		{name: "[MQTT-3.3.2-8] alias 0", version: 5, frame: frame(0x30, text("a"), props("\x23\x00\x00")), reason: 0x94},
		{name: "alias twice", version: 5, frame: frame(0x30, text("a"), props(alias, alias)), reason: 0x82},
		{name: "format 2", version: 5, frame: frame(0x30, text("a"), props("\x01\x02")), reason: 0x82},
		{name: "[MQTT-3.3.2-14] response topic +", version: 5, frame: frame(0x30, text("a"), props("\x08"+text("r/+"))), reason: 0x82},
		{name: "[MQTT-3.3.4-6] subscription id", version: 5, frame: frame(0x30, text("a"), props("\x0B\x05")), reason: 0x82},
		{name: "property of another packet", version: 5, frame: frame(0x30, text("a"), props("\x11\x00\x00\x00\x05")), reason: 0x81},
		{name: "unknown property", version: 5, frame: frame(0x30, text("a"), props("\x7F\x00")), reason: 0x81},
		{name: "property beyond its length", version: 5, frame: frame(0x30, text("a"), "\x03\x26\x00\x01kkkkkkk"), reason: 0x81},
		{name: "property length beyond the packet", version: 5, frame: frame(0x30, text("a"), "\x7F\x01\x01"), reason: 0x81},
		{name: "property length missing", version: 5, frame: frame(0x30, text("a")), reason: 0x81},
		{name: "not a PUBLISH", version: 5, frame: frame(0x40, "\x00\x01"), reason: 0x81},
		{name: "two packets", version: 5, frame: []byte("\xC0\x00\xC0\x00"), reason: 0x81},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p PublishPacket
			err := ParsePublish(tt.frame, tt.version, &p)
			if reasonOf(err) != tt.reason {
				t.Fatalf("ParsePublish: %v, want reason %#x", err, tt.reason)
			}
			if err == nil && !cmp.Equal(tt.want, p) {
				t.Error(cmp.Diff(tt.want, p))
			}
		})
	}
}

func TestParseAck(t *testing.T) {
	reason := "\x1F" + text("because")
	tests := []struct {
		name    string
		frame   []byte
		version byte
		want    AckPacket
		reason  byte
	}{
		{name: "3.1.1", version: 4, frame: frame(0x40, "\x00\x07"), want: AckPacket{TypePuback, 7, 0}},
		{name: "3.1.1 with more", version: 4, frame: frame(0x40, "\x00\x07\x00"), reason: 0x81},
		{name: "5 short", version: 5, frame: frame(0x62, "\x01\x00"), want: AckPacket{TypePubrel, 256, 0}},
		{name: "5 reason", version: 5, frame: frame(0x50, "\x00\x01\x97"), want: AckPacket{TypePubrec, 1, 0x97}},
		{name: "5 properties", version: 5, frame: frame(0x70, "\x00\x01\x92", props(reason)), want: AckPacket{TypePubcomp, 1, 0x92}},
		{name: "5 no properties", version: 5, frame: frame(0x40, "\x00\x01\x10\x00"), want: AckPacket{TypePuback, 1, 0x10}},
		{name: "id 0", version: 5, frame: frame(0x40, "\x00\x00"), reason: 0x81},
		{name: "reason of another packet", version: 5, frame: frame(0x40, "\x00\x01\x92"), reason: 0x82},
		{name: "reason of another packet", version: 5, frame: frame(0x62, "\x00\x01\x97"), reason: 0x82},
		{name: "reason string twice", version: 5, frame: frame(0x40, "\x00\x01\x00", props(reason, reason)), reason: 0x82},
		{name: "other property", version: 5, frame: frame(0x40, "\x00\x01\x00", props("\x01\x01")), reason: 0x81},
		{name: "after the properties", version: 5, frame: frame(0x40, "\x00\x01\x00", props(reason), "x"), reason: 0x81},
		{name: "DUP in 3.1", version: 3, frame: frame(0x6A, "\x00\x01"), want: AckPacket{TypePubrel, 1, 0}},
		{name: "DUP after 3.1", version: 4, frame: frame(0x6A, "\x00\x01"), reason: 0x81},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a AckPacket
			err := ParseAck(tt.frame, tt.version, &a)
			if reasonOf(err) != tt.reason || err == nil && a != tt.want {
				t.Fatalf("ParseAck = %+v, %v; want %+v, reason %#x", a, err, tt.want, tt.reason)
			}
		})
	}
}

func TestAppendPublish(t *testing.T) {
	m := &session.Message{Topic: "a/b", Payload: []byte("hello"), Properties: []byte("\x01\x01")}
	tests := []struct {
		name    string
		version byte
		o       PublishOptions
		want    []byte
	}{
		{"3.1.1 QoS 0", 4, PublishOptions{Alias: 1, HasExpiry: true, OmitTopic: true, SubscriptionIDs: []uint32{1}},
			frame(0x30, text("a/b"), "hello")},
		{"3.1 QoS 2", 3, PublishOptions{QoS: 2, PacketID: 0x0102, Dup: true, Retain: true},
			frame(0x3D, text("a/b"), "\x01\x02hello")},
		{"5", 5, PublishOptions{QoS: 1, PacketID: 1}, frame(0x32, text("a/b"), "\x00\x01", props("\x01\x01"), "hello")},
		{"5 with all", 5, PublishOptions{Expiry: 9, HasExpiry: true, Alias: 3, OmitTopic: true, SubscriptionIDs: []uint32{1, 128}},
			frame(0x30, text(""), props("\x02\x00\x00\x00\x09", "\x23\x00\x03", "\x0B\x01", "\x0B\x80\x01", "\x01\x01"), "hello")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := AppendPublish([]byte("before"), tt.version, m, tt.o)[len("before"):]
			if !bytes.Equal(got, tt.want) {
				t.Errorf("AppendPublish\n got %x\nwant %x", got, tt.want)
			}
			if n := PublishSize(tt.version, m, tt.o); n != len(got) {
				t.Errorf("PublishSize = %d, want %d", n, len(got))
			}
			at := IDOffset(got)
			if tt.o.QoS == 0 && at != 0 || tt.o.QoS > 0 && got[at+1] != byte(tt.o.PacketID) {
				t.Errorf("IDOffset = %d in %x", at, got)
			}
		})
	}
	large := &session.Message{Topic: strings.Repeat("t", 300), Payload: make([]byte, 1<<21)}
	got := AppendPublish(nil, 5, large, PublishOptions{QoS: 1, PacketID: 0xABCD})
	if at := IDOffset(got); got[at] != 0xAB || got[at+1] != 0xCD {
		t.Errorf("IDOffset = %d in a large packet", at)
	}
	if n, _, err := Scan(got, 0); err != nil || n != len(got) || n != PublishSize(5, large, PublishOptions{QoS: 1}) {
		t.Errorf("Scan of a large packet = %d, %v", n, err)
	}
}

func TestAppendAck(t *testing.T) {
	for _, tt := range []struct {
		version, typ, reason byte
		want                 string
	}{
		{4, TypePuback, 0x87, "\x40\x02\x00\x05"},
		{5, TypePubrel, 0, "\x62\x02\x00\x05"},
		{5, TypePubrec, 0x97, "\x50\x03\x00\x05\x97"},
	} {
		if got := AppendAck(nil, tt.version, tt.typ, 5, tt.reason); string(got) != tt.want {
			t.Errorf("AppendAck = %x, want %x", got, tt.want)
		}
	}
	if got := AppendPingresp(nil); string(got) != "\xD0\x00" {
		t.Errorf("AppendPingresp = %x", got)
	}
}

func TestAppendPacket(t *testing.T) {
	long := strings.Repeat("x", 100)
	tests := []struct {
		name   string
		p      packets.Packet
		want   []byte
		reason byte
	}{
		{name: "CONNACK 5", p: packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: TypeConnack, Qos: 1},
			SessionPresent: true, Properties: packets.Properties{ResponseInfo: "r"}},
			want: frame(0x20, "\x01\x00", props("\x1A"+text("r")))},
		{name: "CONNACK 5 refused", p: packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: TypeConnack},
			SessionPresent: true, ReasonCode: 0x84}, want: frame(0x20, "\x00\x84\x00")},
		{name: "CONNACK 3.1.1 refused", p: packets.Packet{ProtocolVersion: 4, FixedHeader: packets.FixedHeader{Type: TypeConnack},
			SessionPresent: true, ReasonCode: 0x84}, want: frame(0x20, "\x00\x01")},
		{name: "CONNACK 3.1", p: packets.Packet{ProtocolVersion: 3, FixedHeader: packets.FixedHeader{Type: TypeConnack},
			SessionPresent: true}, want: frame(0x20, "\x00\x00")},
		{name: "SUBACK 3.1.1", p: packets.Packet{ProtocolVersion: 4, FixedHeader: packets.FixedHeader{Type: TypeSuback},
			PacketID: 1, ReasonCodes: []byte{1, 0x87}}, want: frame(0x90, "\x00\x01\x01\x80")},
		{name: "UNSUBACK 3.1.1", p: packets.Packet{ProtocolVersion: 4, FixedHeader: packets.FixedHeader{Type: TypeUnsuback},
			PacketID: 1, ReasonCodes: []byte{0x11}}, want: frame(0xB0, "\x00\x01")},
		{name: "[MQTT-3.14.2-3] reason string left out", p: packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: TypeDisconnect},
			ReasonCode: 0x8E, Properties: packets.Properties{ReasonString: long}, Mods: packets.Mods{MaxSize: 50}},
			want: frame(0xE0, "\x8E\x00")},
		{name: "too large all the same", p: packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: TypeConnack},
			Properties: packets.Properties{AssignedClientID: long}, Mods: packets.Mods{MaxSize: 50}}, reason: 0x95},
		{name: "string too long", p: packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: TypeDisconnect},
			Properties: packets.Properties{ReasonString: strings.Repeat("x", math.MaxUint16+1)}}, reason: 0x81},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendPacket([]byte("before"), &tt.p)
			if reasonOf(err) != tt.reason {
				t.Fatalf("AppendPacket: %v, want reason %#x", err, tt.reason)
			}
			if string(got) != "before"+string(tt.want) {
				t.Errorf("AppendPacket\n got %x\nwant %x", got[len("before"):], tt.want)
			}
		})
	}
}
