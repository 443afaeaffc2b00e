//go:build linux

package aws

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/test/fakeaws"
)

// TestAWS takes a cluster in AWS through its life: made, used, a machine replaced,
// the first node replaced with an empty volume, backed up, destroyed. Clients send
// all the while, and lose nothing that was acknowledged.
func TestAWS(t *testing.T) {
	s := newSite(t)
	watch := s.watchSecrets()
	s.apply()
	s.awaitWell()
	s.judgeMachines()
	s.judgeNetwork()
	cluster := s.status("a").Cluster
	if token := s.must(s.shell("token_command")); !strings.HasPrefix(token, "MQ1.") {
		t.Errorf("token_command printed %.4q…", token)
	}
	l := start(t, s.admit())
	l.more(2 * time.Second)

	// Another image is no reason to replace anything; who is replaced gets it.
	// The script refuses a plan that is not empty.
	s.values["ami"] = "ami-0debian0older0000"
	before := s.machine("b").ID
	l.rec.Drain(s.balancer)
	s.must(s.run("bash", append([]string{"../../rolling-replace.sh", ".", "b", "--"}, s.options()...)...))
	if s.machine("b").ID == before {
		t.Error("rolling-replace.sh replaced no machine")
	}
	l.more(time.Second)

	s.renewToken()
	s.loseFirst(l)
	if got := s.status("b").Cluster; got != cluster {
		t.Errorf("the cluster was %s and is %s", cluster, got)
	}
	l.more(time.Second)
	s.refuseSecond()
	s.judgeBackup()
	s.judgeNumbers()
	if os.Getenv("E2E_LONG") != "" { // minutes more
		s.growAndShrink(l)
	}
	l.finish()
	watch()
	s.noSecrets()
	s.forget()
}

// judgeMachines: one in each zone, all in one group.
func (s *site) judgeMachines() {
	s.t.Helper()
	var zones []string
	for _, m := range s.cloud.Machines() {
		zones = append(zones, m.Zone)
		if m.Group != "mqcluster" {
			s.t.Errorf("%s is in the placement group %q", m.Name, m.Group)
		}
	}
	slices.Sort(zones)
	if diff := cmp.Diff([]string{fakeaws.Region + "a", fakeaws.Region + "b", fakeaws.Region + "c"}, zones); diff != "" {
		s.t.Errorf("zones (-want +got):\n%s", diff)
	}
}

// judgeNetwork: who may reach what, and how the balancer passes on.
func (s *site) judgeNetwork() {
	s.t.Helper()
	for group, rules := range map[string][]string{
		"mqcluster-balancer": {"in tcp 8883-8883 0.0.0.0/0", "out tcp 8883-8883 mqcluster-node", "out tcp 9883-9883 mqcluster-node"},
		"mqcluster-node": {"in tcp 22-22 198.51.100.0/24", "in tcp 7883-7883 mqcluster-node", "in tcp 8883-8883 mqcluster-balancer",
			"in tcp 9883-9883 198.51.100.0/24", "in tcp 9883-9883 mqcluster-balancer", "out -1 -1--1 0.0.0.0/0"},
	} {
		if diff := cmp.Diff(rules, s.cloud.Accesses(group)); diff != "" {
			s.t.Errorf("%s (-want +got):\n%s", group, diff)
		}
	}
	attributes := s.cloud.Attributes()
	for key, value := range map[string]string{
		"load_balancing.cross_zone.enabled": "true", "proxy_protocol_v2.enabled": "true", "preserve_client_ip.enabled": "false",
		"tcp.idle_timeout.seconds": "3600", "target_health_state.unhealthy.connection_termination.enabled": "true",
	} {
		// That of the target group defers to that of the balancer.
		if attributes[key] != value {
			s.t.Errorf("%s is %q, not %s", key, attributes[key], value)
		}
	}
	if got := s.on("a", "mqcluster", "config", "show", "--config", "/etc/mqcluster/mqcluster.yaml"); !strings.Contains(got, "max_keep_alive: 30m") {
		s.t.Errorf("the ceiling of keep alives is another:\n%s", got)
	}
}

