package codec

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/session"
)

// seeds are packets to start from; testdata/fuzz has more.
func seeds() [][]byte {
	return [][]byte{
		connect(5, 0xF6, props("\x11\x00\x00\x00\x0A"), text("id"), props("\x02\x00\x00\x00\x00", "\x01\x01"), text("w"), text("g"), text("u"), text("p")),
		connect(3, 0xC2, text("id"), text("u")),
		frame(0x82, "\x00\x07", props("\x0B\xFF\x01"), text("$share/g/a"), "\x2A", text("b"), "\x01"),
		frame(0xA2, "\x00\x07", props(), text("a")),
		frame(0x34, text("a"), "\x00\x01", props("\x26"+text("k")+text("v"), "\x02\x00\x00\x00\x09", "\x09"+text("c")), "x"),
		frame(0x30, text(""), props("\x23\x00\x01")),
		frame(0x40, "\x00\x01\x10", props("\x1F"+text("r"))),
		frame(0x62, "\x00\x01\x92"),
		frame(0x20, "\x00\x00", props("\x24\x01\x12"+text("i")+"\x1A"+text("r"))),
		frame(0x90, "\x00\x01", props(), "\x02\x8F"),
		frame(0xB0, "\x00\x01", props(), "\x11"),
		frame(0xE0, "\x04"),
		frame(0xE0, "\x8E", props("\x1F"+text("r")+"\x1C"+text("s"))),
		frame(0xF0, "\x18", props("\x15"+text("m")+"\x16"+text("d"))),
		frame(0xF0),
		frame(0xC0),
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, 1<<20)
	}
	f.Fuzz(func(t *testing.T, b []byte, most int) {
		n, need, err := Scan(b, most)
		switch {
		case err != nil && (n != 0 || need != 0):
			t.Errorf("n %d, need %d beside error %v", n, need, err)
		case n < 0 || n > len(b), most > 0 && n > most, n == 0 && err == nil && need <= len(b):
			t.Errorf("Scan of %d bytes, %d allowed = %d, %d, %v", len(b), most, n, need, err)
		}
		// What comes later must not change the verdict on what is there.
		n2, _, err2 := Scan(append(bytes.Clone(b), 0, 0), most)
		if err != nil && err2 == nil || n > 0 && n2 != n {
			t.Errorf("%d, %v became %d, %v with more bytes", n, err, n2, err2)
		}
	})
}

func FuzzPublish(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, byte(5))
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		version = 3 + version%3
		var p PublishPacket
		if ParsePublish(b, version, &p) != nil {
			return
		}
		// What a client may send, a server may; mochi must see the same in it.
		d, err := DecodeServer(b, version)
		if err != nil {
			t.Fatalf("ParsePublish takes %x, DecodeServer does not: %v", b, err)
		}
		if d.TopicName != string(p.Topic) || !bytes.Equal(d.Payload, p.Payload) || d.PacketID != p.PacketID ||
			d.Properties.TopicAlias != p.Alias || d.Properties.MessageExpiryInterval != p.Expiry {
			t.Errorf("%x: %+v, mochi %+v", b, p, d)
		}
		m := &session.Message{Topic: string(p.Topic), Payload: p.Payload, Properties: p.Properties}
		o := PublishOptions{QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, PacketID: p.PacketID, Expiry: p.Expiry, HasExpiry: p.HasExpiry, Alias: p.Alias}
		again := AppendPublish(nil, version, m, o)
		if len(again) != PublishSize(version, m, o) || len(again) != len(b) {
			t.Errorf("%x came back as %x", b, again)
		}
		var q PublishPacket
		if err := ParsePublish(again, version, &q); err != nil || !cmp.Equal(p, q, cmpopts.EquateEmpty()) {
			t.Errorf("%v, %s", err, cmp.Diff(p, q))
		}
	})
}

