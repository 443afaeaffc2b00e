package listener

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// upgrade reads the one HTTP request of a connection and makes it a WebSocket.
// There is no http.Server: it would want a goroutine and timeouts of its own,
// and there is never a second request.
func (c *client) upgrade(nc net.Conn) (*webConn, error) {
	br := bufio.NewReaderSize(nc, 4096)
	req, err := http.ReadRequest(br)
	if err != nil {
		return nil, fmt.Errorf("read HTTP request: %w", err)
	}
	w := &response{conn: nc, br: br, header: http.Header{}}
	if req.URL.Path != c.l.cfg.Path {
		http.Error(w, "not found", http.StatusNotFound)
		return nil, errors.New("request for another path than the listener's")
	}
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{
		Subprotocols:   []string{"mqtt", "mqttv3.1"},
		OriginPatterns: c.l.cfg.AllowedOrigins,
	})
	if err != nil {
		return nil, err
	}
	if ws.Subprotocol() == "" { // [MQTT-6.0.0-3]
		_ = c.raw.SetDeadline(time.Now().Add(time.Second)) // the client need not answer
		_ = ws.Close(websocket.StatusPolicyViolation, "subprotocol mqtt is required")
		return nil, errors.New("client does not speak the subprotocol mqtt")
	}
	// Packets may span messages and share them [MQTT-6.0.0-2]; a text message
	// ends the connection [MQTT-6.0.0-1].
	return &webConn{
		Conn: websocket.NetConn(context.WithoutCancel(c.l.serving), ws, websocket.MessageBinary),
		raw:  c.raw,
	}, nil
}

// webConn is a WebSocket as a byte stream. Close begins the closing handshake
// and returns; it is over, with or without the client, a second later.
type webConn struct {
	net.Conn
	raw     *tcpConn
	once    sync.Once
	closing sync.WaitGroup
}

func (w *webConn) Close() error {
	w.once.Do(func() {
		// An error means that the socket is closed, and so does one of Close.
		_ = w.raw.SetDeadline(time.Now().Add(time.Second))
		w.closing.Go(func() { _ = w.Conn.Close() })
	})
	return nil
}

func (w *webConn) RemoteAddr() net.Addr { return w.raw.RemoteAddr() }

// response answers the one HTTP request.
type response struct {
	conn   net.Conn
	br     *bufio.Reader
	header http.Header
	wrote  bool
	err    error
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.wrote {
		return
	}
	r.wrote = true
	if status != http.StatusSwitchingProtocols {
		r.header.Set("Connection", "close")
	}
	bw := bufio.NewWriter(r.conn)
	fmt.Fprintf(bw, "HTTP/1.1 %03d %s\r\n", status, http.StatusText(status))
	// Errors of a bufio.Writer stick and come out of Flush.
	_ = r.header.Write(bw)
	fmt.Fprint(bw, "\r\n")
	r.err = bw.Flush()
}

func (r *response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.err != nil {
		return 0, r.err
	}
	return r.conn.Write(p)
}

// Hijack hands the connection over, after the header was written.
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.err != nil {
		return nil, nil, r.err
	}
	return r.conn, bufio.NewReadWriter(r.br, bufio.NewWriterSize(r.conn, 4096)), nil
}