// forget ends a machine for good, without a word, and takes its node off the list:
// the leader takes it out of the cluster, and the alarm about voters has what it needs.
func (s *site) forget() {
	s.t.Helper()
	s.cloud.Kill(s.machine("c").ID)
	_, nodes, _ := s.cloud.Parameter("/mqcluster/mqcluster/nodes")
	s.cloud.Write("/mqcluster/mqcluster/nodes", nodes[:strings.Index(nodes, " c=")])
	await(s.t, "the leader takes a node out that is gone", func() error {
		for _, node := range []string{"a", "b"} {
			if _, err := s.cloud.Run(s.machine(node).Address, "systemctl", "start", "mqcluster-aws-tick.service"); err != nil {
				return err
			}
		}
		if n := len(s.status("a").Members); n != 2 {
			return fmt.Errorf("there are %d members", n)
		}
		return nil
	})
	least := 3.0
	for _, n := range s.cloud.Numbers() {
		if n.Name == "VotersUp" {
			least = min(least, n.Value)
		}
	}
	if least > 2 {
		s.t.Error("the missing voter is in no number")
	}
}

// leader is the node that leads.
func (s *site) leader() string {
	s.t.Helper()
	var leader string
	await(s.t, "somebody leads", func() error {
		for _, m := range s.cloud.Machines() {
			if out, err := s.cloud.Run(m.Address, "sh", "-c", "mqcluster status | awk '$1 == \"leader\" { print $2 }'"); err == nil && len(out) == 1 {
				leader = out
				return nil
			}
		}
		return errors.New("nobody knows who")
	})
	return leader
}

const tokenParameter = "/mqcluster/mqcluster/join-token"

// renewToken lets months go by: all tokens are gone, and the published one is old.
// The leader publishes another.
func (s *site) renewToken() {
	s.t.Helper()
	leader := s.leader()
	s.on(leader, "sh", "-c", "mqcluster token list | awk 'NR > 1 { print $1 }' | while read id; do mqcluster token revoke $id; done")
	kind, old, _ := s.cloud.Parameter(tokenParameter)
	if kind != "SecureString" {
		s.t.Errorf("the token is in a parameter of type %q", kind)
	}
	s.cloud.Age(tokenParameter, 100*24*time.Hour)
	for _, node := range []string{"a", "b", "c"} {
		s.on(node, "systemctl", "start", "mqcluster-aws-tick.service")
	}
	if _, now, _ := s.cloud.Parameter(tokenParameter); now == old || !strings.HasPrefix(now, "MQ1.") {
		s.t.Error("the leader did not renew the token")
	}
}

// loseFirst replaces the machine of the first node and its volume: what comes joins
// the cluster that there is.
func (s *site) loseFirst(l *load) {
	s.t.Helper()
	before := s.machine("a").ID
	l.rec.Drain(s.balancer)
	s.apply(`-replace=module.cluster.aws_instance.node["a"]`, `-replace=module.cluster.aws_ebs_volume.node["a"]`)
	if s.machine("a").ID == before {
		s.t.Error("the machine is the same")
	}
	s.awaitWell()
	l.more(time.Second)
}

// growAndShrink has five voters and one node that only serves, and then what there was
// before; the leader takes out who is gone.
func (s *site) growAndShrink(l *load) {
	s.t.Helper()
	before := s.values
	s.values = maps.Clone(before)
	s.values["voters"], s.values["serving_nodes"] = "5", "1"
	s.apply()
	s.awaitWell()
	s.judgeMembers(map[string]string{"a": "voter", "b": "voter", "c": "voter", "d": "voter", "e": "voter", "s1": "serving"})
	l.more(time.Second)
	s.values = before
	l.rec.Drain(s.balancer)
	s.apply()
	for _, node := range []string{"a", "b", "c"} { // the minute is over
		s.on(node, "systemctl", "start", "mqcluster-aws-tick.service")
	}
	s.awaitWell()
	s.judgeMembers(map[string]string{"a": "voter", "b": "voter", "c": "voter"})
	l.more(time.Second)
}

