package rawmqtt

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPacketsRoundTrip(t *testing.T) {
	user, pass := "ada", "secret"
	full := Connect{Version: 5, ClientID: "c", CleanStart: true, KeepAlive: 60,
		Properties: []Property{Int(SessionExpiry, 30), User("k", "v")},
		Will: &Will{Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true,
			Properties: []Property{Int(WillDelay, 5)}},
		Username: &user, Password: &pass}
	old := Connect{Version: 3, ClientID: "c"}
	for _, tt := range []struct {
		name    string
		version byte
		frame   []byte
		want    Packet
	}{
		{"connect 5", 5, full.Packet(), Packet{Type: CONNECT, Connect: &full}},
		{"connect 3.1", 3, old.Packet(), Packet{Type: CONNECT, Connect: &old}},
		{"connack", 4, ConnackPacket(4, true, 0), Packet{Type: CONNACK, SessionPresent: true}},
		{"connack 5", 5, ConnackPacket(5, false, 0x87, Int(ReceiveMaximum, 9), Text(ReasonString, "no")),
			Packet{Type: CONNACK, Reason: 0x87, Properties: []Property{Int(ReceiveMaximum, 9), Text(ReasonString, "no")}}},
		{"publish 0", 4, Publish{Topic: "a/b", Payload: []byte("x")}.Packet(4),
			Packet{Type: PUBLISH, Topic: "a/b", Payload: []byte("x")}},
		{"publish 2", 5, Publish{Topic: "a", QoS: 2, ID: 7, Dup: true, Retain: true,
			Properties: []Property{Int(SubscriptionIdentifier, 300), Int(TopicAlias, 3), Int(PayloadFormat, 1)}}.Packet(5),
			Packet{Type: PUBLISH, Flags: 13, Topic: "a", QoS: 2, ID: 7, Dup: true, Retain: true,
				Properties: []Property{Int(SubscriptionIdentifier, 300), Int(TopicAlias, 3), Int(PayloadFormat, 1)}}},
		{"puback", 4, AckPacket(4, PUBACK, 3, 0), Packet{Type: PUBACK, ID: 3}},
		{"pubrel 5", 5, AckPacket(5, PUBREL, 3, 0x92), Packet{Type: PUBREL, Flags: 2, ID: 3, Reason: 0x92}},
		{"subscribe", 5, SubscribePacket(5, 9, []Property{Int(SubscriptionIdentifier, 1)}, Sub("a/#", 1), Sub("b", 2|4)),
			Packet{Type: SUBSCRIBE, Flags: 2, ID: 9, Properties: []Property{Int(SubscriptionIdentifier, 1)},
				Subscriptions: []Subscription{{"a/#", 1}, {"b", 6}}}},
		{"unsubscribe", 4, UnsubscribePacket(4, 9, "a/#"),
			Packet{Type: UNSUBSCRIBE, Flags: 2, ID: 9, Subscriptions: []Subscription{{Filter: "a/#"}}}},
		{"suback", 5, SubackPacket(5, SUBACK, 9, 1, 0x87), Packet{Type: SUBACK, ID: 9, Reasons: []byte{1, 0x87}}},
		{"unsuback 3.1.1", 4, SubackPacket(4, UNSUBACK, 9), Packet{Type: UNSUBACK, ID: 9}},
		{"disconnect", 4, DisconnectPacket(4, 0), Packet{Type: DISCONNECT}},
		{"disconnect 5", 5, DisconnectPacket(5, 0x8e, Text(ServerReference, "b")),
			Packet{Type: DISCONNECT, Reason: 0x8e, Properties: []Property{Text(ServerReference, "b")}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frame, err := SplitFrame(append(append([]byte{}, tt.frame...), 0xff))
			if err != nil || len(frame) != len(tt.frame) {
				t.Fatalf("SplitFrame: %d bytes of %d, %v", len(frame), len(tt.frame), err)
			}
			got, err := Parse(frame, tt.version)
			if err != nil {
				t.Fatal(err)
			}
			got.Raw = nil
			if d := cmp.Diff(&tt.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("parsed (-want +got):\n%s", d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version byte
		frame   []byte
	}{
		{"empty", 4, nil},
		{"length that lies", 4, FrameLen(PUBLISH<<4, 9, []byte{0, 1, 'a'})},
		{"five bytes of length", 4, []byte{PUBLISH << 4, 0xff, 0xff, 0xff, 0xff, 1}},
		{"topic cut short", 4, Frame(PUBLISH<<4, []byte{0, 9, 'a'})},
		{"no packet id", 4, Frame(PUBLISH<<4|2, []byte{0, 1, 'a'})},
		{"unknown property", 5, Frame(PUBLISH<<4, []byte{0, 1, 'a', 2, 0x7f, 0})},
		{"properties past the end", 5, Frame(PUBLISH<<4, []byte{0, 1, 'a', 9})},
		{"no options byte", 4, Frame(SUBSCRIBE<<4|2, []byte{0, 1, 0, 1, 'a'})},
		{"PINGREQ with a body", 4, Frame(PINGREQ<<4, []byte{1})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := Parse(tt.frame, tt.version); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, %v; want ErrMalformed", p, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range []byte{3, 4, 5} {
		f.Add(Connect{Version: v, ClientID: "c", Will: &Will{Topic: "t"}}.Packet(), v)
		f.Add(Publish{Topic: "a", QoS: 1, ID: 1, Payload: []byte("x")}.Packet(v), v)
		f.Add(SubscribePacket(v, 1, nil, Sub("a", 1)), v)
		f.Add(ConnackPacket(v, true, 0, User("a", "b")), v)
		f.Add(DisconnectPacket(v, 0x8e, Text(ReasonString, "x")), v)
	}
	f.Fuzz(func(t *testing.T, data []byte, version byte) {
		frame, err := SplitFrame(data)
		if err != nil || frame == nil {
			return
		}
		p, err := Parse(frame, version)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		_ = p.String()
	})
}
