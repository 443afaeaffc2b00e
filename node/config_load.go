package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// ConfigFile is the name of the file that Load looks for in the data directory.
const ConfigFile = "mqcluster.yaml"

// ConfigEnv names the variable that stands for the --config flag.
const ConfigEnv = EnvPrefix + "CONFIG"

// Input is where a configuration comes from, strongest first.
type Input struct {
	Flags map[string][]string // by Key.Name; more than one element for lists
	Env   []string            // "NAME=value", as os.Environ has it
	// File is the YAML file. Where it is empty and MQCLUSTER_CONFIG too, Load
	// reads ConfigFile in the data directory if there is one.
	File string
}

// Loaded is the effective configuration and where it came from.
type Loaded struct {
	Config
	File     string   // "" if none was read
	Warnings []string // one sentence each
	sources  map[string]string
}

// Problems is every reason why a configuration cannot be used, one sentence
// each.
type Problems []string

// Error returns the one problem, or all of them as a list.
func (p Problems) Error() string {
	if len(p) == 1 {
		return p[0]
	}
	return fmt.Sprintf("the configuration has %d problems:\n  - %s", len(p), strings.Join(p, "\n  - "))
}

// Load reads the sources of in, derives what depends on the host and validates
// the outcome. Its error is Problems, with everything that is wrong, or that of
// a file that cannot be read. Paths in the file are relative to the file, other
// paths to the working directory; all are absolute on return.
func Load(in Input) (*Loaded, error) {
	l := &loader{
		loaded: &Loaded{Config: Defaults(), sources: map[string]string{}},
		keys:   Keys(),
		env:    map[string]string{},
	}
	for _, variable := range in.Env {
		name, value, _ := strings.Cut(variable, "=")
		l.env[name] = value
	}
	for name := range in.Flags {
		if !slices.ContainsFunc(l.keys, func(k Key) bool { return k.Name == name }) {
			return nil, fmt.Errorf("key %s of a flag is not in the configuration", name)
		}
	}
	if err := l.readFile(in); err != nil {
		return nil, err
	}
	l.readEnv()
	l.readFlags(in.Flags)
	l.derive()
	l.problems = append(l.problems, l.loaded.problems()...)
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	l.loaded.Warnings = append(l.loaded.Warnings, l.loaded.Config.warnings()...)
	if other := filepath.Join(l.loaded.DataDir, ConfigFile); l.loaded.File != "" && l.loaded.File != other {
		if _, err := os.Stat(other); err == nil {
			l.loaded.Warnings = append(l.loaded.Warnings, fmt.Sprintf("%s has no effect, because %s is read instead of it: move what it sets there and remove it", other, l.loaded.File))
		}
	}
	return l.loaded, nil
}

// Source tells where the value of a key came from: "default", "file …",
// "variable …", "flag …".
func (l *Loaded) Source(key string) string {
	return cmp.Or(l.sources[key], "default")
}

// Derived tells whether nobody wrote the key: it has its default or follows from
// the host.
func (l *Loaded) Derived(key string) bool {
	source := l.Source(key)
	return !strings.HasPrefix(source, "file") && !strings.HasPrefix(source, "variable") &&
		!strings.HasPrefix(source, "flag")
}

// Unwritten lists the keys that a flag or a variable has set to another value than
// the file that was read: a run with that file alone will not know them.
func (l *Loaded) Unwritten() []string {
	if l.File == "" {
		return nil
	}
	var keys []string
	for _, key := range Keys() {
		if key.Name != "data_dir" && !l.Derived(key.Name) && !strings.HasPrefix(l.Source(key.Name), "file") {
			keys = append(keys, key.Name)
		}
	}
	return keys
}

// loader is the state of one Load.
type loader struct {
	loaded   *Loaded
	keys     []Key
	env      map[string]string
	problems Problems
}

func (l *loader) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// value returns the field of a key.
func (l *loader) value(key Key) reflect.Value {
	return reflect.ValueOf(&l.loaded.Config).Elem().FieldByIndex(key.index)
}

