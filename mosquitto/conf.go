package mosquitto

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Files is where configuration is read from.
type Files interface {
	ReadFile(name string) ([]byte, error)
	// List returns the names of the files in a directory, without the directory.
	List(dir string) ([]string, error)
}

// Config is what a mosquitto.conf says, as far as it has a counterpart. A number
// is -1 and a text empty where the file does not say.
type Config struct {
	Listeners []Listener
	// PerListener: each listener has the Security that it names itself. Otherwise
	// all listeners have the same.
	PerListener bool
	Bridges     []Bridge
	Persistence bool
	// Database is the path of the persistence file.
	Database string
	Limits   Limits
	Syslog   bool
	Debug    bool
}

// Limits are global.
type Limits struct {
	MaxInflight, MaxKeepAlive, MaxPacketSize int // messages, seconds, bytes
	MaxQueuedMessages, MaxQueuedBytes        int // 0: none
	QueueQoS0                                bool
	PersistentExpiration                     int // seconds
}

// Security is who may connect and do what.
type Security struct {
	// AllowAnonymous is as mosquitto decides where the file does not say.
	AllowAnonymous        bool
	anonymousSet          bool
	PasswordFile, ACLFile string
	PSKFile               string
	Plugins               []Plugin
}

// Plugin is a loaded module.
type Plugin struct {
	Path    string
	Options map[string]string
}

// Dynsec tells whether the plugin is dynamic security, and its file.
func (p Plugin) Dynsec() (file string, ok bool) {
	return p.Options["config_file"], strings.Contains(path.Base(p.Path), "dynamic_security")
}

// Listener is one port.
type Listener struct {
	File string
	Line int // of the line that opened it; 0: mosquitto's default one
	Port int
	Host string
	Unix string // path of a socket, in place of Port
	// Local: mosquitto without any listener serves the own machine only.
	Local          bool
	WebSocket      bool
	CertFile       string
	KeyFile        string
	CAFile         string
	CRLFile        string
	RequireCert    bool
	IdentityAsUser bool
	SubjectAsUser  bool
	PSK            bool
	MinTLS         string // 1.2 or 1.3
	Ciphers        []string
	MaxConnections int
	Security       Security
}

// Bridge is a connection to another broker, for the report.
type Bridge struct {
	File      string
	Line      int
	Name      string
	Addresses []string
	Topics    []string
}

// Bounds of a configuration.
const (
	maxSettings = 1 << 20
	maxIncluded = 1000 // files
)

// ParseConfig reads mosquitto.conf and what it includes. Every line that is
// neither empty nor a comment has a note. An error is about a file that cannot be
// read.
func ParseConfig(file string, files Files) (*Config, []Note, error) {
	p := &confParser{files: files, cfg: &Config{Limits: Limits{MaxInflight: -1, MaxKeepAlive: -1, MaxPacketSize: -1, MaxQueuedMessages: -1, MaxQueuedBytes: -1, PersistentExpiration: -1}}, database: "mosquitto.db"}
	p.standard = &Listener{File: file, Port: 1883, MaxConnections: -1}
	p.current = p.standard
	if err := p.read(file, true); err != nil {
		return nil, nil, err
	}
	p.finish()
	return p.cfg, p.notes, nil
}

type confParser struct {
	files    Files
	cfg      *Config
	notes    []Note
	file     string
	line     int
	main     bool // the file is not an included one
	included int

	global   Security
	standard *Listener // mosquitto's default listener, which settings before the first "listener" are about
	wanted   bool      // the default listener was asked for
	opened   []*Listener
	current  *Listener
	bridge   *Bridge
	location string
	database string
}

// security is what settings of authentication are about here.
func (p *confParser) security() *Security {
	if p.cfg.PerListener {
		return &p.current.Security
	}
	return &p.global
}

