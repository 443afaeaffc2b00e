package mtls

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestToken(t *testing.T) {
	pin := PinOf(newCA(t, testCluster).Certificate())
	token := must(NewToken(pin))
	text := token.String()
	if !strings.HasPrefix(text, "MQ1."+pin+".") || token.Pin() != pin {
		t.Errorf("token is not of the pin")
	}
	if back := must(ParseToken(" " + text + "\n")); back != token {
		t.Error("another token came back")
	}
	sum := sha256.Sum256(token.secret[:])
	if !bytes.Equal(token.Hash(), sum[:]) || token.ID() != hex.EncodeToString(sum[:8]) {
		t.Errorf("hash %x, id %s", token.Hash(), token.ID())
	}
	if must(NewToken(pin)) == token {
		t.Error("two tokens are one")
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "token", token)
	secret := text[strings.LastIndex(text, ".")+1:]
	if strings.Contains(log.String(), secret) || !strings.Contains(log.String(), token.ID()) {
		t.Errorf("logged as %s", log.String())
	}

	for name, bad := range map[string]string{
		"empty":        "",
		"cut short":    text[:len(text)-1],
		"too long":     text + "A",
		"other prefix": "MQ2" + text[3:],
		"two parts":    text[:strings.LastIndex(text, ".")],
		"padded":       text + "=",
		"standard b64": "MQ1." + strings.Repeat("+", 43) + "." + secret,
		"line break":   text[:10] + "\n" + text[10:],
		"spare bits":   text[:len(text)-1] + "B",
	} {
		_, err := ParseToken(bad)
		if err == nil {
			t.Errorf("%s was taken", name)
			continue
		}
		wantErr(t, err, ErrBadToken, "MQ1.<pin>.<secret>")
		if strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
	if _, err := NewToken("x"); err == nil {
		t.Error("pin x was taken")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(must(NewToken(strings.Repeat("A", 43))).String())
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err == nil && token.String() != strings.TrimSpace(s) {
			t.Errorf("%q has two spellings", s)
		}
	})
}

func TestJoin(t *testing.T) {
	ca := newCA(t, testCluster)
	node := newIdentity(t, ca, "n1")
	token := must(NewToken(node.Pin()))
	srv, cli := mustShake(t, node.MeshServer(ServerOptions{JoinProto: "join"}, "raft"), JoinClient(token, "join"))
	joined := must(JoinPeer(cli.state, token))
	if joined.ClusterID != testCluster || joined.NodeID != "n1" || !joined.CA.Equal(ca.Certificate()) {
		t.Errorf("joined %+v", joined)
	}
	if srv.state.NegotiatedProtocol != "join" || len(srv.state.PeerCertificates) != 0 {
		t.Errorf("server has %s with %d certificates", srv.state.NegotiatedProtocol, len(srv.state.PeerCertificates))
	}
	if _, err := PeerNode(srv.state, testCluster); err == nil {
		t.Error("a joiner passes as a node")
	}
	// Without a join protocol the mesh server takes nobody in.
	if _, cli := shake(node.MeshServer(ServerOptions{}, "raft"), JoinClient(token, "join")); cli.err == nil {
		t.Error("joined a server that takes no joins")
	}
}

// The secret must go to nobody but a node of the pinned cluster. What counts is
// that the handshake fails in the joiner: it then cannot write the secret.
func TestJoinPins(t *testing.T) {
	ca := newCA(t, testCluster)
	now := time.Now()
	token := must(NewToken(PinOf(ca.Certificate())))
	join := func(id *Identity) *tls.Config { return id.MeshServer(ServerOptions{JoinProto: "join"}) }
	serve := func(cert, key []byte, chain ...*x509.Certificate) *tls.Config {
		pair := must(tls.X509KeyPair(cert, key))
		for _, c := range chain {
			pair.Certificate = append(pair.Certificate, c.Raw)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"join"}}
	}
	node := issueNode(t, ca, NodeProfile{ID: "n1"}, now)
	evil := issueNode(t, newCA(t, testCluster), NodeProfile{ID: "n1"}, now)
	expired := issueNode(t, ca, NodeProfile{ID: "n1", Lifetime: time.Hour}, now.Add(-2*time.Hour))
	serverCert, serverKey, err := ca.IssueServer(ServerProfile{DNSNames: []string{"n1"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	// A CA certificate with the cluster's key but another content, which a node
	// gone bad could show.
	other := newCA(t, "quarry")
	template := *ca.Certificate()
	template.URIs = other.Certificate().URIs
	tampered := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, &template, other.Certificate(), ca.Certificate().PublicKey, other.key))))

	for name, c := range map[string]struct {
		server *tls.Config
		kind   error
	}{
		"other CA":                   {join(newIdentity(t, newCA(t, testCluster), "n1")), ErrPin},
		"other CA, pinned one shown": {serve(evil.Cert, evil.Key, ca.Certificate()), ErrUntrusted},
		"CA not sent along":          {serve(node.Cert, node.Key), ErrPin},
		"server certificate":         {serve(serverCert, serverKey, ca.Certificate()), ErrWrongKind},
		"expired":                    {serve(expired.Cert, expired.Key, ca.Certificate()), ErrExpired},
		"tampered CA":                {serve(node.Cert, node.Key, tampered), ErrPin},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newConns()
			done := make(chan side, 1)
			go func() { done <- speak(tls.Server(a, c.server), a) }()
			conn := tls.Client(b, JoinClient(token, "join"))
			_, err := fmt.Fprint(conn, token) // handshakes first
			_ = b.Close()
			srv := <-done
			wantErr(t, err, c.kind)
			if srv.err == nil {
				t.Error("the server got application data")
			}
		})
	}
}
