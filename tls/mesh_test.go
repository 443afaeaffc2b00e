package mtls

import (
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errRemoved = errors.New("node n2 was removed from the cluster")

func TestMesh(t *testing.T) {
	ca := newCA(t, testCluster)
	a, b := newIdentity(t, ca, "n1"), newIdentity(t, ca, "n2")
	server := a.MeshServer(ServerOptions{JoinProto: "join"}, "raft", "gossip")
	srv, cli := mustShake(t, server, b.MeshClient("n1", "gossip"))
	if id, err := PeerNode(srv.state, testCluster); id != "n2" || err != nil {
		t.Errorf("server sees %q, %v", id, err)
	}
	if id, err := PeerNode(cli.state, testCluster); id != "n1" || err != nil {
		t.Errorf("client sees %q, %v", id, err)
	}
	for _, s := range []side{srv, cli} {
		if s.state.NegotiatedProtocol != "gossip" || s.state.Version != tls.VersionTLS13 || s.state.DidResume {
			t.Errorf("%s, version %x, resumed %t", s.state.NegotiatedProtocol, s.state.Version, s.state.DidResume)
		}
	}
}

// mallory dials the mesh with settings of its own.
func mallory(pair *tls.Certificate, protos ...string) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, NextProtos: protos}
	if pair != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return c
}

