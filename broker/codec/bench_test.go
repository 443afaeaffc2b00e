package codec

import (
	"testing"

	"github.com/mqcluster/mqcluster/session"
)

// noAllocs fails the test if f allocates.
func noAllocs(t *testing.T, name string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times", name, n)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	m := &session.Message{Topic: "park/7/device/1234/state", Payload: make([]byte, 256), Properties: []byte("\x01\x01")}
	o := PublishOptions{QoS: 1, PacketID: 7, HasExpiry: true, Expiry: 60, Alias: 1}
	f := AppendPublish(nil, 5, m, o)
	dst := make([]byte, 0, 1024)
	ack := AppendAck(nil, 5, TypePuback, 7, 0x10)
	var p PublishPacket
	var a AckPacket
	noAllocs(t, "Scan", func() { _, _, _ = Scan(f, 1<<20) })
	noAllocs(t, "ParsePublish", func() { _ = ParsePublish(f, 5, &p) })
	noAllocs(t, "AppendPublish", func() { AppendPublish(dst, 5, m, o) })
	noAllocs(t, "PublishSize", func() { PublishSize(5, m, o) })
	noAllocs(t, "ParseAck", func() { _ = ParseAck(ack, 5, &a) })
	noAllocs(t, "AppendAck", func() { AppendAck(dst, 5, TypePuback, 7, 0x10) })
}

func BenchmarkParsePublish(b *testing.B) {
	m := &session.Message{Topic: "park/7/device/1234/state", Payload: make([]byte, 256)}
	for _, v := range []struct {
		name    string
		version byte
	}{{"v311", 4}, {"v5", 5}} {
		b.Run(v.name, func(b *testing.B) {
			f := AppendPublish(nil, v.version, m, PublishOptions{QoS: 1, PacketID: 7, HasExpiry: true, Expiry: 60})
			var p PublishPacket
			b.ReportAllocs()
			for b.Loop() {
				if ParsePublish(f, v.version, &p) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	f := AppendPublish(nil, 5, &session.Message{Topic: "a", Payload: make([]byte, 256)}, PublishOptions{})
	b.ReportAllocs()
	for b.Loop() {
		if n, _, _ := ScanClient(f, 1<<20); n == 0 {
			b.Fatal("refused")
		}
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	m := &session.Message{Topic: "park/7/device/1234/state", Payload: make([]byte, 256)}
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		AppendPublish(dst, 5, m, PublishOptions{QoS: 1, PacketID: 7})
	}
}

func BenchmarkParseAck(b *testing.B) {
	f := AppendAck(nil, 5, TypePuback, 7, 0x10)
	var a AckPacket
	b.ReportAllocs()
	for b.Loop() {
		if ParseAck(f, 5, &a) != nil {
			b.Fatal("refused")
		}
	}
}
