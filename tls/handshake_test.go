package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fmt.Errorf("accept: %w", failf(ErrRevoked, "it was revoked")), "it was revoked"},
		{io.EOF, "closed the connection during"},
		{fmt.Errorf("read: %w", os.ErrDeadlineExceeded), "in time"},
		{context.DeadlineExceeded, "in time"},
		{tls.RecordHeaderError{RecordHeader: [5]byte{0x10, 0x20}}, "plain text on a TLS port: the client speaks MQTT"},
		{tls.RecordHeaderError{RecordHeader: [5]byte{'G', 'E', 'T', ' ', '/'}}, "plain text on a TLS port: the client speaks HTTP"},
		{tls.RecordHeaderError{RecordHeader: [5]byte{'P', 'R', 'O', 'X', 'Y'}}, "PROXY protocol"},
		{tls.RecordHeaderError{RecordHeader: [5]byte{'H', 'T', 'T', 'P', '/'}}, "not a TLS port"},
		{tls.RecordHeaderError{}, "plain text on a TLS port"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, "demands a certificate"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: something new")}, "broke off the TLS handshake: something new"},
		{errors.New("tls: something else"), "something else"},
	} {
		got := Describe(c.err)
		if !strings.Contains(got, c.want) || (got == "") != (c.err == nil) {
			t.Errorf("%v is described as %q, want %q", c.err, got, c.want)
		}
	}
}

// What the other side of a refusal is told, through the real alerts.
func TestDescribeAlerts(t *testing.T) {
	ca := newCA(t, testCluster)
	node := newIdentity(t, ca, "n1")
	required := must(OpenListener(ListenerConfig{RequireClientCert: true}, node))
	_, cli := shake(required.Config(), dial(ca.Certificate(), "localhost"))
	wantErr(t, errors.New(Describe(cli.err)), nil, "demands a certificate")
	_, cli = shake(node.MeshServer(ServerOptions{}, "raft"), mallory(nil, "h2"))
	wantErr(t, errors.New(Describe(cli.err)), nil, "no mesh protocol in common")
	srv, cli := shake(required.Config(), dial(newCA(t, testCluster).Certificate(), "localhost"))
	wantErr(t, errors.New(Describe(cli.err)), nil, "unknown authority")
	wantErr(t, errors.New(Describe(srv.err)), nil, "refused our certificate")
}

func TestPlainTextOnTLSPort(t *testing.T) {
	ca := newCA(t, testCluster)
	l := must(OpenListener(ListenerConfig{}, newIdentity(t, ca, "n1")))
	a, b := newConns()
	if _, err := b.Write([]byte("\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	err := tls.Server(a, l.Config()).Handshake()
	if got := Describe(err); !strings.Contains(got, "speaks MQTT without TLS") {
		t.Errorf("%v is described as %q", err, got)
	}
}

// openssl as a client, which reads our certificates more strictly than Go does.
func TestOpensslClient(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	ca := newCA(t, testCluster)
	l := must(OpenListener(ListenerConfig{RequireClientCert: true}, newIdentity(t, ca, "n1")))
	dir := t.TempDir()
	certPEM, keyPEM, err := ca.IssueClient(ClientProfile{Name: "sensor-7"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := WritePrivate(p, data); err != nil {
			t.Fatal(err)
		}
		return p
	}
	ln := must(tls.Listen("tcp", "127.0.0.1:0", l.Config()))
	defer func() { _ = ln.Close() }()
	got := make(chan side, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- side{err: err}
			return
		}
		defer func() { _ = c.Close() }()
		conn := c.(*tls.Conn)
		err = errors.Join(conn.SetDeadline(time.Now().Add(20*time.Second)), conn.Handshake())
		got <- side{conn.ConnectionState(), err}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, openssl, "s_client", "-connect", ln.Addr().String(), "-CAfile", path("ca.crt", ca.CertPEM()),
		"-cert", path("c.crt", certPEM), "-key", path("c.key", keyPEM), "-verify_return_error", "-verify_ip", "127.0.0.1", "-x509_strict", "-brief")
	out, err := cmd.CombinedOutput()
	s := <-got
	if err != nil || s.err != nil || !strings.Contains(string(out), "Verification: OK") {
		t.Fatalf("server %v, openssl %v: %s", s.err, err, out)
	}
	if name, err := ClientName(s.state.PeerCertificates[0], FromSAN); name != "sensor-7" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}