func TestMeshServerRefuses(t *testing.T) {
	ca := newCA(t, testCluster)
	now := time.Now()
	node := newIdentity(t, ca, "n2")
	server := newIdentity(t, ca, "n1").MeshServer(ServerOptions{JoinProto: "join"}, "raft", "gossip", "join")
	pairOf := func(m Material) *tls.Certificate {
		p := must(tls.X509KeyPair(m.Cert, m.Key))
		return &p
	}
	client := newPair(t, ca, ClientProfile{Name: "n2"}, now)
	serverCert, serverKey, err := ca.IssueServer(ServerProfile{DNSNames: []string{"n2"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	good := pairOf(node.Material())
	old := mallory(good, "raft")
	old.MaxVersion = tls.VersionTLS12
	for name, c := range map[string]struct {
		client *tls.Config
		says   string
	}{
		"client certificate":     {mallory(&client, "raft"), "client certificate and not a node's"},
		"server certificate":     {mallory(pairOf(Material{Cert: serverCert, Key: serverKey}), "raft"), "not meant for this use"},
		"no certificate":         {mallory(nil, "raft"), "client sent no certificate"},
		"none, join beside raft": {mallory(nil, "join", "raft"), "client sent no certificate"},
		"other CA, same cluster": {mallory(pairOf(issueNode(t, newCA(t, testCluster), NodeProfile{ID: "n2"}, now)), "raft"), "unknown authority"},
		"other cluster":          {mallory(pairOf(issueNode(t, newCA(t, "quarry"), NodeProfile{ID: "n2"}, now)), "raft"), "unknown authority"},
		"expired":                {mallory(pairOf(issueNode(t, ca, NodeProfile{ID: "n2", Lifetime: time.Hour}, now.Add(-2*time.Hour))), "raft"), "certificate expired since"},
		"not yet valid":          {mallory(pairOf(issueNode(t, ca, NodeProfile{ID: "n2"}, now.Add(time.Hour))), "raft"), "certificate valid only from"},
		"no ALPN":                {mallory(good), "no mesh protocol"},
		"unknown ALPN":           {mallory(good, "h2"), "no application protocol"},
		"TLS 1.2":                {old, "TLS protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			srv, cli := shake(server, c.client)
			if cli.err == nil {
				t.Error("the client is in")
			}
			wantErr(t, errors.New(Describe(srv.err)), nil, c.says)
		})
	}
}

func TestMeshClientRefuses(t *testing.T) {
	ca := newCA(t, testCluster)
	now := time.Now()
	client := newIdentity(t, ca, "n2").MeshClient("n1", "raft")
	serve := func(cert, key []byte, protos ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{must(tls.X509KeyPair(cert, key))}, NextProtos: protos}
	}
	m := issueNode(t, ca, NodeProfile{ID: "n1"}, now)
	expired := issueNode(t, ca, NodeProfile{ID: "n1", Lifetime: time.Hour}, now.Add(-2*time.Hour))
	clientCert, clientKey, err := ca.IssueClient(ClientProfile{Name: "n1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	serverCert, serverKey, err := ca.IssueServer(ServerProfile{DNSNames: []string{"n1"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		server *tls.Config
		kind   error
	}{
		"another node":       {newIdentity(t, ca, "n3").MeshServer(ServerOptions{}, "raft"), ErrWrongPeer},
		"other CA":           {newIdentity(t, newCA(t, testCluster), "n1").MeshServer(ServerOptions{}, "raft"), ErrUntrusted},
		"expired":            {serve(expired.Cert, expired.Key, "raft"), ErrExpired},
		"client certificate": {serve(clientCert, clientKey, "raft"), ErrWrongKind},
		"server certificate": {serve(serverCert, serverKey, "raft"), ErrWrongKind},
		"no ALPN":            {serve(m.Cert, m.Key), ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			_, cli := shake(c.server, client)
			wantErr(t, cli.err, c.kind)
		})
	}
}

func TestMeshAllowed(t *testing.T) {
	ca := newCA(t, testCluster)
	a, b := newIdentity(t, ca, "n1"), newIdentity(t, ca, "n2")
	server, client := a.MeshServer(ServerOptions{}, "raft"), b.MeshClient("n1", "raft")
	refuse := func(bad string) func(string, string) error {
		return func(id, serial string) error {
			if id == bad && serial != "" {
				return errRemoved
			}
			return nil
		}
	}
	a.SetAllowed(refuse("n2"))
	srv, cli := shake(server, client)
	wantErr(t, srv.err, errRemoved)
	if !errors.Is(srv.err, ErrRevoked) || cli.err == nil {
		t.Errorf("server %v, client %v", srv.err, cli.err)
	}
	a.SetAllowed(nil)
	mustShake(t, server, client)
	b.SetAllowed(refuse("n1"))
	_, cli = shake(server, client)
	wantErr(t, cli.err, errRemoved)
}

// A rotation of the CA, while settings made before it stay in use.
func TestMeshFollowsReplace(t *testing.T) {
	oldCA, nextCA := newCA(t, testCluster), newCA(t, testCluster)
	a, b := newIdentity(t, oldCA, "n1"), newIdentity(t, oldCA, "n2")
	server, client := a.MeshServer(ServerOptions{}, "raft"), b.MeshClient("n1", "raft")
	mustShake(t, server, client)

	both := append(nextCA.CertPEM(), oldCA.CertPEM()...)
	for _, i := range []*Identity{a, b} {
		if err := i.Replace(nil, nil, both); err != nil {
			t.Fatal(err)
		}
	}
	m := issueNode(t, nextCA, NodeProfile{ID: "n1"}, time.Now())
	if err := a.Replace(m.Cert, m.Key, nil); err != nil {
		t.Fatal(err)
	}
	if _, cli := mustShake(t, server, client); !cli.state.PeerCertificates[0].Equal(a.Leaf()) {
		t.Error("the old certificate was served")
	}
	if a.Pin() != PinOf(nextCA.Certificate()) {
		t.Error("the pin is not of the CA that joiners will see")
	}
	// The old CA goes: n2, which has a certificate of it, is out.
	if err := a.Replace(nil, nil, nextCA.CertPEM()); err != nil {
		t.Fatal(err)
	}
	srv, _ := shake(server, client)
	wantErr(t, srv.err, nil, "unknown authority")
}

// A node that runs on and on: its certificate runs out, then is renewed.
func TestMeshRenewsWithoutRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, testCluster)
		a, b := newIdentity(t, ca, "n1"), newIdentity(t, ca, "n2")
		server, client := a.MeshServer(ServerOptions{}, "raft"), b.MeshClient("n1", "raft")
		mustShake(t, server, client)
		time.Sleep(31 * 24 * time.Hour)
		_, cli := shake(server, client)
		wantErr(t, cli.err, ErrExpired)
		for _, i := range []*Identity{a, b} {
			m := issueNode(t, ca, NodeProfile{ID: i.ID()}, time.Now())
			if err := i.Replace(m.Cert, m.Key, nil); err != nil {
				t.Fatal(err)
			}
		}
		mustShake(t, server, client)
	})
}