// readFile finds and decodes the file. A file that was named must exist, the one
// in the data directory need not.
func (l *loader) readFile(in Input) error {
	path, named := cmp.Or(in.File, l.env[ConfigEnv]), true
	if path == "" {
		dir := cmp.Or(l.env[EnvPrefix+"DATA_DIR"], l.loaded.DataDir)
		if given := in.Flags["data_dir"]; len(given) > 0 {
			dir = given[0]
		}
		path, named = filepath.Join(dir, ConfigFile), false
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if named {
			return fmt.Errorf("configuration file %s does not exist: check --config and %s", path, ConfigEnv)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("configuration file %s cannot be read: %w", path, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("the working directory is unknown: %w", err)
	}
	l.loaded.File = path
	if !named {
		l.loaded.DataDir = filepath.Dir(path)
	}
	f := &fileDecoder{path: path, keys: l.keys, sources: l.loaded.sources}
	f.decode(text, &l.loaded.Config)
	l.problems = append(l.problems, f.problems...)
	if err := l.resolvePaths(filepath.Dir(path), "file"); err != nil {
		return err
	}
	if dir := filepath.Dir(path); !named && dir != l.loaded.DataDir && l.loaded.DataDir != "" {
		l.problem("%s sets data_dir to %s but was found in %s: remove data_dir from it", path, l.loaded.DataDir, dir)
	}
	return nil
}

func (l *loader) readEnv() {
	known := []string{ConfigEnv}
	for _, key := range l.keys {
		known = append(known, key.Env)
		text, found := l.env[key.Env]
		if !found {
			continue
		}
		separator := ","
		if key.Name == ListenersKey {
			separator = ";"
		}
		values := []string{text}
		if key.List {
			values = splitList(text, separator)
		}
		l.set(key, values, "variable "+key.Env)
	}
	for name := range l.env {
		// A warning only: orchestrators put variables of their own making beside
		// ours (MQCLUSTER_SERVICE_HOST, for a service of that name).
		if strings.HasPrefix(name, EnvPrefix) && !slices.Contains(known, name) {
			l.loaded.Warnings = append(l.loaded.Warnings,
				fmt.Sprintf("variable %s is unknown and has no effect%s", name, suggestion(nearestEnv(name, known))))
		}
	}
	slices.Sort(l.loaded.Warnings)
}

func nearestEnv(name string, known []string) string {
	lower := make([]string, len(known))
	for i, k := range known {
		lower[i] = strings.ToLower(strings.TrimPrefix(k, EnvPrefix))
	}
	if best := nearest(strings.ToLower(strings.TrimPrefix(name, EnvPrefix)), lower); best != "" {
		return EnvPrefix + strings.ToUpper(best)
	}
	return ""
}

func (l *loader) readFlags(flags map[string][]string) {
	for _, key := range l.keys {
		values, found := flags[key.Name]
		if !found {
			continue
		}
		if key.List && key.Name != ListenersKey {
			var all []string
			for _, value := range values {
				all = append(all, splitList(value, ",")...)
			}
			values = all
		}
		l.set(key, values, "flag --"+key.Flag)
	}
}

// set gives a key the values of one source, which replace what a weaker source
// said. A relative path is made absolute by the working directory.
func (l *loader) set(key Key, values []string, source string) {
	v := l.value(key)
	if key.List {
		v.SetZero()
	}
	l.loaded.sources[key.Name] = source
	for _, text := range values {
		if key.Name == ListenersKey {
			listener, err := ParseListener(text)
			if err != nil {
				l.problem("%s: %v", source, err)
			}
			l.loaded.Listeners = append(l.loaded.Listeners, listener)
			continue
		}
		if err := setText(v, text); err != nil {
			l.problem("%s: %q %v", source, text, err)
		}
	}
	if err := l.resolvePaths("", source); err != nil {
		l.problem("%v", err)
	}
}

// resolvePaths makes the relative paths of what one source just set absolute.
func (l *loader) resolvePaths(dir, source string) error {
	if dir == "" {
		dir = "."
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("the working directory is unknown: %w", err)
	}
	absolute := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	for _, key := range l.keys {
		if key.path && strings.HasPrefix(l.loaded.Source(key.Name), source) {
			absolute(l.value(key).Addr().Interface().(*string))
		}
	}
	if strings.HasPrefix(l.loaded.Source(ListenersKey), source) {
		for i := range l.loaded.Listeners {
			files := &l.loaded.Listeners[i].TLS
			for _, path := range []*string{&files.CertFile, &files.KeyFile, &files.KeyPassFile, &files.ClientCAFile} {
				absolute(path)
			}
		}
	}
	return nil
}

// derive fills what follows from other settings or from the host.
func (l *loader) derive() {
	c := &l.loaded.Config
	if c.DataDir != "" {
		if dir, err := filepath.Abs(c.DataDir); err == nil {
			c.DataDir = dir
		}
	}
	if c.Admin.Socket == "" && c.DataDir != "" {
		c.Admin.Socket = filepath.Join(c.DataDir, "admin.sock")
		l.loaded.sources["admin.socket"] = "derived from data_dir"
	}
	if c.Node.ID == "" {
		if host, err := os.Hostname(); err == nil {
			host, _, _ = strings.Cut(strings.ToLower(host), ".")
			c.Node.ID = host
			l.loaded.sources["node.id"] = "derived from the host's name"
		}
	}
	if c.Mesh.Advertise == "" {
		l.deriveAdvertise()
	}
	for i := range c.Listeners {
		c.Listeners[i].fill(i, c.Listeners)
	}
}

// deriveAdvertise fills mesh.advertise from mesh.listen. It stays empty where
// that does not tell: only verbs that open the mesh need it (CheckMesh).
func (l *loader) deriveAdvertise() {
	c := &l.loaded.Config
	listen, err := net.ResolveTCPAddr("tcp", c.Mesh.Listen)
	if err != nil || listen.Port == 0 {
		return
	}
	if address, err := c.AdvertiseAddress(listen); err == nil {
		c.Mesh.Advertise = address
		l.loaded.sources["mesh.advertise"] = "derived from mesh.listen"
	}
}

// fill gives the listener at place n of all its defaults.
func (l *Listener) fill(n int, all []Listener) {
	l.Identity = cmp.Or(l.Identity, IdentityNone)
	if l.Secure() {
		l.TLS.MinVersion = cmp.Or(l.TLS.MinVersion, "1.2")
	}
	if l.Web() {
		l.Path = cmp.Or(l.Path, "/mqtt")
	}
	if l.Name != "" {
		return
	}
	_, port, _ := net.SplitHostPort(l.Address)
	l.Name = l.Kind + "-" + port
	for i, other := range all {
		if i != n && other.Name == l.Name {
			l.Name = fmt.Sprintf("%s-%s-%d", l.Kind, port, n+1)
		}
	}
}

// splitList cuts text at separator and drops blanks around and empty elements.
func splitList(text, separator string) []string {
	var parts []string
	for part := range strings.SplitSeq(text, separator) {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// suggestion is the end of a sentence about an unknown name.
func suggestion(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", name)
}
