package listener

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// dialWeb opens a WebSocket to h.
func (h *harness) dialWeb(t *testing.T, scheme string, o *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, r, err := websocket.Dial(ctx, scheme+"://"+h.Addr().String()+"/mqtt", o)
	if err == nil {
		t.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, r, err
}

func TestWebSocket(t *testing.T) {
	server, client := settings(t)
	for _, scheme := range []string{KindWS, KindWSS} {
		for _, proto := range []string{"mqtt", "mqttv3.1"} {
			t.Run(scheme+" "+proto, func(t *testing.T) {
				h := open(t, Config{Kind: scheme}, withTLS(server))
				o := &websocket.DialOptions{Subprotocols: []string{proto}}
				tr := &http.Transport{TLSClientConfig: client}
				defer tr.CloseIdleConnections()
				o.HTTPClient = &http.Client{Transport: tr}
				c, _, err := h.dialWeb(t, scheme, o)
				if err != nil {
					t.Fatal(err)
				}
				if i := h.info(t); i.Protocol != scheme || !i.Remote.IsValid() || (i.TLS != nil) != (scheme == KindWSS) {
					t.Errorf("info %+v", i)
				}
				ctx := t.Context()
				// One packet in two messages, then two in one.
				for _, s := range []string{"\xC0", "\x00", "\xC0\x00\xC0\x00"} {
					if err := c.Write(ctx, websocket.MessageBinary, []byte(s)); err != nil {
						t.Fatal(err)
					}
				}
				nc := websocket.NetConn(ctx, c, websocket.MessageBinary)
				got := make([]byte, 6)
				if _, err := io.ReadFull(nc, got); err != nil || string(got) != "\xC0\x00\xC0\x00\xC0\x00" {
					t.Errorf("read %x, %v", got, err)
				}
				if err := nc.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
	}
}

func TestWebSocketRefusals(t *testing.T) {
	mqtt := []string{"mqtt"}
	h := open(t, Config{Kind: KindWS, AllowedOrigins: []string{"https://app.example.com"}}, nil)

	_, r, err := h.dialWeb(t, "ws", &websocket.DialOptions{Subprotocols: mqtt, HTTPHeader: http.Header{"Origin": {"https://evil.example.com"}}})
	if err == nil || r == nil || r.StatusCode != http.StatusForbidden {
		t.Errorf("other origin: %v", err)
	}
	c, _, err := h.dialWeb(t, "ws", &websocket.DialOptions{Subprotocols: mqtt, HTTPHeader: http.Header{"Origin": {"https://app.example.com"}}})
	if err != nil {
		t.Errorf("allowed origin: %v", err)
	} else {
		_ = c.CloseNow()
	}
	// The listener's own host is the same origin.
	if c, _, err = h.dialWeb(t, "ws", &websocket.DialOptions{Subprotocols: mqtt, HTTPHeader: http.Header{"Origin": {"http://" + h.Addr().String()}}}); err != nil {
		t.Errorf("same origin: %v", err)
	}

	// [MQTT-6.0.0-1]: a text message ends the connection.
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("after a text message: %v", err)
	}

	// [MQTT-6.0.0-3]: without the subprotocol there is no MQTT.
	c, _, err = h.dialWeb(t, "ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("without subprotocol: %v", err)
	}

	plain := h.dial(t)
	_, _ = io.WriteString(plain, "GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(plain), nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("other path: %v, %v", resp, err)
	}
	expectClosed(t, plain)
	eventually(t, "refusals counted", func() bool { return h.refused(reasonWebSocket) == 3 })
}

// Close of a WebSocket returns at once and ends its reader, even if the client
// does not take part.
func TestWebSocketCloseDoesNotWait(t *testing.T) {
	took := make(chan time.Duration, 1)
	h := open(t, Config{Kind: KindWS}, func(h *harness, _ *Deps) {
		h.serve = func(_ context.Context, c net.Conn, info Info) {
			h.infos <- info
			start := time.Now()
			_ = c.Close()
			took <- time.Since(start)
			_, _ = c.Read(make([]byte, 1))
		}
	})
	c := h.dial(t)
	_, _ = io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	h.info(t)
	if d := <-took; d > 500*time.Millisecond {
		t.Errorf("Close took %v", d)
	}
	expectClosed(t, c)
	eventually(t, "gone", func() bool { return h.metric("mqcluster_listener_connections", "") == 0 })
}
