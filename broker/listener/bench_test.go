package listener

import (
	"context"
	"io"
	"net"
	"testing"
)

// BenchmarkAccept is one connection from dial to close, client included.
func BenchmarkAccept(b *testing.B) {
	l, err := Open(b.Context(), Config{Name: "test", Address: "127.0.0.1:0", Kind: KindTCP}, Deps{
		Budget: NewBudget(100, 1<<20),
		Serve: func(_ context.Context, c net.Conn, info Info) func() {
			info.Authenticated()
			return func() { _, _ = io.Copy(io.Discard, c) }
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Drain(context.Background()) }()
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}
