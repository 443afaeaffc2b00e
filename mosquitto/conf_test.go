package mosquitto

import (
	"errors"
	"io/fs"
	"maps"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is Files in memory.
type tree map[string]string

func (t tree) ReadFile(name string) ([]byte, error) {
	text, ok := t[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

func (t tree) List(dir string) (names []string, err error) {
	for name := range t {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	if names == nil {
		err = fs.ErrNotExist
	}
	return names, err
}

// guide is what guides on a secured mosquitto end with.
const guide = `# Secured.
per_listener_settings false
listener 8883
cafile /etc/mosquitto/ca.crt
certfile /etc/mosquitto/server.crt
keyfile /etc/mosquitto/server.key
require_certificate true
use_identity_as_username true
tls_version tlsv1.2
ciphers ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384
max_connections 500
allow_anonymous false
password_file /etc/mosquitto/passwd
acl_file /etc/mosquitto/acl
persistence true
persistence_location /var/lib/mosquitto/
persistent_client_expiration 14d
log_dest syslog
sys_interval 10
listener 9001 10.0.0.1
protocol websockets
include_dir /etc/mosquitto/conf.d
connection office
address 10.1.1.1:8883 10.1.1.2
topic plant/# out 1
remote_password geheim
`

func TestParseConfig(t *testing.T) {
	cfg, notes, err := ParseConfig("m.conf", tree{
		"m.conf":                       guide,
		"/etc/mosquitto/conf.d/b.conf": "max_queued_messages 5000\n",
		"/etc/mosquitto/conf.d/B.conf": "max_queued_messages 4000\nunheard_of 1\n",
		"/etc/mosquitto/conf.d/README": "max_queued_messages 1\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	sec := Security{PasswordFile: "/etc/mosquitto/passwd", ACLFile: "/etc/mosquitto/acl", anonymousSet: true}
	want := &Config{
		Listeners: []Listener{
			{
				File: "m.conf", Line: 3, Port: 8883, CertFile: "/etc/mosquitto/server.crt", KeyFile: "/etc/mosquitto/server.key",
				CAFile: "/etc/mosquitto/ca.crt", RequireCert: true, IdentityAsUser: true, MinTLS: "1.2", MaxConnections: 500,
				Ciphers:  []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"},
				Security: sec,
			},
			{File: "m.conf", Line: 20, Port: 9001, Host: "10.0.0.1", WebSocket: true, MaxConnections: -1, Security: sec},
		},
		Bridges:     []Bridge{{File: "m.conf", Line: 23, Name: "office", Addresses: []string{"10.1.1.1:8883", "10.1.1.2"}, Topics: []string{"plant/# out 1"}}},
		Persistence: true, Database: "/var/lib/mosquitto/mosquitto.db", Syslog: true,
		Limits: Limits{MaxInflight: -1, MaxKeepAlive: -1, MaxPacketSize: -1, MaxQueuedMessages: 5000, MaxQueuedBytes: -1, PersistentExpiration: 14 * 86400},
	}
	if diff := cmp.Diff(want, cfg, cmp.AllowUnexported(Security{})); diff != "" {
		t.Error(diff)
	}
	// One note for every line that says something.
	if n := strings.Count(guide, "\n") - 1 + 3; len(notes) != n {
		t.Errorf("%d notes for %d lines", len(notes), n)
	}
	for _, n := range notes {
		if strings.Contains(n.String(), "geheim") {
			t.Errorf("a password is in the report: %s", n)
		}
		if n.Why == "" || n.Line == 0 || n.File == "" {
			t.Errorf("%s says too little", n)
		}
	}
}

// TestListeners: which listeners there are, and who may connect to them without a
// name.
func TestListeners(t *testing.T) {
	for _, tt := range []struct {
		name, conf string
		want       []string
	}{
		{"nothing", "", []string{"1883 local anonymous"}},
		{"one", "listener 1884\n", []string{"1884"}},
		{"port", "port 1885\nallow_anonymous true\n", []string{"1885 anonymous"}},
		{"default in all", "tls_version tlsv1.2\nprotocol mqtt\nlistener 1884\n", []string{"1884"}},
		{"default by its settings", "max_connections 10\nlistener 1884\n", []string{"1883", "1884"}},
		{"both", "port 1885\nlistener 1884\n", []string{"1885", "1884"}},
		{"all alike", "listener 1\nallow_anonymous true\nlistener 2\n", []string{"1 anonymous", "2 anonymous"}},
		{"each its own", "per_listener_settings true\nlistener 1\nallow_anonymous true\nlistener 2\n", []string{"1 anonymous", "2"}},
		{"socket", "listener 0 /run/m.sock\n", []string{"0 /run/m.sock"}},
	} {
		cfg, _, err := ParseConfig("m", tree{"m": tt.conf})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range cfg.Listeners {
			text := regexp.MustCompile(` +`).ReplaceAllString(strings.TrimSpace(strings.Join([]string{
				strconv.Itoa(l.Port), l.Unix, map[bool]string{true: "local"}[l.Local], map[bool]string{true: "anonymous"}[l.Security.AllowAnonymous],
			}, " ")), " ")
			got = append(got, text)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for name, files := range map[string]tree{
		"missing":           {},
		"include_dir":       {"m": "include_dir /nowhere\n"},
		"a line of a novel": {"m": "user " + strings.Repeat("x", maxLine)},
	} {
		if _, _, err := ParseConfig("m", files); err == nil {
			t.Errorf("%s: no error", name)
		} else if name == "missing" && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// TestEveryOption: what the manual page of the installed mosquitto documents has
// an answer.
func TestEveryOption(t *testing.T) {
	documented := manual2011
	if out, err := exec.Command("bash", "-c", "zcat /usr/share/man/man5/mosquitto.conf.5.gz").Output(); err == nil {
		for _, m := range regexp.MustCompile(`(?m)^\\fB([a-z_0-9.\\*]+)\\fR (?:\\fI|\[)`).FindAllStringSubmatch(string(out), -1) {
			documented = append(documented, strings.NewReplacer(`\`, "").Replace(m[1]))
		}
	}
	for _, name := range documented {
		name = strings.Replace(name, "auth_opt_*", "auth_opt_x", 1)
		_, notes, err := ParseConfig("m", tree{"m": "auth_plugin x\n" + name + " 1\n", "1/a.conf": ""})
		if err != nil {
			t.Fatal(err)
		}
		if n := notes[len(notes)-1]; n.Why == "" || strings.Contains(n.Why, "no setting of mosquitto") {
			t.Errorf("%s has no answer: %s", name, n)
		}
	}
	if len(documented) < 100 {
		t.Errorf("only %d settings", len(documented))
	}
}

// manual2011 are the settings of mosquitto.conf(5) of 2.0.11.
var manual2011 = strings.Fields(`acl_file allow_anonymous allow_duplicate_messages allow_zero_length_clientid
	auth_opt_* auth_plugin auth_plugin_deny_special_chars auto_id_prefix autosave_interval autosave_on_changes
	check_retain_source clientid_prefixes connection_messages include_dir log_dest log_facility log_timestamp
	log_timestamp_format log_type max_inflight_bytes max_inflight_messages max_keepalive max_packet_size
	max_queued_bytes max_queued_messages memory_limit message_size_limit password_file per_listener_settings
	persistence persistence_file persistence_location persistent_client_expiration pid_file psk_file
	queue_qos0_messages retain_available set_tcp_nodelay sys_interval upgrade_outgoing_qos user bind_address
	bind_interface http_dir listener max_connections max_qos max_topic_alias mount_point port protocol
	socket_domain use_username_as_clientid websockets_log_level websockets_headers_size cafile capath certfile
	ciphers ciphers_tls1.3 crlfile dhparamfile keyfile require_certificate tls_engine tls_engine_kpass_sha1
	tls_keyform tls_version use_identity_as_username use_subject_as_username psk_hint address addresses
	bridge_attempt_unsubscribe bridge_bind_address bridge_max_packet_size bridge_outgoing_retain
	bridge_protocol_version cleansession local_cleansession connection keepalive_interval idle_timeout
	local_clientid local_password local_username notifications notifications_local_only notification_topic
	remote_clientid remote_password remote_username restart_timeout round_robin start_type threshold topic
	try_private bridge_alpn bridge_cafile bridge_capath bridge_certfile bridge_identity bridge_insecure
	bridge_keyfile bridge_psk bridge_require_ocsp bridge_tls_version`)

// TestOptionsAnswer: every answer says something.
func TestOptionsAnswer(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if o := options[name]; o.set == nil && o.why == "" && name != "include_dir" {
			t.Errorf("%s has no answer", name)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(guide, "port 1\n")
	f.Fuzz(func(t *testing.T, main, included string) {
		_, notes, err := ParseConfig("m", tree{"m": main, "/etc/mosquitto/conf.d/a.conf": included})
		for _, n := range notes {
			if err == nil && (n.Why == "" || strings.ContainsAny(n.String(), "\n\r")) {
				t.Errorf("%q", n.String())
			}
		}
	})
}
