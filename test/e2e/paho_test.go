//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// TestPahoClients has clients of the Eclipse Paho project publish to each other,
// one of them on a node that is killed: it reconnects by itself, and nothing that
// either was acknowledged fails to reach the other.
func TestPahoClients(t *testing.T) {
	c := NewCluster(t, Options{})
	victim, other := c.Followers()[0], c.Followers()[1]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	names := []string{"struck", "spared"}
	inboxes := map[string]*inbox{}
	clients := map[string]*autopaho.ConnectionManager{}
	for i, n := range []*Node{victim, other} {
		inboxes[names[i]] = newInbox()
		clients[names[i]] = connectPaho(ctx, t, c, n, names[i], inboxes[names[i]])
	}
	const count = 300
	for i := range count {
		if i == count/3 {
			victim.Kill()
		}
		for name, m := range clients {
			publishPaho(ctx, t, m, "paho/"+name, i)
		}
	}
	for _, name := range names {
		for _, from := range names {
			await(t, patience, func() bool { return inboxes[name].count("paho/"+from) >= count }, func() string {
				return fmt.Sprintf("%s has %d of %d messages of %s", name, inboxes[name].count("paho/"+from), count, from)
			})
		}
		if err := clients[name].Disconnect(ctx); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d messages each way, over the death of %s", count, victim.ID)
}

// inbox counts distinct payloads by topic.
type inbox struct {
	mu  sync.Mutex
	got map[string]map[string]bool
}

func newInbox() *inbox { return &inbox{got: map[string]map[string]bool{}} }

func (b *inbox) add(topic string, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.got[topic] == nil {
		b.got[topic] = map[string]bool{}
	}
	b.got[topic][string(payload)] = true
}

func (b *inbox) count(topic string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got[topic])
}

func connectPaho(ctx context.Context, t *testing.T, c *Cluster, first *Node, id string, in *inbox) *autopaho.ConnectionManager {
	t.Helper()
	var servers []*url.URL
	for _, a := range c.Addresses(first) {
		servers = append(servers, &url.URL{Scheme: "tls", Host: a})
	}
	m, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: servers, TlsCfg: c.ClientTLS, KeepAlive: 20, SessionExpiryInterval: 600,
		ReconnectBackoff: func(int) time.Duration { return 200 * time.Millisecond },
		ConnectUsername:  user, ConnectPassword: []byte(password), ConnectTimeout: 5 * time.Second,
		ClientConfig: paho.ClientConfig{ClientID: id, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) {
				in.add(p.Packet.Topic, p.Packet.Payload)
				return true, nil
			}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AwaitConnection(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "paho/#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	return m
}

// publishPaho publishes until it is acknowledged: autopaho leaves that to its user.
func publishPaho(ctx context.Context, t *testing.T, m *autopaho.ConnectionManager, topic string, i int) {
	t.Helper()
	for {
		if err := m.AwaitConnection(ctx); err != nil {
			t.Fatalf("publish %d to %s: %v", i, topic, err)
		}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := m.Publish(attempt, &paho.Publish{Topic: topic, QoS: 1, Payload: fmt.Append(nil, i)})
		cancel()
		if err == nil {
			return
		}
	}
}
