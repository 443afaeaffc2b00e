//go:build linux

package aws

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// The load: in all 200 messages a second at QoS 1, each to one subscriber with a
// persistent session.
const (
	subscribers = 10
	publishers  = 20
	rate        = 200.0 / publishers
	password    = "of-the-load-and-secret"
)

// A load is clients that work while something is done to the cluster.
type load struct {
	t    *testing.T
	rec  *history.Recorder
	subs []*history.Subscriber
	pubs []*history.Publisher
}

// admit makes the user of the clients, and returns how they connect: to the balancer,
// by its name, trusting what ca_command prints.
func (s *site) admit() history.Endpoint {
	s.t.Helper()
	s.on("a", "sh", "-c", "echo "+password+" | mqcluster user add load --stdin")
	s.on("a", "mqcluster", "acl", "set", "user:load", "allow both #")
	pem := s.must(s.shell("ca_command"))
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		s.t.Fatalf("ca_command printed no certificate: %q", pem)
	}
	name, port, _ := strings.Cut(s.output("endpoint"), ":")
	return history.Endpoint{Addresses: []string{s.balancer + ":" + port}, TLS: &tls.Config{RootCAs: pool, ServerName: name}, Version: 5, Username: "load", Password: password}
}

func start(t *testing.T, at history.Endpoint) *load {
	t.Helper()
	rec, err := history.Open("")
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, rec: rec}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range subscribers {
		at.Version = 4 + byte(i%2)
		s, err := history.StartSubscriber(ctx, rec, history.SubscriberConfig{Endpoint: at, Name: fmt.Sprintf("sub-%d", i), Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub(fmt.Sprintf("load/%d/#", i), 1)}})
		t.Cleanup(s.Disconnect)
		if err != nil {
			t.Fatal(err)
		}
		l.subs = append(l.subs, s)
	}
	for i := range publishers {
		at.Version = 4 + byte(i/2%2)
		l.pubs = append(l.pubs, history.StartPublisher(t.Context(), rec, history.PublisherConfig{Endpoint: at, Name: fmt.Sprintf("pub-%d", i), Expiry: 3600, QoS: 1,
			Topics: []string{fmt.Sprintf("load/%d/%d", i%subscribers, i)}, Rate: rate, Window: 200, Size: 64}))
	}
	return l
}

func (l *load) acked() (sum int) {
	for _, p := range l.pubs {
		sum += p.Acked()
	}
	return sum
}

// more waits until as much is acknowledged as is to be sent in d.
func (l *load) more(d time.Duration) {
	l.t.Helper()
	want := l.acked() + int(rate*publishers*d.Seconds())
	await(l.t, "messages are acknowledged", func() error {
		if n := l.acked(); n < want {
			return fmt.Errorf("%d, not %d", n, want)
		}
		return nil
	})
}

// finish ends the load and has its history judged: nothing acknowledged is lost.
func (l *load) finish() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, p := range l.pubs {
		if err := p.Stop(ctx); err != nil {
			l.t.Error(err)
		}
	}
	for _, s := range l.subs {
		if err := s.AwaitQuiet(ctx, 1500*time.Millisecond); err != nil {
			l.t.Error(err)
		}
		s.Stop()
	}
	report := history.Check(l.rec.Events(), history.Options{MinAcked: 5000, MinOwed: 5000})
	if !report.OK() {
		l.t.Errorf("%s", report)
	}
	l.t.Logf("%s", strings.TrimSpace(report.String()))
}
