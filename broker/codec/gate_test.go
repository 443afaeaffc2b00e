package codec

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/session"
)

// A SUBSCRIBE cut short before its options byte stops mochi's server: its
// decoder does not look whether the byte is there (its issue 501). The gate is
// what keeps such packets from it.
func TestSubscribeWithoutOptionsNeverReachesMochi(t *testing.T) {
	cut := frame(0x82, "\x00\x01", props(), text("a/b"))
	raw := func() (what any) {
		defer func() {
			if v := recover(); v != nil {
				what = v
			}
		}()
		p := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Subscribe}}
		return p.SubscribeDecode(cut[2:])
	}()
	if raw == nil {
		t.Error("mochi's decoder took it")
	}
	t.Logf("mochi's decoder alone: %v", raw)
	for _, version := range []byte{3, 4, 5} {
		if _, err := Decode(cut, version); reasonOf(err) != ReasonMalformed {
			t.Errorf("version %d: Decode: %v, want reason 0x81", version, err)
		}
	}
}

// connect returns a CONNECT of version 5, 4 or 3 with what follows keep alive.
func connect(version, flags byte, rest ...string) []byte {
	name := "MQTT"
	if version == 3 {
		name = "MQIsdp"
	}
	return frame(0x10, text(name), string([]byte{version, flags}), "\x00\x3C", strings.Join(rest, ""))
}

