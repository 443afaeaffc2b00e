package mtls

import (
	"crypto/tls"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// cpu is what the thread has computed so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	const thread = 1 // RUSAGE_THREAD
	if err := syscall.Getrusage(thread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandshake is a client with a certificate that connects, new or with the
// ticket of another node: time of both sides, and server-ns/op, what it costs the
// node. A resumed one is to cost the node at most 0.62 of a new one.
func BenchmarkHandshake(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, resume := range []bool{false, true} {
			name := map[bool]string{false: "full", true: "resumed"}[resume]
			b.Run(tls.VersionName(version)+"/"+name, func(b *testing.B) { benchHandshake(b, version, resume) })
		}
	}
}

func benchHandshake(b *testing.B, version uint16, resume bool) {
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
	client.MaxVersion = version
	client.ClientSessionCache = nil
	if resume {
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if srv, cli := shake(nodes[0], client); srv.err != nil || cli.err != nil {
			b.Fatal(srv.err, cli.err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var server time.Duration
	i := 0
	for b.Loop() {
		i++
		x, y := newConns()
		done := make(chan side, 1)
		go func() { done <- speak(tls.Client(y, client), y) }()
		start := cpu(b)
		srv := speak(tls.Server(x, nodes[i%2]), x)
		server += cpu(b) - start
		if cli := <-done; srv.err != nil || cli.err != nil || srv.state.DidResume != resume {
			b.Fatalf("%v %v, resumed %t", srv.err, cli.err, srv.state.DidResume)
		}
	}
	b.ReportMetric(float64(server.Nanoseconds())/float64(b.N), "server-ns/op")
}
