package node

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// write puts text into a file of a new directory and returns both paths.
func write(t *testing.T, text string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, ConfigFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func TestDefaultsAreValid(t *testing.T) {
	l, err := Load(Input{Env: []string{"MQCLUSTER_NODE_ID=a"}})
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Mesh.Advertise = l.Mesh.Advertise // of this machine, if it has a route
	want.Node.ID = "a"
	want.Admin.Socket = "/var/lib/mqcluster/admin.sock"
	want.Listeners = []Listener{{Name: "tls-8883", Kind: KindTLS, Address: "0.0.0.0:8883", Identity: IdentityNone, TLS: ListenerTLS{MinVersion: "1.2"}}}
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Error(diff)
	}
	if len(l.Warnings) > 0 {
		t.Error("the defaults warn:", l.Warnings)
	}
}

func TestPrecedence(t *testing.T) {
	dir, _ := write(t, "node: {id: from-file}\nmesh:\n  listen: 127.0.0.1:1\n  advertise: 127.0.0.1:2\nlog: {level: debug}\n")
	l, err := Load(Input{
		Flags: map[string][]string{"data_dir": {dir}, "node.id": {"from-flag"}},
		Env:   []string{"MQCLUSTER_NODE_ID=from-env", "MQCLUSTER_MESH_LISTEN=127.0.0.1:3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ key, got, want, source string }{
		{"node.id", l.Node.ID, "from-flag", "flag --node.id"},
		{"mesh.listen", l.Mesh.Listen, "127.0.0.1:3", "variable MQCLUSTER_MESH_LISTEN"},
		{"mesh.advertise", l.Mesh.Advertise, "127.0.0.1:2", "file mqcluster.yaml:4"},
		{"log.level", l.Log.Level, "debug", "file mqcluster.yaml:5"},
		{"log.format", l.Log.Format, "text", "default"},
		{"admin.socket", l.Admin.Socket, filepath.Join(dir, "admin.sock"), "derived from data_dir"},
	} {
		if test.got != test.want || l.Source(test.key) != test.source {
			t.Errorf("%s = %q (%s), want %q (%s)", test.key, test.got, l.Source(test.key), test.want, test.source)
		}
	}
}

// A data directory may be named relative to the working directory; the paths in
// its file are relative to the file.
func TestRelativePaths(t *testing.T) {
	dir, _ := write(t, "listeners:\n  - {kind: tls, address: ':1', tls: {cert_file: c.pem, key_file: sub/k.pem, client_ca_file: /ca.pem}}\n")
	t.Chdir(filepath.Dir(dir))
	l, err := Load(Input{Flags: map[string][]string{"data_dir": {filepath.Base(dir)}}, Env: []string{"MQCLUSTER_NODE_ID=a"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "admin.sock"); l.DataDir != dir || l.Admin.Socket != want {
		t.Errorf("data directory %s, socket %s", l.DataDir, l.Admin.Socket)
	}
	want := ListenerTLS{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "sub", "k.pem"), ClientCAFile: "/ca.pem", MinVersion: "1.2"}
	if diff := cmp.Diff(want, l.Listeners[0].TLS); diff != "" {
		t.Error(diff)
	}
	if _, err := Load(Input{Env: []string{"MQCLUSTER_NODE_ID=a", "MQCLUSTER_DATA_DIR=" + dir}, File: filepath.Join(filepath.Base(dir), "none")}); err == nil {
		t.Error("a file that was named and does not exist is not missed")
	}
}

func TestFileProblems(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nearest key", "mesh:\n  lisen: 127.0.0.1:1\n", "line 2: key mesh.lisen is unknown: did you mean mesh.listen?"},
		{"nearest section", "limit:\n  receive_maximum: 3\n", "line 1: key limit is unknown: did you mean limits?"},
		{"dashes", "data-dir: /x\n", "line 1: key data-dir is unknown: did you mean data_dir?"},
		{"other section", "node:\n  max_inflight: 3\n", "line 2: key node.max_inflight is unknown: did you mean limits.max_inflight?"},
		{"no neighbour", "zzzzzzzz: 3\n", "line 1: key zzzzzzzz is unknown"},
		{"in a listener", "listeners:\n  - kind: tls\n    adress: x\n", "line 3: key listeners[0].adress is unknown: did you mean listeners[0].address?"},
		{"twice", "log: {level: info, level: debug}\n", "line 1: key log.level is there twice, first in line 1: keep one"},
		{"no value", "log:\n  level:\n", "line 2: log.level has no value: write one or remove the key"},
		{"size", "limits: {max_packet_size: big}\n", `line 1: limits.max_packet_size: "big" is not a size: write a whole number and a unit, such as 64KiB or 1MiB`},
		{"duration", "raft: {lease: 5}\n", `line 1: raft.lease: "5" is not a duration: write a number and a unit, such as 500ms, 5s, 10m, 2h or 14d`},
		{"bool", "listeners: [{kind: tls, address: ':1', allow_anonymous: yes}]\n", `line 1: listeners[0].allow_anonymous: "yes" is neither true nor false`},
		{"number", "limits: {receive_maximum: 1.5}\n", `line 1: limits.receive_maximum: "1.5" is not a whole number`},
		{"list", "server_names: a\n", "line 1: server_names must be a list: put a dash before each element"},
		{"section", "mesh: a\n", "line 1: mesh must be a section with keys below it"},
		{"cidr", "listeners: [{kind: tls, address: ':1', proxy_from: [10.0.0.1]}]\n", `line 1: listeners[0].proxy_from[0]: "10.0.0.1" is not an address range: write CIDR such as 10.0.0.0/8`},
		{"alias", "log: {level: &a info, format: *a}\n", "line 1: log.format is an alias, which this file does not have: write the value"},
		{"two documents", "log: {level: info}\n---\nlog: {level: info}\n", "a second document begins here: keep one"},
		{"not yaml", "log: [\n", "is not valid YAML"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, file := write(t, test.text)
			_, err := Load(Input{File: file, Env: []string{"MQCLUSTER_NODE_ID=a"}})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, file := write(t, `
node: {id: "Not A Label"}
mesh: {listn: x, listen: nowhere}
listeners:
  - {kind: tcp, address: "127.0.0.1:1883"}
  - {kind: tls, address: "127.0.0.1:1883", tls: {cert_file: a.pem, min_version: 1.1, ciphers: [RC4]}}
  - {kind: ws, address: "127.0.0.1:70000", allow_plaintext: true, identity: cn, path: mqtt}
limits: {max_packet_size: 17MiB, receive_maximum: 0, persistent_client_expiration: 51000d}
drain: {grace: 1500ms}
raft: {heartbeat: 1s}
`)
	_, err := Load(Input{File: file, Flags: map[string][]string{"limits.max_inflight": {"many"}}})
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal("not Problems:", err)
	}
	for _, want := range []string{
		"key mesh.listn is unknown: did you mean mesh.listen?",
		`flag --limits.max-inflight: "many" is not a whole number`,
		"node.id is",
		"mesh.listen is \"nowhere\"",
		"listeners[0]: tcp sends passwords and messages in clear text",
		"listeners tcp-1883 and tls-1883 have the same address",
		"listeners[1].tls has only one of cert_file and key_file",
		`listeners[1].tls.min_version is "1.1": write 1.2 or 1.3`,
		`listeners[1].tls.ciphers has "RC4"`,
		"the port must be a number from 0 to 65535",
		"listeners[2].identity is cn but ws sees no certificate",
		`listeners[2].path is "mqtt": begin it with /`,
		"limits.max_packet_size is 17MiB: write 1KiB to 16MiB",
		"limits.receive_maximum is 0: write a number from 1 to 65535",
		"limits.persistent_client_expiration is 51000d: write whole seconds, at most 49710d",
		"drain.grace is 1.5s: write whole seconds",
		"raft.election is 500ms, less than raft.heartbeat (1s): raise it",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not told: %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestListenerText(t *testing.T) {
	text := "wss,name=web,address=[::1]:8084,cert_file=/c.pem,key_file=/k.pem,require_client_cert=true,min_version=1.2," +
		"ciphers=A,ciphers=B,identity=cn,allow_anonymous=true,proxy_from=10.0.0.0/8,proxy_from=fd00::/8,max_connections=5,connect_rate=7,path=/m,allowed_origins=https://a.b"
	l, err := ParseListener(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, FormatListener(l)); diff != "" {
		t.Error(diff)
	}
	for _, test := range []struct{ text, want string }{
		{"", "a listener is empty"},
		{"tls,adress=x", "key adress of listener \"tls,adress=x\" is unknown: did you mean address?"},
		{"tls,address", "has no value"},
		{"tls,address=a:1,address=b:1", "is there twice"},
		{"tls,max_connections=x", "is not a whole number"},
	} {
		if _, err := ParseListener(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %s", test.text, err, test.want)
		}
	}
	if l, err = ParseListener("tls,address=:1,tls.require-client-cert"); err != nil || !l.TLS.RequireClientCert {
		t.Errorf("bare boolean: %+v, %v", l, err)
	}
}

// What the node shows, what it writes and what it reads are one language.
func TestYAMLRoundTrip(t *testing.T) {
	dir, _ := write(t, "")
	in := Input{Flags: map[string][]string{
		"data_dir":                            {dir},
		"node.id":                             {"a"},
		"listeners":                           {"tls,address=127.0.0.1:8883,cert_file=x.pem,key_file=y.pem", "tcp,address=127.0.0.1:0,allow_plaintext,proxy_from=10.0.0.0/8"},
		"server_names":                        {"mqtt.example.org,192.0.2.7"},
		"limits.persistent_client_expiration": {"14d"},
		"health.listen":                       {""},
	}}
	first, err := Load(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, render := range []func() ([]byte, error){first.YAML, first.Written} {
		text, err := render()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ConfigFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		second, err := Load(Input{Flags: map[string][]string{"data_dir": {dir}}})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(first.Config, second.Config, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s\n%s", diff, text)
		}
	}
}

func TestMeshAddress(t *testing.T) {
	for _, test := range []struct{ listen, advertise, want string }{
		{"127.0.0.1:7883", "", "127.0.0.1:7883"},
		{"0.0.0.0:7883", "10.1.2.3:9", "10.1.2.3:9"},
		{"127.0.0.1:0", "", ""},
	} {
		l, err := Load(Input{Env: []string{"MQCLUSTER_NODE_ID=a", "MQCLUSTER_MESH_LISTEN=" + test.listen, "MQCLUSTER_MESH_ADVERTISE=" + test.advertise}})
		if err != nil {
			t.Fatal(err)
		}
		if l.Mesh.Advertise != test.want || (l.CheckMesh() == nil) != (test.want != "") {
			t.Errorf("%+v: %q, %v", test, l.Mesh.Advertise, l.CheckMesh())
		}
	}
}

func TestWriteFileKeepsAnOldOne(t *testing.T) {
	dir, _ := write(t, "log: {level: debug}\n")
	l, err := Load(Input{Flags: map[string][]string{"data_dir": {dir}, "node.id": {"a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.WriteFile(); !errors.Is(err, os.ErrExist) {
		t.Error("an existing file was replaced:", err)
	}
}

func TestEnvironment(t *testing.T) {
	l, err := Load(Input{Env: []string{
		"MQCLUSTER_NODE_ID=a", "MQCLUSTER_SERVER_NAMES=x.org, y.org",
		"MQCLUSTER_LISTENERS=tls,address=127.0.0.1:1; tcp,address=127.0.0.1:2,allow_plaintext=true",
		"MQCLUSTER_MESH_LISTN=x", "MQCLUSTER_SERVICE_HOST=10.0.0.1",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x.org", "y.org"}, l.ServerNames); diff != "" {
		t.Error(diff)
	}
	if len(l.Listeners) != 2 || l.Listeners[1].Kind != KindTCP {
		t.Errorf("listeners: %+v", l.Listeners)
	}
	want := []string{
		"variable MQCLUSTER_MESH_LISTN is unknown and has no effect: did you mean MQCLUSTER_MESH_LISTEN?",
		"variable MQCLUSTER_SERVICE_HOST is unknown and has no effect",
		"listener tcp-2 on 127.0.0.1:2 is not encrypted: passwords and messages can be read on the way",
	}
	if diff := cmp.Diff(want, l.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestKeys(t *testing.T) {
	seen := map[string]string{}
	for _, key := range Keys() {
		if key.Help == "" {
			t.Errorf("%s has no help", key.Name)
		}
		for _, name := range []string{"flag " + key.Flag, "env " + key.Env} {
			if other, twice := seen[name]; twice {
				t.Errorf("%s stands for %s and %s", name, other, key.Name)
			}
			seen[name] = key.Name
		}
	}
}

func TestSizesAndDurations(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "17": 17, "1KiB": 1024, "1 MiB": MiB, "3kB": 3000, "2GB": 2e9, "5B": 5} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5MiB", "9999999999TiB", "MiB", "1m"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
	for text, want := range map[string]time.Duration{"0": 0, "0s": 0, "5s": 5 * time.Second, "14d": 336 * time.Hour, "1w2d3h": 219 * time.Hour, "1m30s": 90 * time.Second} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
		if again, err := ParseDuration(FormatDuration(got)); err != nil || again != got {
			t.Errorf("%s is formatted as %s", text, FormatDuration(got))
		}
	}
	for _, text := range []string{"", "5", "-5s", "d", "1x", "99999999999d", "200000d200000d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("mesh:\n  listen: 127.0.0.1:1\nlisteners:\n  - {kind: tls, address: ':1', tls: {ciphers: [a]}}\n")
	f.Add("a: &a [*a]\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		config := Defaults()
		decoder := &fileDecoder{path: "f", keys: Keys(), sources: map[string]string{}}
		decoder.decode([]byte(text), &config)
		_ = config.problems()
	})
}

func FuzzParseListener(f *testing.F) {
	f.Add("tls,address=127.0.0.1:8883,require_client_cert")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseListener(text)
		if err != nil {
			return
		}
		again, err := ParseListener(FormatListener(l))
		if err != nil {
			t.Fatalf("%q became %q: %v", text, FormatListener(l), err)
		}
		if diff := cmp.Diff(l, again, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Error(diff)
		}
	})
}