func TestDecodeConnect(t *testing.T) {
	will := "\x18\x00\x00\x00\x05"
	tests := []struct {
		name   string
		frame  []byte
		reason byte
	}{
		{"3.1", connect(3, 0x02, text("id")), 0},
		{"3.1, 24 bytes of id", connect(3, 0x02, text(strings.Repeat("x", 24))), 0},
		{"3.1, no id", connect(3, 0x02, text("")), 0x85},
		{"3.1, user name announced and not there", connect(3, 0xC2, text("id")), 0},
		{"3.1, password announced and not there", connect(3, 0xC2, text("id"), text("u")), 0},
		{"3.1.1", connect(4, 0x02, text("id")), 0},
		{"3.1.1, no id", connect(4, 0x02, text("")), 0},
		{"[MQTT-3.1.3-8] 3.1.1, no id, session kept", connect(4, 0x00, text("")), 0x85},
		{"3.1.1, user name and password", connect(4, 0xC2, text("id"), text("u"), text("p")), 0},
		{"[MQTT-3.1.2-22] 3.1.1, password alone", connect(4, 0x42, text("id"), text("p")), 0x81},
		{"[MQTT-3.1.2-17] 3.1.1, user name missing", connect(4, 0x82, text("id")), 0x81},
		{"[MQTT-3.1.2-19] 3.1.1, password missing", connect(4, 0xC2, text("id"), text("u")), 0x81},
		{"[MQTT-3.1.2-16] 3.1.1, trailing bytes", connect(4, 0x02, text("id"), text("u")), 0x81},
		{"[MQTT-3.1.3-11] user name not UTF-8", connect(4, 0x82, text("id"), text("\xFF")), 0x81},
		{"password of any bytes", connect(4, 0xC2, text("id"), text("u"), text("\x00\xFF")), 0},
		{"[MQTT-3.1.3-4] id not UTF-8", connect(4, 0x02, text("\xFF")), 0x81},
		{"[MQTT-3.1.2-3] reserved flag", connect(4, 0x03, text("id")), 0x81},
		{"will", connect(4, 0x2E, text("id"), text("w"), text("gone")), 0},
		{"[MQTT-3.1.2-12] will QoS 3", connect(4, 0x1E, text("id"), text("w"), text("")), 0x81},
		{"[MQTT-3.1.2-11] will QoS without will", connect(4, 0x0A, text("id")), 0x81},
		{"[MQTT-3.1.2-13] will retain without will", connect(4, 0x22, text("id")), 0x81},
		{"will topic missing", connect(4, 0x06, text("id")), 0x81},
		{"will topic empty", connect(4, 0x06, text("id"), text(""), text("")), 0x90},
		{"will topic with wildcard", connect(4, 0x06, text("id"), text("a/#"), text("")), 0x90},
		{"[MQTT-3.1.2-2] MQTT 6", connect(6, 0x02, props(), text("id")), 0x84},
		{"[MQTT-3.1.2-2] MQTT 3", frame(0x10, text("MQTT"), "\x03\x02\x00\x3C", text("id")), 0x84},
		{"[MQTT-3.1.2-1] other name", frame(0x10, text("MQTTX"), "\x04\x02\x00\x3C", text("id")), 0x84},
		{"cut short", frame(0x10, text("MQTT"), "\x04"), 0x81},

		{"5", connect(5, 0x02, props(), text("id")), 0},
		{"5, no id, session kept", connect(5, 0x00, props(), text("")), 0},
		{"5, password alone", connect(5, 0x42, props(), text("id"), text("p")), 0},
		{"5, will", connect(5, 0x06, props(), text("id"), props(will), text("w"), text("gone")), 0},
		{"5, will with wildcard in response topic", connect(5, 0x06, props(), text("id"), props("\x08"+text("#")), text("w"), text("")), 0x82},
		{"5, alias in a will", connect(5, 0x06, props(), text("id"), props("\x23\x00\x01"), text("w"), text("")), 0x81},
		{"5, will delay in CONNECT", connect(5, 0x02, props(will), text("id")), 0x81},
		{"5, all properties", connect(5, 0x02, props("\x11\x00\x00\x00\x00", "\x21\x00\x01", "\x27\x00\x00\x00\x01", "\x22\x00\x00",
			"\x19\x01", "\x17\x00", "\x26"+text("k")+text("v"), "\x26"+text("k")+text("v"), "\x15"+text("m"), "\x16"+text("d")), text("id")), 0},
		{"5, session expiry twice", connect(5, 0x02, props("\x11\x00\x00\x00\x00", "\x11\x00\x00\x00\x00"), text("id")), 0x82},
		{"5, receive maximum 0", connect(5, 0x02, props("\x21\x00\x00"), text("id")), 0x82},
		{"5, maximum packet size 0", connect(5, 0x02, props("\x27\x00\x00\x00\x00"), text("id")), 0x82},
		{"5, request problem information 2", connect(5, 0x02, props("\x17\x02"), text("id")), 0x82},
		{"5, request response information 2", connect(5, 0x02, props("\x19\x02"), text("id")), 0x82},
		{"5, authentication data alone", connect(5, 0x02, props("\x16"+text("d")), text("id")), 0x82},
		{"5, user property not UTF-8", connect(5, 0x02, props("\x26"+text("\xFF")+text("v")), text("id")), 0x81},
		{"5, property length not minimal", connect(5, 0x02, "\x80\x00", text("id")), 0x81},
		{"5, property over its end", connect(5, 0x02, "\x01\x17\x00", text("id")), 0x81},
		{"5, too many user properties", connect(5, 0x02, props(strings.Repeat("\x26\x00\x00\x00\x00", maxItems+1)), text("id")), 0x97},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := ScanClient(tt.frame, 0); err != nil && tt.reason == 0 {
				t.Fatalf("Scan: %v", err)
			}
			p, err := Decode(tt.frame, 0)
			if reasonOf(err) != tt.reason {
				t.Fatalf("Decode: %v, want reason %#x", err, tt.reason)
			}
			if err == nil && p.ProtocolVersion != ConnectVersion(tt.frame) {
				t.Errorf("version %d, ConnectVersion %d", p.ProtocolVersion, ConnectVersion(tt.frame))
			}
		})
	}
}

