package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func openNull(t *testing.T, c NullConfig) *Null {
	c.Address = "127.0.0.1:0"
	n, err := OpenNull(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestFaultsAreCounted(t *testing.T) {
	for _, tt := range []struct {
		name             string
		qos              byte
		copies           func(header) int
		lost, duplicates int64
		fails            bool
	}{
		{"lost at QoS 0", 0, func(h header) int { return min(1, int(h.seq)%10) }, 150, 0, false},
		{"lost at QoS 1", 1, func(h header) int { return min(1, int(h.seq)%10) }, 150, 0, true},
		{"the last ones lost", 1, func(h header) int { return min(1, int(290/(h.seq+1))) }, 50, 0, true},
		{"doubled at QoS 1", 1, func(h header) int { return 1 + min(1, int(h.seq)%2) }, 0, 750, false},
		{"doubled at QoS 2", 2, func(h header) int { return 1 + min(1, int(h.seq)%2) }, 0, 750, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			null := openNull(t, NullConfig{})
			null.copies = func(payload []byte) int {
				h, _ := parseHeader(payload)
				return tt.copies(h)
			}
			c := small(FanIn, tt.qos, 4)
			c.Addrs, c.Wait = []string{null.Addr()}, 500*time.Millisecond
			r, err := Run(t.Context(), c)
			if r.Lost != tt.lost || r.Duplicates != tt.duplicates || (err != nil) != tt.fails {
				t.Errorf("want %d lost, %d duplicates, failure %t; got %v\n%s", tt.lost, tt.duplicates, tt.fails, err, r.Table())
			}
			if tt.lost > 0 && (len(r.Losses) != 5 || r.Losses[0].Lost != tt.lost/5) {
				t.Errorf("losses: %+v", r.Losses)
			}
		})
	}
}

func TestBrokerThatDiesIsAnError(t *testing.T) {
	null := openNull(t, NullConfig{})
	null.copies = func(payload []byte) int {
		if h, _ := parseHeader(payload); h.seq == 100 {
			null.listener.Close()
			null.mu.Lock()
			defer null.mu.Unlock()
			for c := range null.conns {
				c.Close()
			}
		}
		return 1
	}
	c := small(Pairs, 1, 5)
	c.Addrs, c.Wait = []string{null.Addr()}, 500*time.Millisecond
	r, err := Run(t.Context(), c)
	if err == nil || r.ErrorCount == 0 || !strings.Contains(err.Error(), "lost its connection") {
		t.Errorf("%v\n%s", err, r.Table())
	}
}

func TestNobodyThere(t *testing.T) {
	c := small(Pairs, 1, 5)
	c.Addrs = []string{"127.0.0.1:1"}
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "connect to 127.0.0.1:1") {
		t.Error(err)
	}
}

func TestRunIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	null := openNull(t, NullConfig{})
	null.copies = func(payload []byte) int {
		if h, _ := parseHeader(payload); h.seq == 100 {
			cancel()
		}
		return 1
	}
	c := small(Pairs, 0, 4)
	c.Addrs = []string{null.Addr()}
	c.Count, c.Duration = 0, time.Hour
	if r, err := Run(ctx, c); err == nil || r.Delivered == 0 {
		t.Errorf("%v\n%s", err, r.Table())
	}
}

// pki is a server's and a client's side of a TLS connection.
func pki(t *testing.T) (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

func TestTLS(t *testing.T) {
	server, client := pki(t)
	null := openNull(t, NullConfig{TLS: server})
	c := small(Pairs, 1, 5)
	c.Addrs, c.TLS = []string{null.Addr()}, client
	if r, err := Run(t.Context(), c); err != nil {
		t.Errorf("%v\n%s", err, r.Table())
	}
	for _, resume := range []bool{false, true} {
		c := small(Connects, 0, 5)
		c.Addrs, c.TLS, c.Resume, c.Count = []string{null.Addr()}, client, resume, 20
		r, err := Run(t.Context(), c)
		if want := map[bool]int64{true: 20}[resume]; err != nil || r.Connections.Resumed != want {
			t.Errorf("resume %t: %v\n%s", resume, err, r.Table())
		}
	}
	c.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if _, err := Run(t.Context(), c); err == nil {
		t.Error("a certificate of an unknown authority is accepted")
	}
}
