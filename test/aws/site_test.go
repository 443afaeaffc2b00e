//go:build linux

package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/fakeaws"
)

// patience bounds every wait; it is no bar.
const patience = 90 * time.Second

// need fails where something is missing that CI says is there; elsewhere the test is
// left out.
func need(t *testing.T) {
	t.Helper()
	lacks := ""
	for _, p := range []string{"terraform", "unshare", "nsenter", "pivot_root", "losetup", "mkfs.ext4", "curl", "openssl", "/lib/systemd/systemd"} {
		if _, err := exec.LookPath(p); err != nil {
			lacks = err.Error()
		}
	}
	if os.Geteuid() != 0 {
		lacks = "only root may boot machines"
	}
	if os.Getenv("TF_PLUGIN_DIR") == "" {
		lacks = "TF_PLUGIN_DIR names no folder with terraform's provider for AWS"
	}
	switch {
	case lacks == "":
	case os.Getenv("CI") != "":
		t.Fatal(lacks)
	default:
		t.Skip(lacks)
	}
}

// A site is what terraform makes in a fake cloud.
type site struct {
	t     *testing.T
	cloud *fakeaws.Cloud
	root  string // a copy of roots/aws
	dir   string
	// balancer is where the balancer listens.
	balancer string
	values   map[string]string
	env      []string
}

// newSite is one that is not applied yet. It is destroyed with the test, and nothing
// of it may be left then.
func newSite(t *testing.T) *site {
	t.Helper()
	need(t)
	dir, err := os.MkdirTemp("", "aws-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	network := 64 + rand.IntN(64)
	s := &site{t: t, dir: dir, root: filepath.Join(dir, "terraform", "roots", "aws"), balancer: fmt.Sprintf("127.%d.255.2", network)}
	if err := os.Mkdir(filepath.Join(dir, "cloud"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.cloud, err = fakeaws.Open(fakeaws.Config{Dir: filepath.Join(dir, "cloud"), Address: fmt.Sprintf("127.%d.255.1:0", network), Balancer: s.balancer}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.cloud.Close(); err != nil {
			t.Error(err)
		}
	})
	url, sum := s.servePackage()
	s.values = map[string]string{
		"vpc_cidr": fmt.Sprintf("127.%d.0.0/16", network), "package_url": url, "package_sha256": sum, "volume_size": "4", "ssh_command": s.desk(),
		"backup_recipient": recipient, "destroy_backups": "true", "admin_cidrs": `["198.51.100.0/24"]`,
	}
	s.layOut()
	t.Cleanup(s.end)
	return s
}

// recipient is for whom backups are encrypted; nobody opens these.
const recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

// layOut copies the root, with what only a test may say to the provider, and
// initialises it.
func (s *site) layOut() {
	s.t.Helper()
	if err := os.CopyFS(filepath.Join(s.dir, "terraform"), os.DirFS("../../deploy/terraform")); err != nil {
		s.t.Fatal(err)
	}
	for _, left := range []string{".terraform", ".terraform.lock.hcl", "terraform.tfstate", "terraform.tfstate.backup"} {
		if err := os.RemoveAll(filepath.Join(s.root, left)); err != nil {
			s.t.Fatal(err)
		}
	}
	// There is one address for all buckets.
	override := "provider \"aws\" {\n  s3_use_path_style = true\n}\n"
	if err := os.WriteFile(filepath.Join(s.root, "test_override.tf"), []byte(override), 0o644); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "TF_") && !strings.HasPrefix(e, "AWS_") && !strings.HasPrefix(e, "MQCLUSTER_") && !strings.HasPrefix(e, "PATH=") {
			s.env = append(s.env, e)
		}
	}
	s.env = append(s.env, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_CLI_CONFIG_FILE="+os.DevNull, "PATH="+s.dir+":"+os.Getenv("PATH"),
		"AWS_ENDPOINT_URL="+s.cloud.URL(), "AWS_ACCESS_KEY_ID="+fakeaws.Key, "AWS_SECRET_ACCESS_KEY="+fakeaws.Secret, "AWS_REGION="+fakeaws.Region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	s.must(s.run("terraform", "init", "-input=false", "-no-color", "-plugin-dir="+os.Getenv("TF_PLUGIN_DIR")))
}

// servePackage serves the package that make deb made.
func (s *site) servePackage() (url, sum string) {
	s.t.Helper()
	deb, err := os.ReadFile("../../dist/mqcluster_" + runtime.GOARCH + ".deb")
	if err != nil {
		s.t.Fatalf("%v: run make check-aws", err)
	}
	hash := sha256.Sum256(deb)
	return s.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(deb) })) + "/mqcluster.deb", hex.EncodeToString(hash[:])
}

// serve serves on the loopback for the time of the test.
func (s *site) serve(h http.Handler) (url string) {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }() // ends with Close
	s.t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