// A CONNACK that refuses is written in the version that the client may know.
func TestConnectVersion(t *testing.T) {
	for _, tt := range []struct {
		name  string
		level byte
		want  byte
	}{{"MQTT", 6, 5}, {"MQTT", 3, 4}, {"MQTT", 4, 4}, {"MQTT", 0x84, 5}, {"MQIsdp", 4, 3}, {"HTTP", 4, 0}} {
		f := frame(0x10, text(tt.name), string([]byte{tt.level, 2, 0, 0}), text(""))
		if got := ConnectVersion(f); got != tt.want {
			t.Errorf("ConnectVersion of %s level %d = %d, want %d", tt.name, tt.level, got, tt.want)
		}
	}
	if got := ConnectVersion(frame(0x10, "\x00")); got != 0 {
		t.Errorf("ConnectVersion of nothing = %d", got)
	}
}

func TestDecodeConnectFields(t *testing.T) {
	f := connect(5, 0xF6, props("\x11\x00\x00\x00\x0A"), text("id"), props(), text("w"), text("gone"), text("u"), text("p"))
	p, err := Decode(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	clear(f) // the packet must not alias it
	want := packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: "id", Keepalive: 60, Clean: true,
		WillFlag: true, WillQos: 2, WillRetain: true, WillTopic: "w", WillPayload: []byte("gone"),
		UsernameFlag: true, Username: []byte("u"), PasswordFlag: true, Password: []byte("p")}
	if !cmp.Equal(want, p.Connect) {
		t.Error(cmp.Diff(want, p.Connect))
	}
	if p.Properties.SessionExpiryInterval != 10 || p.FixedHeader.Type != TypeConnect {
		t.Errorf("packet %+v", p)
	}
}

func TestWill(t *testing.T) {
	user := "\x26" + text("k") + text("v")
	f := connect(5, 0x2E, props("\x21\x00\x01"), text("id"),
		props(user, "\x02\x00\x00\x00\x00", "\x01\x01", "\x18\x00\x00\x00\x05", user), text("w"), text("gone"))
	want := &session.Will{Delay: 5, HasExpiry: true,
		Message: session.Message{Topic: "w", Payload: []byte("gone"), Properties: []byte(user + "\x01\x01" + user), QoS: 1, Retain: true}}
	if got := Will(f); !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	want = &session.Will{Message: session.Message{Topic: "w", Payload: []byte("x")}}
	if got := Will(connect(3, 0x06, text("id"), text("w"), text("x"))); !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	if got := Will(connect(4, 0x02, text("id"))); got != nil {
		t.Errorf("Will of a CONNECT without one = %+v", got)
	}
}

