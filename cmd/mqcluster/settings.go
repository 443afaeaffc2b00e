package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
)

// settings are the configuration flags of one command line.
type settings struct {
	app   *App
	file  string
	flags map[string][]string
}

// settingValue is one configuration key as a flag.
type settingValue struct {
	key node.Key
	in  *settings
}

// String returns the default, for the help.
func (v settingValue) String() string { return v.key.Default }

// Type names the value in the help.
func (v settingValue) Type() string {
	if v.key.List {
		return "list"
	}
	return "value"
}

// Set records the text; node.Load judges it together with the other sources.
func (v settingValue) Set(text string) error {
	if v.key.List {
		v.in.flags[v.key.Name] = append(v.in.flags[v.key.Name], text)
	} else {
		v.in.flags[v.key.Name] = []string{text}
	}
	return nil
}

// configFlags gives cmd a flag for every configuration key. Those that shown
// does not accept work but are not in the help.
func (a *App) configFlags(cmd *cobra.Command, shown func(key string) bool) *settings {
	s := &settings{app: a, flags: map[string][]string{}}
	cmd.PersistentFlags().StringVar(&s.file, "config", "", "configuration file (default mqcluster.yaml in the data directory)")
	_ = cmd.MarkPersistentFlagFilename("config", "yaml", "yml")
	for _, key := range node.Keys() {
		cmd.PersistentFlags().Var(settingValue{key, s}, key.Flag, key.Help)
		if !shown(key.Name) {
			_ = cmd.PersistentFlags().MarkHidden(key.Flag)
		}
	}
	_ = cmd.MarkPersistentFlagDirname("data-dir")
	return s
}

// mainKeys accepts the keys that most nodes set.
func mainKeys(key string) bool {
	switch key {
	case "data_dir", "node.id", "cluster.name", "server_names", "health.listen", "api.listen", node.ListenersKey:
		return true
	}
	return strings.HasPrefix(key, "mesh.") || strings.HasPrefix(key, "log.")
}

// keysHint ends the help of a command that has all keys as flags.
const keysHint = `

Every key of the configuration file is also a flag and an environment variable;
mqcluster config keys lists them.`

func (s *settings) load() (*node.Loaded, error) {
	return node.Load(node.Input{Flags: s.flags, Env: s.app.Env, File: s.file})
}

// loadNode is load for the verbs that open the mesh.
func (s *settings) loadNode() (*node.Loaded, error) {
	config, err := s.load()
	if err != nil {
		return nil, err
	}
	return config, config.CheckMesh()
}

// keep writes what init or join was told to mqcluster.yaml in the data directory. A
// file that was read stays as it is; what it lacks is said.
func (a *App) keep(config *node.Loaded) error {
	if config.File == "" {
		_, err := config.WriteFile()
		return err
	}
	if keys := config.Unwritten(); len(keys) > 0 {
		fmt.Fprintf(a.Err, "warning: %s, which run will read, lacks %s: write it there\n", config.File, strings.Join(keys, ", "))
	}
	return nil
}

// lookup returns the text of a key in the flags or the environment.
func (s *settings) lookup(name string) string {
	for _, key := range node.Keys() {
		if key.Name != name {
			continue
		}
		if values := s.flags[name]; len(values) > 0 {
			return values[0]
		}
		for _, variable := range s.app.Env {
			if value, found := strings.CutPrefix(variable, key.Env+"="); found {
				return value
			}
		}
	}
	return ""
}

// remote is how a verb reaches the node of this machine.
type remote struct {
	*settings
	timeout time.Duration
	out     output
	// The API of a node elsewhere, in the place of the socket.
	api, tokenFile, caFile string
}

// remoteFlags gives cmd and what is below it the flags of a remote.
func (a *App) remoteFlags(cmd *cobra.Command) *remote {
	r := &remote{settings: a.configFlags(cmd, func(key string) bool { return key == "data_dir" || key == "admin.socket" })}
	cmd.PersistentFlags().DurationVar(&r.timeout, "timeout", 30*time.Second, "time to wait for the node")
	cmd.PersistentFlags().StringVar(&r.api, "api", "", "address of a node's API, such as https://n1.example.org:9443, in the place of the socket")
	cmd.PersistentFlags().StringVar(&r.tokenFile, "token-file", "", "file with the token for --api")
	cmd.PersistentFlags().StringVar(&r.caFile, "ca-file", "", "PEM of the CAs that --api is verified with (default: the system's)")
	r.out.flag(a, cmd)
	return r
}

// remoteClient returns the client of --api.
func (r *remote) remoteClient() (*admin.Client, error) {
	u, err := url.Parse(r.api)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return nil, usagef("--api is %q: write https://host:port", r.api)
	}
	if r.tokenFile == "" {
		return nil, usagef("--api needs --token-file: make a token with mqcluster api-token create")
	}
	p := passwordFlags{file: r.tokenFile}
	token, err := p.readGiven(r.app)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.caFile != "" {
		pem, err := os.ReadFile(r.caFile)
		if err != nil {
			return nil, fmt.Errorf("the CA file cannot be read: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA file %s has no certificate: write the cluster's ca.pem", r.caFile)
		}
	}
	return admin.NewRemoteClient("https://"+u.Host, string(token), settings), nil
}

// call runs one exchange with the node.
func (r *remote) call(cmd *cobra.Command, exchange func(context.Context, *admin.Client) error) error {
	if r.api != "" {
		c, err := r.remoteClient()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
		defer cancel()
		return exchange(ctx, c)
	}
	// A socket that was named needs no configuration that can be read.
	socket, dir := r.lookup("admin.socket"), r.lookup("data_dir")
	if socket == "" {
		config, err := r.load()
		if err != nil {
			return err
		}
		socket, dir = config.Admin.Socket, config.DataDir
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
	defer cancel()
	err := exchange(ctx, admin.NewClient(socket))
	if errors.Is(err, admin.ErrNoNode) {
		if dir == "" {
			dir = filepath.Dir(socket)
		}
		return fmt.Errorf("no node runs with data directory %s: start it with mqcluster run --data-dir %s", dir, dir)
	}
	return err
}

// changed reports a change: done says what was done.
func (r *remote) changed(change admin.Change, done string) error {
	if r.out.json() {
		if change.NotApplied == nil {
			change.NotApplied = []string{}
		}
		if err := r.out.value(change); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(r.app.Out, done)
	}
	return notApplied(change)
}

// notApplied is an error where a node still goes by what was before: who
// disables a user must know.
func notApplied(change admin.Change) error {
	if len(change.NotApplied) == 0 {
		return nil
	}
	return fmt.Errorf("the change is committed (index %d) but not applied yet on %s: each will apply it before it serves on, or lose its lease; watch mqcluster status",
		change.Index, strings.Join(change.NotApplied, ", "))
}
