package listener

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestProxyHeader(t *testing.T) {
	v1 := "PROXY TCP4 192.0.2.7 127.0.0.1 4711 8883\r\n"
	format := func(hd *proxyproto.Header) string {
		b, err := hd.Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	v2 := &proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}, DestinationAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8883}}
	if err := v2.SetTLVs([]proxyproto.TLV{{Type: 0x20, Value: []byte("\x01\x00\x00\x00\x00CN=admin")}}); err != nil {
		t.Fatal(err)
	}
	local := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}
	tests := []struct {
		name, from, header, remote string
	}{
		{"version 1", "127.0.0.0/8", v1, "192.0.2.7:4711"},
		{"version 2 with TLVs", "127.0.0.1", format(v2), "192.0.2.7:4711"},
		{"LOCAL", "127.0.0.0/8", format(local), "127.0.0.1"},
		{"missing", "127.0.0.0/8", "", ""},
		{"cut short", "127.0.0.0/8", "PROXY TCP4\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, Config{Kind: KindTCP, ProxyFrom: []string{tt.from}}, nil)
			c := h.dial(t)
			if _, err := io.WriteString(c, tt.header+"\x10\x00"); err != nil {
				t.Fatal(err)
			}
			if tt.remote == "" {
				expectClosed(t, c)
				eventually(t, "refused", func() bool { return h.refused(reasonProxy) == 1 })
				return
			}
			got := make([]byte, 2)
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "\x10\x00" {
				t.Errorf("what follows the header came as %q, %v", got, err)
			}
			if i := h.info(t); !strings.HasPrefix(i.Remote.String(), tt.remote) {
				t.Errorf("remote %v, want %s", i.Remote, tt.remote)
			}
		})
	}
}

// From a source that is not listed the header is garbage: the engine sees it and
// closes, TLS fails, and nobody believes it.
func TestProxyHeaderFromElsewhere(t *testing.T) {
	const header = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 8883\r\n"
	h := open(t, Config{Kind: KindTCP, ProxyFrom: []string{"10.0.0.0/8"}}, nil)
	echo(t, h.dial(t), header)
	if i := h.info(t); !i.Remote.Addr().IsLoopback() {
		t.Errorf("remote %v", i.Remote)
	}
	server, _ := settings(t)
	h = open(t, Config{Kind: KindTLS, ProxyFrom: []string{"10.0.0.0/8"}}, withTLS(server))
	c := h.dial(t)
	_, _ = io.WriteString(c, header)
	expectClosed(t, c)
	eventually(t, "refused", func() bool { return h.refused(reasonTLS) == 1 })
}