func FuzzAck(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, byte(5))
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		version = 3 + version%3
		var a, c AckPacket
		if ParseAck(b, version, &a) != nil {
			return
		}
		if a.PacketID == 0 || version != 5 && a.Reason != 0 {
			t.Errorf("%x: %+v", b, a)
		}
		if err := ParseAck(AppendAck(nil, version, a.Type, a.PacketID, a.Reason), version, &c); err != nil || a != c {
			t.Errorf("%+v came back as %+v, %v", a, c, err)
		}
	})
}

// FuzzDecode: what the gate lets through mochi decodes, without a panic, into
// something that encodes and decodes to itself.
func FuzzDecode(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, byte(2), true)
		f.Add(s, byte(2), false)
		f.Add(s, byte(1), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte, server bool) {
		version = 3 + version%3
		p, err := decode(b, version, server)
		if err != nil {
			if reasonOf(err) == 0xFF {
				t.Errorf("error without a reason: %v", err)
			}
			return
		}
		if w := Will(b); p.FixedHeader.Type == TypeConnect && (w != nil) != p.Connect.WillFlag {
			t.Errorf("Will = %v, flag %v", w, p.Connect.WillFlag)
		}
		again, err := AppendPacket(nil, p)
		if err != nil {
			t.Fatalf("%x decoded to %+v, which does not encode: %v", b, p, err)
		}
		q, err := decode(again, version, server)
		if err != nil {
			t.Fatalf("%x came back as %x: %v", b, again, err)
		}
		length := cmpopts.IgnoreFields(packets.FixedHeader{}, "Remaining")
		if d := cmp.Diff(p, q, length, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%x came back as %x: %s", b, again, d)
		}
	})
}

// FuzzRoundTrip: any message that can be published comes out as it went in.
func FuzzRoundTrip(f *testing.F) {
	f.Add("a/b", []byte("payload"), byte(0x0B), uint16(1), uint32(9), uint16(3), uint32(128))
	f.Add("", []byte{}, byte(0x30), uint16(0), uint32(0), uint16(1), uint32(0))
	f.Fuzz(func(t *testing.T, topic string, payload []byte, bits byte, id uint16, expiry uint32, alias uint16, sub uint32) {
		if len(topic) > 0xFFFF || len(topic) == 0 || !validText([]byte(topic)) || hasWildcard([]byte(topic)) {
			return
		}
		version := 3 + bits>>6%3
		o := PublishOptions{QoS: bits & 3 % 3, Retain: bits&8 != 0, PacketID: id | 1, Expiry: expiry, HasExpiry: bits&16 != 0, Alias: alias}
		o.Dup = bits&4 != 0 && o.QoS > 0
		if sub = sub % (maxVarint + 1); sub > 0 {
			o.SubscriptionIDs = []uint32{sub, 1}
		}
		o.OmitTopic = bits&32 != 0 && alias != 0
		m := &session.Message{Topic: topic, Payload: payload, Properties: []byte("\x01\x01")}
		b := AppendPublish(nil, version, m, o)
		if n, _, err := Scan(b, 0); err != nil || n != len(b) || n != PublishSize(version, m, o) {
			t.Fatalf("Scan(%x) = %d, %v", b, n, err)
		}
		p, err := DecodeServer(b, version)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if version == 5 && o.OmitTopic {
			topic = ""
		}
		if p.TopicName != topic || !bytes.Equal(p.Payload, payload) || p.FixedHeader.Qos != o.QoS || p.FixedHeader.Dup != o.Dup ||
			p.FixedHeader.Retain != o.Retain || o.QoS > 0 && p.PacketID != o.PacketID {
			t.Errorf("%x: %+v", b, p)
		}
		if at := IDOffset(b); o.QoS > 0 && uint16(b[at])<<8|uint16(b[at+1]) != o.PacketID {
			t.Errorf("IDOffset(%x) = %d", b, at)
		}
		if version == 5 && (p.Properties.TopicAlias != o.Alias || o.HasExpiry && p.Properties.MessageExpiryInterval != expiry || sub > 0 && p.Properties.SubscriptionIdentifier[0] != int(sub)) {
			t.Errorf("%x: %+v", b, p.Properties)
		}
	})
}
