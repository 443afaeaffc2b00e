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
	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// TestPahoClients has the two Go clients of the Eclipse Paho project, of MQTT 3.1.1
// and of 5, reconnect by themselves when their node is killed: nothing that either
// was acknowledged fails to reach the other.
func TestPahoClients(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	victim := c.Followers()[0]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	inbox := map[string]*inbox{"v3": newInbox(), "v5": newInbox()}

	old := paho3(t, c, victim, inbox["v3"])
	defer old.Disconnect(100)
	modern := paho5(ctx, t, c, victim, inbox["v5"])
	defer modern.Disconnect(context.Background())

	const count = 300
	for i := range count {
		if i == count/3 {
			victim.Kill()
		}
		// A write that meets the end of the connection is an error of the library's:
		// an application publishes again.
		await(t, patience, func() bool {
			token := old.Publish("paho/v3", 1, false, fmt.Sprint(i))
			return token.WaitTimeout(patience) && token.Error() == nil
		}, func() string { return fmt.Sprintf("message %d of MQTT 3.1.1 is not acknowledged", i) })
		publish5(ctx, t, modern, i)
	}
	for version, other := range map[string]string{"v3": "paho/v5", "v5": "paho/v3"} {
		await(t, patience, func() bool { return inbox[version].count(other) >= count }, func() string {
			return fmt.Sprintf("the client of %s has %d of %d messages of %s", version, inbox[version].count(other), count, other)
		})
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

func paho3(t *testing.T, c *Cluster, first *Node, in *inbox) mqtt.Client {
	t.Helper()
	o := mqtt.NewClientOptions().SetClientID("paho3").SetUsername(user).SetPassword(password).SetTLSConfig(c.ClientTLS).
		SetCleanSession(false).SetAutoReconnect(true).SetMaxReconnectInterval(time.Second).SetConnectTimeout(5 * time.Second).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { in.add(m.Topic(), m.Payload()) })
	for _, a := range c.Addresses(first) {
		o.AddBroker("ssl://" + a)
	}
	client := mqtt.NewClient(o)
	if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	if token := client.Subscribe("paho/#", 1, nil); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	return client
}

func paho5(ctx context.Context, t *testing.T, c *Cluster, first *Node, in *inbox) *autopaho.ConnectionManager {
	t.Helper()
	var servers []*url.URL
	for _, a := range c.Addresses(first) {
		servers = append(servers, &url.URL{Scheme: "tls", Host: a})
	}
	m, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: servers, TlsCfg: c.ClientTLS, KeepAlive: 20, SessionExpiryInterval: 600,
		ReconnectBackoff: func(int) time.Duration { return 200 * time.Millisecond },
		ConnectUsername:  user, ConnectPassword: []byte(password), ConnectTimeout: 5 * time.Second,
		ClientConfig: paho.ClientConfig{ClientID: "paho5", OnPublishReceived: []func(paho.PublishReceived) (bool, error){
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

// publish5 publishes until it is acknowledged: autopaho leaves that to its user.
func publish5(ctx context.Context, t *testing.T, m *autopaho.ConnectionManager, i int) {
	t.Helper()
	for {
		if err := m.AwaitConnection(ctx); err != nil {
			t.Fatalf("publish %d of MQTT 5: %v", i, err)
		}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := m.Publish(attempt, &paho.Publish{Topic: "paho/v5", QoS: 1, Payload: fmt.Append(nil, i)})
		cancel()
		if err == nil {
			return
		}
	}
}
