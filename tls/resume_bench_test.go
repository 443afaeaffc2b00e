package mtls

import (
	"crypto/tls"
	"testing"
	"time"
)

// BenchmarkHandshake is a client with a certificate that connects, new or with the
// ticket of another node; both sides compute here. A resumed one is to cost at most 0.62 of a new one. Under TLS 1.3 both have the
// key exchange, for which devices offer X25519 or P-256, and Go and browsers one with
// ML-KEM, which costs as much again.
func BenchmarkHandshake(b *testing.B) {
	for _, bm := range []struct {
		name    string
		version uint16
		curve   tls.CurveID
	}{
		{"TLS1.2", tls.VersionTLS12, tls.X25519},
		{"TLS1.3-X25519", tls.VersionTLS13, tls.X25519},
		{"TLS1.3-P256", tls.VersionTLS13, tls.CurveP256},
		{"TLS1.3-X25519MLKEM768", tls.VersionTLS13, tls.X25519MLKEM768},
	} {
		for _, resume := range []bool{false, true} {
			name := map[bool]string{false: "full", true: "resumed"}[resume]
			b.Run(bm.name+"/"+name, func(b *testing.B) { benchHandshake(b, bm.version, bm.curve, resume) })
		}
	}
}

func benchHandshake(b *testing.B, version uint16, curve tls.CurveID, resume bool) {
	ca := newCA(b, testCluster)
	cfg := ListenerConfig{RequireClientCert: true, Revoked: func(string) bool { return false }}
	keys := [][32]byte{{1}}
	nodes := make([]*tls.Config, 2)
	for i, id := range []string{"n1", "n2"} {
		l := must(OpenListener(cfg, newIdentity(b, ca, id)))
		l.SetTicketKeys(keys)
		nodes[i] = l.Config()
	}
	client := dial(ca.Certificate(), "localhost", newPair(b, ca, ClientProfile{Name: "u"}, time.Now()))
	client.MaxVersion, client.CurvePreferences = version, []tls.CurveID{curve}
	client.ClientSessionCache = nil
	if resume {
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if srv, cli := shake(nodes[0], client); srv.err != nil || cli.err != nil {
			b.Fatal(srv.err, cli.err)
		}
	}
	for i := 0; b.Loop(); i++ {
		srv, cli := shake(nodes[i%2], client)
		if srv.err != nil || cli.err != nil || srv.state.DidResume != resume {
			b.Fatalf("%v %v, resumed %t", srv.err, cli.err, srv.state.DidResume)
		}
	}
}
