package mtls

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testCluster = "park"

// end is one end of a connection in memory whose writes never block, so that a
// failing handshake can say why, also within a synctest bubble.
type end struct {
	in, out *stream
}

type stream struct {
	mu     sync.Mutex
	more   *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newStream() *stream {
	s := &stream{}
	s.more = sync.NewCond(&s.mu)
	return s
}

func newConns() (a, b *end) {
	x, y := newStream(), newStream()
	return &end{in: x, out: y}, &end{in: y, out: x}
}

func (e *end) Read(p []byte) (int, error) {
	s := e.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.buf.Len() == 0 && !s.closed {
		s.more.Wait()
	}
	if s.buf.Len() == 0 {
		return 0, io.EOF
	}
	return s.buf.Read(p)
}

func (e *end) Write(p []byte) (int, error) {
	s := e.out
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.more.Broadcast()
	return s.buf.Write(p)
}

func (e *end) Close() error {
	for _, s := range []*stream{e.in, e.out} {
		s.mu.Lock()
		s.closed = true
		s.more.Broadcast()
		s.mu.Unlock()
	}
	return nil
}

func (e *end) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (e *end) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// side is what one end of a handshake came to.
type side struct {
	state tls.ConnectionState
	err   error
}

// shake runs a handshake and sends one byte each way, so that a client learns of
// a refusal under TLS 1.3 and gets its session ticket.
func shake(server, client *tls.Config) (srv, cli side) {
	a, b := newConns()
	done := make(chan side, 1)
	go func() { done <- speak(tls.Server(a, server), a) }()
	cli = speak(tls.Client(b, client), b)
	return <-done, cli
}

func speak(c *tls.Conn, raw io.Closer) (s side) {
	defer func() { _ = raw.Close() }()
	if s.err = c.Handshake(); s.err != nil {
		return s
	}
	s.state = c.ConnectionState()
	if _, s.err = c.Write([]byte("!")); s.err != nil {
		// The alert that says why may wait to be read.
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
			s.err = err
		}
		return s
	}
	_, s.err = io.ReadFull(c, make([]byte, 1))
	return s
}

func mustShake(t *testing.T, server, client *tls.Config) (srv, cli side) {
	t.Helper()
	srv, cli = shake(server, client)
	if srv.err != nil || cli.err != nil {
		t.Fatalf("handshake failed: server %v, client %v", srv.err, cli.err)
	}
	return srv, cli
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func wantErr(t *testing.T, err, kind error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one of %v %q", kind, parts)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("error %q is not %q", err, kind)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

func newCA(t testing.TB, cluster string) *CA {
	t.Helper()
	// Older than the past that tests issue certificates in.
	return must(NewCA(cluster, time.Now().Add(-30*24*time.Hour)))
}

// issueNode makes a node's identity as of now.
func issueNode(t testing.TB, ca *CA, p NodeProfile, now time.Time) Material {
	t.Helper()
	key := must(NewNodeKey())
	cert := must(ca.IssueNode(must(NewNodeRequest(key)), p, now))
	return Material{Cert: cert, Key: must(MarshalKey(key)), CA: ca.CertPEM()}
}

func newIdentity(t testing.TB, ca *CA, id string) *Identity {
	t.Helper()
	return must(CreateIdentity(t.TempDir(), ca.ClusterID(), issueNode(t, ca, NodeProfile{ID: id}, time.Now())))
}

// newPair issues a client certificate for tls.Config.
func newPair(t testing.TB, ca *CA, p ClientProfile, now time.Time) tls.Certificate {
	t.Helper()
	cert, key, err := ca.IssueClient(p, now)
	if err != nil {
		t.Fatal(err)
	}
	return must(tls.X509KeyPair(cert, key))
}

func parseOne(t testing.TB, certPEM []byte) *x509.Certificate {
	t.Helper()
	return must(parseCerts("test", certPEM))[0]
}

// fixture copies a file that openssl made to a new place and returns its path:
// git keeps no modes, and keys must be 0600.
func fixture(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	data := must(os.ReadFile(filepath.Join("testdata", "openssl", name)))
	if err := WritePrivate(path, data); err != nil {
		t.Fatal(err)
	}
	return path
}

// selfSigned makes a certificate outside of any CA.
func selfSigned(t testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return must(x509.ParseCertificate(der))
}