// judgeMembers: who is in the cluster, and as what.
func (s *site) judgeMembers(want map[string]string) {
	s.t.Helper()
	await(s.t, "the members", func() error {
		got := map[string]string{}
		for _, m := range s.status("b").Members {
			got[m.Node] = strings.Replace(m.Role, "leader", "voter", 1)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

// refuseSecond takes the token away, as if there were no cluster: the first node makes
// none while another one answers, and the leader publishes a token again.
func (s *site) refuseSecond() {
	s.t.Helper()
	s.cloud.Write(tokenParameter, "none")
	out, err := s.cloud.Run(s.machine("a").Address, "bash", "-c", `source <(sed '/^case/,$d' /usr/local/sbin/mqcluster-aws); member`)
	if err == nil || !strings.Contains(err.Error(), "there is no token and yet a node at") {
		s.t.Errorf("the first node would make a second cluster: %v %s", err, out)
	}
	for _, node := range []string{"a", "b", "c"} {
		s.on(node, "systemctl", "start", "mqcluster-aws-tick.service")
	}
	if _, now, _ := s.cloud.Parameter(tokenParameter); !strings.HasPrefix(now, "MQ1.") {
		s.t.Errorf("the leader published %.4q…", now)
	}
}

// judgeBackup: the leader alone puts one, and no node can do more than that.
func (s *site) judgeBackup() {
	s.t.Helper()
	for _, node := range []string{"a", "b", "c"} {
		s.on(node, "systemctl", "start", "mqcluster-aws-backup.service")
	}
	bucket := s.output("bucket")
	objects := s.cloud.Objects(bucket)
	if len(objects) != 1 {
		s.t.Fatalf("there are %d backups", len(objects))
	}
	for key, content := range objects {
		if !strings.HasPrefix(key, "backup/") || !strings.HasPrefix(string(content), "age-encryption.org/v1") {
			s.t.Errorf("%s begins with %.30q", key, content)
		}
		for _, ask := range []string{"-X GET /" + key, "-X DELETE /" + key, "-X GET ''", "-X PUT /elsewhere"} {
			method, path, _ := strings.Cut(strings.TrimPrefix(ask, "-X "), " ")
			out, err := s.cloud.Run(s.machine("b").Address, "bash", "-c",
				`source <(sed '/^case/,$d' /usr/local/sbin/mqcluster-aws); call s3 "/$BUCKET"`+path+` -H 'X-Amz-Content-Sha256: UNSIGNED-PAYLOAD' -X `+method)
			if err == nil || !strings.Contains(out, "AccessDenied") {
				s.t.Errorf("a node may %s: %v %s", ask, err, out)
			}
		}
	}
}

// judgeNumbers: every node puts its numbers, and each alarm looks at one of them.
func (s *site) judgeNumbers() {
	s.t.Helper()
	put := map[string]float64{}
	for _, n := range s.cloud.Numbers() {
		if n.Dimensions["Cluster"] != "mqcluster" {
			s.t.Errorf("a number of no cluster: %+v", n)
		}
		put[strings.TrimSpace(n.Name+" "+n.Dimensions["Node"])] = n.Value
	}
	for _, alarm := range s.cloud.Alarms() {
		if _, ok := put[alarm]; !ok {
			s.t.Errorf("an alarm looks at %q, which nobody puts", alarm)
		}
	}
	if put["Quorum"] != 1 || put["VotersUp"] != 3 || put["CertificateDaysLeft a"] < 28 || put["DiskUsedPercent a"] > 50 || put["BackupsPut"] != 1 {
		s.t.Errorf("the numbers are %v", put)
	}
	if want := 3 + 2*3; len(put) != want {
		s.t.Errorf("%d numbers, not %d: %v", len(put), want, put)
	}
}