// desk is what the operator's machine has: a command in the place of ssh, whose path
// it returns, and one in that of AWS's own command line. Both ask the test.
func (s *site) desk() (ssh string) {
	s.t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/remote", func(w http.ResponseWriter, r *http.Request) {
		args := r.FormValue("to")
		_, address, _ := strings.Cut(args, "@")
		command := r.Form["arg"]
		if len(command) < 2 || command[0] != "sudo" {
			s.t.Errorf("ssh %s %q: not with sudo", args, command)
			return
		}
		s.answer(w)(s.cloud.Run(address, command[1:]...))
	})
	mux.HandleFunc("/aws", func(w http.ResponseWriter, r *http.Request) { s.answer(w)(s.awsCommand(r)) })
	url := s.serve(mux)
	for name, script := range map[string]string{
		"aws": "", "remote": "args+=(--data-urlencode \"to=$1\")\nshift\n",
	} {
		script = "#!/bin/bash\nargs=()\n" + script + "for a in \"$@\"; do args+=(--data-urlencode \"arg=$a\"); done\n" +
			"exec curl -sS --fail-with-body \"${args[@]}\" " + url + "/" + name + "\n"
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(script), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	return filepath.Join(s.dir, "remote")
}

// answer writes what a command printed, and whether it succeeded.
func (s *site) answer(w http.ResponseWriter) func(string, error) {
	return func(out string, err error) {
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			out += err.Error()
		}
		_, _ = fmt.Fprintln(w, out) // who has ended needs none
	}
}

// awsCommand does what the outputs ask of AWS's command line, and nothing else.
func (s *site) awsCommand(r *http.Request) (string, error) {
	if err := r.ParseForm(); err != nil {
		return "", err
	}
	line := strings.Join(r.Form["arg"], " ")
	rest, ok := strings.CutPrefix(line, "ssm get-parameter --region "+fakeaws.Region+" --name ")
	name, rest, _ := strings.Cut(rest, " ")
	kind, value, _ := s.cloud.Parameter(name)
	if kind == "SecureString" {
		rest, ok = strings.CutPrefix(rest, "--with-decryption ")
	}
	if !ok || rest != "--query Parameter.Value --output text" {
		return "", fmt.Errorf("aws %s is not known", line)
	}
	return value, nil
}

// run runs a program in the root and returns what it printed.
func (s *site) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = s.root, s.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w:\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

func (s *site) must(out string, err error) string {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// options are the values of the root's variables.
func (s *site) options() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		out = append(out, "-var", name+"="+s.values[name])
	}
	return out
}

// terraform runs a verb that takes the variables.
func (s *site) terraform(verb string, args ...string) (string, error) {
	return s.run("terraform", append(append([]string{verb, "-no-color", "-input=false"}, args...), s.options()...)...)
}

// apply applies the root and demands that the next plan is empty.
func (s *site) apply(how ...string) {
	s.t.Helper()
	start := time.Now()
	s.must(s.terraform("apply", append([]string{"-auto-approve"}, how...)...))
	took := time.Since(start)
	s.planned()
	s.t.Logf("apply %s took %v, and the plan is empty after %v", strings.Join(how, " "), took.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

// planned demands an empty plan.
func (s *site) planned() {
	s.t.Helper()
	s.must(s.terraform("plan", "-detailed-exitcode"))
}

// output returns one of the root's.
func (s *site) output(name string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must(s.run("terraform", "output", "-raw", name)))
}

// shell runs a command of an output.
func (s *site) shell(output string) (string, error) {
	out, err := s.run("bash", "-c", s.output(output))
	return strings.TrimSpace(out), err
}

// end destroys the site and fails if anything of it is left.
func (s *site) end() {
	if s.t.Failed() {
		for _, m := range s.cloud.Machines() {
			s.t.Logf("%s at %s is %s; its journal ends with:\n%s", m.Name, m.Address, m.State, s.cloud.Journal(m.Address))
		}
	}
	start := time.Now()
	if _, err := s.terraform("destroy", "-auto-approve"); err != nil {
		s.t.Error(err)
	}
	s.t.Logf("destroy took %v", time.Since(start).Round(time.Millisecond))
	if left := s.cloud.Left(); len(left) > 0 {
		s.t.Errorf("destroy leaves %q", left)
	}
	for _, f := range s.cloud.Failures() {
		s.t.Errorf("the cloud: %s", f)
	}
}

// await waits until what is asked for holds.
func await(t *testing.T, what string, is func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		err := is()
		if err == nil {
			return
		}
		if time.Since(start) > patience {
			t.Fatalf("%s: not after %v: %v", what, patience, err)
		}
	}
}

// awaitWell waits until the gate of rolling-replace.sh is open.
func (s *site) awaitWell() {
	s.t.Helper()
	start := time.Now()
	command := s.output("gate_command")
	await(s.t, "the cluster is well", func() error { _, err := s.run("bash", "-c", command); return err })
	s.t.Logf("the cluster is well after %v", time.Since(start).Round(time.Millisecond))
}

// on runs a command on a node, which has to succeed.
func (s *site) on(node string, command ...string) string {
	s.t.Helper()
	return s.must(s.cloud.Run(s.machine(node).Address, command...))
}

// machine is that of a node.
func (s *site) machine(node string) fakeaws.Machine {
	s.t.Helper()
	for _, m := range s.cloud.Machines() {
		if m.Name == "mqcluster-"+node {
			return m
		}
	}
	s.t.Fatalf("node %s has no machine", node)
	return fakeaws.Machine{}
}

// status is what a node says of the cluster.
func (s *site) status(node string) (out struct {
	Cluster string `json:"cluster_id"`
	Leader  string
	Members []struct {
		Node, Role string
		Up         bool
	}
}) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.on(node, "mqcluster", "status", "-o", "json")), &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}
