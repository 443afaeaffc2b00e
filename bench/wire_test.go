package bench

import (
	"bytes"
	"testing"
)

func TestFramesRoundTrip(t *testing.T) {
	for _, c := range []Config{
		{Version: 4, Size: 16, Batch: 3}, {Version: 4, QoS: 1, Size: 64, Batch: 2}, {Version: 5, QoS: 2, Size: 300, Batch: 64},
		{Version: 5, Size: 1 << 20, Batch: 64},
	} {
		f := newFrames(&c, "a/b", 7)
		for i := range f.capacity() {
			f.set(i, uint16(i+1), uint32(i), int64(i)*10)
		}
		rest := f.buf
		for i := range f.capacity() {
			head, end := split(rest)
			if end != f.size {
				t.Fatalf("%+v: packet %d ends at %d of %d", c, i, end, f.size)
			}
			id, payload, ok := publishParts(rest[0], rest[head:end], c.Version == 5)
			h, _ := parseHeader(payload)
			if !ok || len(payload) != c.Size || h != (header{7, uint32(i), int64(i) * 10}) || c.QoS > 0 && id != uint16(i+1) {
				t.Fatalf("%+v: packet %d is %v with id %d and %d bytes", c, i, h, id, len(payload))
			}
			rest = rest[end:]
		}
	}
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		in        []byte
		head, end int
	}{
		{nil, 0, 0}, {[]byte{0x30}, 0, 0}, {[]byte{0xd0, 0}, 2, 2}, {[]byte{0x30, 2, 1}, 0, 0}, {[]byte{0x30, 2, 1, 2, 9}, 2, 4},
		{[]byte{0x30, 0x80}, 0, 0}, {append([]byte{0x30, 0x80, 1}, make([]byte, 128)...), 3, 131},
		{[]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, 0, -1},
	} {
		if head, end := split(tt.in); head != tt.head && end > 0 || end != tt.end {
			t.Errorf("split(% x) = %d, %d; want %d, %d", tt.in, head, end, tt.head, tt.end)
		}
	}
}

func TestReceiveMaximum(t *testing.T) {
	for _, tt := range []struct {
		props []byte
		want  int
	}{
		{nil, 65535}, {[]byte{0}, 65535}, {[]byte{3, 0x21, 0, 20}, 20},
		{[]byte{10, 0x12, 0, 1, 'x', 0x24, 1, 0x21, 4, 0, 0}, 1024}, {[]byte{6, 0x26, 0, 0, 0, 0, 0x7f}, 65535}, {[]byte{9, 0x21, 1}, 65535},
	} {
		if got := receiveMaximum(tt.props); got != tt.want {
			t.Errorf("receiveMaximum(% x) = %d, want %d", tt.props, got, tt.want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{0x30, 5, 0, 1, 'a', 0, 'x'}, true)
	f.Add([]byte{0x32, 7, 0, 1, 'a', 0, 1, 0, 'x'}, true)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, false)
	f.Add([]byte{0x20, 6, 0, 0, 3, 0x21, 0, 20}, false)
	f.Fuzz(func(t *testing.T, data []byte, v5 bool) {
		rest := data
		for {
			head, end := split(rest)
			if end <= 0 {
				return
			}
			body := rest[head:end]
			if _, payload, ok := publishParts(rest[0], body, v5); ok {
				if !bytes.HasSuffix(body, payload) {
					t.Fatal("the payload is not the end of the packet")
				}
				parseHeader(payload)
			}
			if len(body) >= 2 {
				receiveMaximum(body[2:])
			}
			rest = rest[end:]
		}
	})
}