func (p *confParser) read(file string, main bool) error {
	data, err := p.files.ReadFile(file)
	if err == nil {
		err = bounded(file, data)
	}
	if err != nil {
		return fmt.Errorf("the configuration cannot be read: %w", err)
	}
	wasFile, wasLine, wasMain := p.file, p.line, p.main
	defer func() { p.file, p.line, p.main = wasFile, wasLine, wasMain }()
	p.file, p.main = file, main
	for n, line := range lines(data) {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		p.line = n
		if len(p.notes) >= maxSettings || len(line) > maxLine {
			return fmt.Errorf("%s:%d: the configuration is longer than any real one: name the right file", file, n)
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, why, err := p.setting(name, strings.TrimSpace(value))
		if err != nil {
			return err
		}
		text := line
		if secret[name] {
			text = name + " …"
		}
		p.notes = append(p.notes, noted(file, n, text, v, why))
	}
	return nil
}

// secret names settings whose values stay out of the report.
var secret = map[string]bool{
	"password": true, "remote_password": true, "local_password": true, "bridge_psk": true, "tls_engine_kpass_sha1": true,
}

func (p *confParser) setting(name, value string) (Verdict, string, error) {
	if name == "include_dir" {
		return p.include(value)
	}
	if strings.HasPrefix(name, "auth_opt_") || strings.HasPrefix(name, "plugin_opt_") {
		v, why := p.pluginOption(name, value)
		return v, why, nil
	}
	o, ok := options[name]
	if !ok {
		return NotSupported, "it is no setting of mosquitto 1.x or 2.0 that is known: look up what it is for", nil
	}
	if o.bridge && p.bridge == nil && o.set == nil {
		return NotNeeded, "there is no connection line before it: mosquitto refuses it", nil
	}
	if p.current == p.standard && opensStandard[name] && (name != "protocol" || value != "mqtt") {
		p.wanted = true
	}
	if o.set == nil {
		return o.verdict, o.why, nil
	}
	v, why := o.set(p, value)
	return v, why, nil
}

// opensStandard names settings that, before the first listener, open mosquitto's
// default one on port 1883, as 2.0.11 does; tls_version is none of them.
var opensStandard = map[string]bool{
	"bind_address": true, "bind_interface": true, "port": true, "max_connections": true, "max_qos": true,
	"max_topic_alias": true, "mount_point": true, "http_dir": true, "protocol": true, "socket_domain": true,
	"use_username_as_clientid": true, "cafile": true, "capath": true, "certfile": true, "keyfile": true,
	"ciphers": true, "ciphers_tls1.3": true, "crlfile": true, "dhparamfile": true, "require_certificate": true,
	"use_identity_as_username": true, "use_subject_as_username": true, "psk_hint": true, "tls_engine": true,
	"tls_keyform": true, "tls_engine_kpass_sha1": true,
}

// include reads the files of a directory, as mosquitto orders them.
func (p *confParser) include(dir string) (Verdict, string, error) {
	if !p.main {
		return NotNeeded, "mosquitto reads it in the main file only", nil
	}
	names, err := p.files.List(dir)
	if err != nil {
		return 0, "", fmt.Errorf("%s:%d: the included directory cannot be read: %w", p.file, p.line, err)
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return len(n) < 6 || !strings.HasSuffix(n, ".conf") })
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
	})
	if p.included += len(names); p.included > maxIncluded {
		return 0, "", fmt.Errorf("%s:%d: %d files are included: that is more than any real configuration has", p.file, p.line, p.included)
	}
	for _, n := range names {
		if err := p.read(path.Join(dir, n), false); err != nil {
			return 0, "", err
		}
	}
	return Taken, fmt.Sprintf("%d files were read", len(names)), nil
}

// finish puts together what the order of the lines leaves open.
func (p *confParser) finish() {
	c := p.cfg
	if p.wanted || len(p.opened) == 0 {
		p.standard.Local = len(p.opened) == 0 && !p.wanted
		p.opened = slices.Insert(p.opened, 0, p.standard)
	} else if c.PerListener {
		// Settings before the first listener are about one that does not exist.
		p.standard.Security = Security{}
	}
	if p.location != "" {
		p.database = path.Join(p.location, p.database)
	}
	c.Database = p.database
	for _, l := range p.opened {
		if !c.PerListener {
			l.Security = p.global
		}
		if s := &l.Security; !s.anonymousSet {
			s.AllowAnonymous = p.standard.Local && l == p.standard
		}
		c.Listeners = append(c.Listeners, *l)
	}
}

// boolean reads true and false as mosquitto does.
func boolean(value string) (on, ok bool) {
	switch value {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

// number reads a number within bounds.
func number(value string, least, most int) (int, bool) {
	n, err := strconv.Atoi(value)
	return n, err == nil && n >= least && n <= most
}

// duration reads persistent_client_expiration, in seconds. Months have 30 days
// and years 365, as for mosquitto.
func duration(value string) (int, bool) {
	if value == "" {
		return 0, false
	}
	unit, ok := map[byte]int{'h': 3600, 'd': 86400, 'w': 7 * 86400, 'm': 30 * 86400, 'y': 365 * 86400}[value[len(value)-1]]
	n, err := strconv.Atoi(value[:len(value)-1])
	if !ok || err != nil || n < 1 || n > math.MaxInt32/unit {
		return 0, false
	}
	return n * unit, true
}