func TestDecode(t *testing.T) {
	method := "\x15" + text("m")
	tests := []struct {
		name    string
		frame   []byte
		version byte
		server  bool
		reason  byte
	}{
		{"SUBSCRIBE", frame(0x82, "\x00\x01", text("a/#"), "\x02"), 4, false, 0},
		{"SUBSCRIBE bad filter is the engine's", frame(0x82, "\x00\x01", text("a/#/b"), "\x02", text(""), "\x00"), 4, false, 0},
		{"[MQTT-3.8.3-2] SUBSCRIBE without filter", frame(0x82, "\x00\x01", props()), 5, false, 0x82},
		{"SUBSCRIBE id 0", frame(0x82, "\x00\x00", text("a"), "\x00"), 4, false, 0x81},
		{"SUBSCRIBE filter not UTF-8", frame(0x82, "\x00\x01", text("\xFF"), "\x00"), 4, false, 0x81},
		{"SUBSCRIBE 3.1.1 QoS 3", frame(0x82, "\x00\x01", text("a"), "\x03"), 4, false, 0x81},
		{"SUBSCRIBE 3.1.1 options", frame(0x82, "\x00\x01", text("a"), "\x04"), 4, false, 0x81},
		{"SUBSCRIBE DUP 3.1", frame(0x8A, "\x00\x01", text("a"), "\x01"), 3, false, 0},
		{"SUBSCRIBE DUP 3.1.1", frame(0x8A, "\x00\x01", text("a"), "\x01"), 4, false, 0x81},
		{"SUBSCRIBE 5 all options", frame(0x82, "\x00\x01", props("\x0B\x05"), text("a"), "\x2E"), 5, false, 0},
		{"SUBSCRIBE 5 QoS 3", frame(0x82, "\x00\x01", props(), text("a"), "\x03"), 5, false, 0x82},
		{"SUBSCRIBE 5 retain handling 3", frame(0x82, "\x00\x01", props(), text("a"), "\x30"), 5, false, 0x82},
		{"[MQTT-3.8.3-5] SUBSCRIBE 5 reserved bits", frame(0x82, "\x00\x01", props(), text("a"), "\x40"), 5, false, 0x81},
		{"[MQTT-3.8.3-4] no local on shared", frame(0x82, "\x00\x01", props(), text("$share/g/a"), "\x04"), 5, false, 0x82},
		{"subscription id 0", frame(0x82, "\x00\x01", props("\x0B\x00"), text("a"), "\x00"), 5, false, 0x82},
		{"subscription id twice", frame(0x82, "\x00\x01", props("\x0B\x01\x0B\x02"), text("a"), "\x00"), 5, false, 0x82},
		{"subscription id of five bytes", frame(0x82, "\x00\x01", props("\x0B\x80\x80\x80\x80\x01"), text("a"), "\x00"), 5, false, 0x81},
		{"too many filters", frame(0x82, "\x00\x01", props(), strings.Repeat(text("a")+"\x00", maxItems+1)), 5, false, 0x97},
		{"UNSUBSCRIBE", frame(0xA2, "\x00\x01", text("a"), text("b")), 4, false, 0},
		{"[MQTT-3.10.3-2] UNSUBSCRIBE without filter", frame(0xA2, "\x00\x01", props()), 5, false, 0x82},
		{"UNSUBSCRIBE cut short", frame(0xA2, "\x00\x01", "\x00\x05a"), 4, false, 0x81},
		{"UNSUBSCRIBE with subscription id", frame(0xA2, "\x00\x01", props("\x0B\x01"), text("a")), 5, false, 0x81},
		{"PINGREQ", frame(0xC0), 4, false, 0},
		{"PINGREQ with a body", frame(0xC0, "x"), 4, false, 0x81},
		{"DISCONNECT 3.1.1", frame(0xE0), 4, false, 0},
		{"DISCONNECT 3.1.1 with reason", frame(0xE0, "\x00"), 4, false, 0x81},
		{"DISCONNECT 5", frame(0xE0), 5, false, 0},
		{"DISCONNECT 5 with will", frame(0xE0, "\x04"), 5, false, 0},
		{"DISCONNECT 5 expiry", frame(0xE0, "\x00", props("\x11\x00\x00\x00\x01")), 5, false, 0},
		{"DISCONNECT 5 server's reason", frame(0xE0, "\x8E"), 5, false, 0x82},
		{"DISCONNECT 5 server reference", frame(0xE0, "\x00", props("\x1C"+text("s"))), 5, false, 0x82},
		{"AUTH", frame(0xF0, "\x18", props(method)), 5, false, 0},
		{"AUTH without method", frame(0xF0, "\x18", props()), 5, false, 0x82},
		{"[MQTT-3.15.2-1] AUTH success from a client", frame(0xF0), 5, false, 0x82},
		{"AUTH 3.1.1", frame(0xF0, "\x18", props(method)), 4, false, 0x82},
		{"PUBLISH is ParsePublish's", frame(0x30, text("a")), 4, false, 0x82},
		{"CONNACK", frame(0x20, "\x01\x00"), 4, true, 0},
		{"[MQTT-3.2.2-1] CONNACK flags", frame(0x20, "\x02\x00"), 4, true, 0x81},
		{"[MQTT-3.2.2-6] CONNACK session and refusal", frame(0x20, "\x01\x05"), 4, true, 0x82},
		{"CONNACK code", frame(0x20, "\x00\x06"), 4, true, 0x82},
		{"CONNACK 5", frame(0x20, "\x00\x00", props("\x24\x01\x25\x00\x28\x01\x29\x01\x2A\x01\x13\x00\x3C")), 5, true, 0},
		{"SUBACK", frame(0x90, "\x00\x01\x80\x02"), 4, true, 0},
		{"SUBACK 5 code of 3.1.1", frame(0x90, "\x00\x01", props(), "\x03"), 5, true, 0x82},
		{"UNSUBACK", frame(0xB0, "\x00\x01"), 4, true, 0},
		{"UNSUBACK 5", frame(0xB0, "\x00\x01", props(), "\x11"), 5, true, 0},
		{"UNSUBACK 5 without codes", frame(0xB0, "\x00\x01", props()), 5, true, 0x82},
		{"PUBLISH of a server", frame(0x32, text("a"), "\x00\x01", props("\x0B\x01\x0B\x02"), "x"), 5, true, 0},
		{"PUBACK of a server", frame(0x40, "\x00\x01\x10"), 5, true, 0},
		{"DISCONNECT of a server", frame(0xE0, "\x8E"), 5, true, 0},
		{"[MQTT-3.14.2-2] expiry from a server", frame(0xE0, "\x00", props("\x11\x00\x00\x00\x01")), 5, true, 0x82},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode(tt.frame, tt.version, tt.server)
			if reasonOf(err) != tt.reason {
				t.Errorf("Decode: %v, want reason %#x", err, tt.reason)
			}
		})
	}
}

