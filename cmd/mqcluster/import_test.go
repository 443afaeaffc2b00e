package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/mosquitto"
)

// memoryFiles are mosquitto.Files by name.
type memoryFiles map[string]string

func (f memoryFiles) ReadFile(name string) ([]byte, error) {
	if text, ok := f[name]; ok {
		return []byte(text), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (memoryFiles) List(string) ([]string, error) { return nil, fs.ErrNotExist }

func plan(t *testing.T, files memoryFiles) *importPlan {
	t.Helper()
	p, err := planImport("m.conf", files, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func rules(acls []admin.Acl) string {
	var b strings.Builder
	for _, a := range acls {
		fmt.Fprintf(&b, "%s: %s\n", a.Subject, strings.Join(a.Rules, "; "))
	}
	return b.String()
}

func TestImportRights(t *testing.T) {
	const hash = ":$6$Bpqlu/yzRoOHDuZP$r52jxiNfrf9iJO/vPxTcW/ehpVb3j98S+y08SxUDZZFKuf0QxHiFE7LZCFdDVC+IinP7N09aFb2Gkm+mR3vimA==\n"
	dynsec, err := os.ReadFile("../../mosquitto/testdata/dynamic-security.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		files memoryFiles
		want  string
		users int
	}{
		"nothing": {memoryFiles{"m.conf": "listener 1883\n"}, "*: allow both #; allow subscribe $SYS/#\n", 0},
		"an ACL file": {memoryFiles{
			"m.conf": "listener 1883\npassword_file p\nacl_file a\n", "p": "ann" + hash + "a/b" + hash + "x+" + hash,
			"a": "topic read free\nuser ann\ntopic write w\ntopic deny w/no\ntopic $SYS/broker/#\ntopic x/%u\npattern read r/%u/%c\npattern deny d/%u\n",
		}, `user:ann: deny publish w/no; deny receive w/no; allow publish w; allow receive $SYS/broker/#
user:a/b: deny publish d/a/b; deny receive d/a/b; allow receive r/a/b/%c
user:x+: deny publish #; deny receive #; deny publish $SYS/#; deny receive $SYS/#
anonymous: allow receive free
*: deny publish d/%u; deny receive d/%u; allow receive r/%u/%c; allow request #; allow request $SYS/#
`, 3},
		"certificates": {memoryFiles{"m.conf": "listener 8883\nuse_identity_as_username true\nacl_file a\n", "a": "user dev1\ntopic a\n"},
			"user:dev1: allow publish a; allow receive a\n*: allow request #; allow request $SYS/#\n", 1},
		"dynamic security": {memoryFiles{
			"m.conf": "listener 1883\nplugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file d\n", "d": string(dynsec),
		}, `role:admin: allow publish $CONTROL/dynamic-security/#; allow receive $CONTROL/dynamic-security/#; allow receive $SYS/#; allow receive #; allow request $CONTROL/dynamic-security/#; allow request $SYS/#; allow request #
role:r1: allow request c/+; deny publish a/no; allow publish a/#; deny receive b/secret; allow request b/#
role:r2: allow publish a/no
anonymous: allow request c/+; deny publish a/no; allow publish a/#; deny receive b/secret; allow request b/#
*: allow receive #; allow receive $SYS/#
`, 3},
	} {
		p := plan(t, tt.files)
		if diff := cmp.Diff(tt.want, rules(p.acls)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if len(p.users) != tt.users {
			t.Errorf("%s: users %v", name, p.users)
		}
	}
}

// TestImportFragment: the suggested configuration is one.
func TestImportFragment(t *testing.T) {
	p := plan(t, memoryFiles{"m.conf": `listener 8883
certfile /c.pem
keyfile /k.pem
cafile /ca.pem
require_certificate true
use_identity_as_username true
tls_version tlsv1.2
ciphers ECDHE-RSA-AES256-GCM-SHA384
max_connections 10
listener 1883 127.0.0.1
listener 9001
protocol websockets
max_keepalive 600
max_packet_size 100000
max_inflight_messages 0
persistent_client_expiration 2w
max_queued_messages 77
queue_qos0_messages true
log_dest syslog
log_type all
`})
	dir := t.TempDir()
	file := filepath.Join(dir, "mqcluster.yaml")
	if err := os.WriteFile(file, []byte("data_dir: "+dir+"\n"+p.fragment()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	app := fakeApp()
	app.Out, app.Err = &out, &out
	if code := app.Main(t.Context(), []string{"config", "show", "--config", file}); code != 0 {
		t.Fatalf("%s\n%s", out.String(), p.fragment())
	}
	for _, want := range []string{"0.0.0.0:8883", "127.0.0.1:1883", "0.0.0.0:9001", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "65535"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in what the node reads:\n%s", want, out.String())
		}
	}
	want := []string{"mqcluster setting set queue.max_messages 77", "mqcluster setting set queue.qos0 on"}
	if diff := cmp.Diff(want, p.settings()); diff != "" {
		t.Error(diff)
	}
}

// TestImportDatabase plans the fixture of package mosquitto.
func TestImportDatabase(t *testing.T) {
	db, err := os.ReadFile("../../mosquitto/testdata/v6.db")
	if err != nil {
		t.Fatal(err)
	}
	p := plan(t, memoryFiles{"m.conf": "listener 1883\nallow_anonymous true\npersistence true\npersistence_location d\n", "d/mosquitto.db": string(db)})
	if len(p.retained) != 2 {
		t.Errorf("retained: %v", p.retained)
	}
	var raw *admin.ImportSession
	for i := range p.sessions {
		if p.sessions[i].Client == "raw" {
			raw = &p.sessions[i]
		}
	}
	if raw == nil {
		t.Fatalf("%v", p.sessions)
	}
	var got []string
	for _, m := range append(raw.Queue, raw.Incoming...) {
		got = append(got, fmt.Sprintf("%s qos %d id %d state %d", m.Topic, m.QoS, m.PacketID, m.State))
	}
	want := []string{"x/1 qos 1 id 1 state 1", "x/2 qos 2 id 2 state 1", "x/3 qos 2 id 3 state 2", "in/1 qos 2 id 77 state 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, n := range p.notes {
		if strings.Contains(n.Text, "client raw") && (n.Verdict != mosquitto.Taken || !strings.Contains(n.Why, "another client's user")) {
			t.Error(n)
		}
	}
}

// TestImportParts: a long queue is cut, and nothing is lost.
func TestImportParts(t *testing.T) {
	s := admin.ImportSession{Client: "c", Total: 1201, Subscriptions: []admin.ImportSubscription{{Filter: "a"}}}
	for i := range s.Total {
		s.Queue = append(s.Queue, admin.ImportMessage{Topic: fmt.Sprint(i)})
	}
	var got []admin.ImportMessage
	n := 0
	for part := range parts(s) {
		if part.From != len(got) || (part.Subscriptions != nil) != (n == 0) {
			t.Errorf("part %d from %d", n, part.From)
		}
		got = append(got, part.Queue...)
		n++
	}
	if n != 3 || len(got) != s.Total {
		t.Errorf("%d parts with %d messages", n, len(got))
	}
	n = 0
	for range parts(admin.ImportSession{Client: "c"}) {
		n++
	}
	if n != 1 {
		t.Errorf("an empty session has %d parts", n)
	}
}
