//go:build linux

package fakeaws

import (
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// open starts a cloud for one test.
func open(t *testing.T) *Cloud {
	t.Helper()
	c, err := Open(Config{Dir: t.TempDir(), Address: "127.0.0.1:0", Balancer: "127.0.0.1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestPolicy compares as IAM does.
func TestPolicy(t *testing.T) {
	const text = `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::b/backup/*"},
		{"Effect":"Allow","Action":["ssm:GetParameter"],"Resource":["arn:p/token"]},
		{"Effect":"Allow","Action":"cloudwatch:PutMetricData","Resource":"*","Condition":{"StringEquals":{"cloudwatch:namespace":"mqcluster"}}}]}`
	c := open(t)
	c.roles["r"] = &role{policies: map[string]string{"node": text}}
	for _, tt := range []struct {
		action, resource, namespace string
		ok                          bool
	}{
		{"s3:PutObject", "arn:aws:s3:::b/backup/2026/x", "", true},
		{"s3:PutObject", "arn:aws:s3:::b/other", "", false},
		{"s3:GetObject", "arn:aws:s3:::b/backup/x", "", false},
		{"s3:ListBucket", "arn:aws:s3:::b", "", false},
		{"ssm:GetParameter", "arn:p/token", "", true},
		{"ssm:PutParameter", "arn:p/token", "", false},
		{"cloudwatch:PutMetricData", "*", "mqcluster", true},
		{"cloudwatch:PutMetricData", "*", "other", false},
	} {
		err := c.authorize("r", tt.action, tt.resource, map[string]string{"cloudwatch:namespace": tt.namespace})
		if (err == nil) != tt.ok {
			t.Errorf("%s on %s: %v", tt.action, tt.resource, err)
		}
	}
}

// signed asks with curl's signature.
func signed(t *testing.T, c *Cloud, secret, body string) (string, error) {
	t.Helper()
	out, err := exec.Command("curl", "-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:"+Region+":sts", "--user", Key+":"+secret, "--data", body, c.URL()+"/").CombinedOutput()
	return string(out), err
}

// TestStrict: what is not signed, wrongly signed or not known is refused, and noted.
func TestStrict(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err) // a developer may lack it, CI does not
	}
	c := open(t)
	if out, err := signed(t, c, Secret, "Action=GetCallerIdentity&Version=2011-06-15"); err != nil || !strings.Contains(out, account) {
		t.Errorf("a signed request: %v %s", err, out)
	}
	if got := c.Failures(); len(got) != 0 {
		t.Errorf("failures: %v", got)
	}
	for name, ask := range map[string]func() error{
		"another secret": func() error {
			_, err := signed(t, c, "other", "Action=GetCallerIdentity&Version=2011-06-15")
			return err
		},
		"an action": func() error { _, err := signed(t, c, Secret, "Action=GetSessionToken&Version=2011-06-15"); return err },
		"no signature": func() error {
			r, err := http.PostForm(c.URL(), url.Values{"Action": {"GetCallerIdentity"}})
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			return err
		},
		"a parameter": func() error {
			_, err := signed(t, c, Secret, "Action=GetCallerIdentity&Version=2011-06-15&Other=1")
			return err
		},
	} {
		before := len(c.Failures())
		_ = ask() // some are answered
		if len(c.Failures()) != before+1 {
			t.Errorf("%s was not noted: %v", name, c.Failures())
		}
	}
}

// TestPermits: a rule holds for its group, direction, protocol, ports and peer.
func TestPermits(t *testing.T) {
	c := open(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addRule("node", record{"ipProtocol": "tcp", "fromPort": 8883, "toPort": 8883, "isEgress": false, "referencedGroupInfo": record{"groupId": "balancer"}})
	c.addRule("node", record{"ipProtocol": "tcp", "fromPort": 20, "toPort": 22, "isEgress": false, "cidrIpv4": "192.0.2.0/24"})
	c.addRule("balancer", record{"ipProtocol": "-1", "fromPort": -1, "toPort": -1, "isEgress": true, "cidrIpv4": "0.0.0.0/0"})
	office, world := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.1")
	for _, tt := range []struct {
		name, group string
		egress      bool
		port        int
		peer        netip.Addr
		groups      []string
		want        bool
	}{
		{"the balancer", "node", false, 8883, world, []string{"balancer"}, true},
		{"the balancer at another port", "node", false, 9883, world, []string{"balancer"}, false},
		{"somebody", "node", false, 8883, world, nil, false},
		{"an operator", "node", false, 22, office, nil, true},
		{"an operator at a port beyond", "node", false, 23, office, nil, false},
		{"out of the balancer", "balancer", true, 8883, world, nil, true},
		{"into the balancer", "balancer", false, 8883, world, nil, false},
		{"out of a node", "node", true, 443, world, nil, false},
	} {
		if got := c.permits([]string{tt.group}, tt.egress, tt.port, tt.peer, tt.groups); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