// mochi ignores a reason that stands alone; the will of 0x04 hangs on it.
func TestDecodeDisconnectReason(t *testing.T) {
	p, err := Decode(frame(0xE0, "\x04"), 5)
	if err != nil || p.ReasonCode != 0x04 {
		t.Errorf("Decode = %+v, %v; want reason 0x04", p, err)
	}
}

func TestDecodeSubscribeFields(t *testing.T) {
	p, err := Decode(frame(0x82, "\x00\x07", props("\x0B\xFF\x01"), text("a"), "\x2E", text("b"), "\x01"), 5)
	if err != nil {
		t.Fatal(err)
	}
	want := packets.Subscriptions{
		{Filter: "a", Identifier: 255, Qos: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2},
		{Filter: "b", Identifier: 255, Qos: 1},
	}
	if p.PacketID != 7 || !cmp.Equal(want, p.Filters) {
		t.Errorf("id %d, %s", p.PacketID, cmp.Diff(want, p.Filters))
	}
}

// No prefix of a good packet is taken for one, and nothing panics.
func TestPrefixes(t *testing.T) {
	for _, f := range [][]byte{
		connect(5, 0xF6, props("\x11\x00\x00\x00\x0A", "\x15"+text("m")), text("id"), props("\x01\x01"), text("w"), text("g"), text("u"), text("p")),
		frame(0x82, "\x00\x07", props("\x0B\xFF\x01"), text("a"), "\x2E", text("b"), "\x01"),
		frame(0x32, text("a"), "\x00\x01", props("\x01\x01", "\x26"+text("k")+text("v")), "x"),
		frame(0x40, "\x00\x01\x10", props("\x1F"+text("r"))),
	} {
		for i := range f {
			if n, _, err := Scan(f[:i], 0); n != 0 || err != nil {
				t.Errorf("Scan(%x) = %d, %v", f[:i], n, err)
			}
			// With a fixed header that is right for what is left.
			cut := frame(f[0], string(bytes.Clone(f[2:])[:max(i-2, 0)]))
			_, _ = Decode(cut, 5)
			_ = ParsePublish(cut, 5, &PublishPacket{})
			_ = ParseAck(cut, 5, &AckPacket{})
		}
	}
}
