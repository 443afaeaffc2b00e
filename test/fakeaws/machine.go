//go:build linux

package fakeaws

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed machine.sh
var bootScript []byte

// machineConfig is what a machine is made of.
type machineConfig struct {
	id, address, role string
	userData          []byte
}

// A machine is a systemd that runs, or has run.
type machine struct {
	machineConfig
	dir         string
	environment []string // of everything that runs on it
	boot        *exec.Cmd
	output      bytes.Buffer
	ended       chan struct{}
	metadata    *http.Server
	once        sync.Once // of the end
}

// metadataPort is where each machine finds its metadata, at its own address.
const metadataPort = 1338

// startMachine boots a machine, and returns when its systemd takes commands.
func (c *Cloud) startMachine(cfg machineConfig) (*machine, error) {
	m := &machine{machineConfig: cfg, dir: filepath.Join(c.cfg.Dir, cfg.id), ended: make(chan struct{})}
	if err := m.prepare(c); err != nil {
		return nil, fmt.Errorf("prepare a machine: %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(m.address, strconv.Itoa(metadataPort)))
	if err != nil {
		return nil, fmt.Errorf("listen for the metadata: %w", err)
	}
	m.metadata = &http.Server{Handler: c.metadataOf(m)}
	c.served.Go(func() { _ = m.metadata.Serve(l) })
	m.boot = exec.Command("unshare", "--mount", filepath.Join(m.dir, "boot"), m.dir, "fakeaws-"+cfg.id)
	m.boot.Stdout, m.boot.Stderr = &m.output, &m.output
	m.boot.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.boot.Start(); err != nil {
		return nil, fmt.Errorf("boot a machine: %w", err)
	}
	go func() { _ = m.boot.Wait(); close(m.ended) }()
	return m, m.await()
}

// prepare lays out what the machine differs in from this one.
func (m *machine) prepare(c *Cloud) error {
	// Where AWS is, as its own tools take it.
	m.environment = []string{"AWS_ENDPOINT_URL=" + c.URL(), fmt.Sprintf("AWS_EC2_METADATA_SERVICE_ENDPOINT=http://%s:%d", m.address, metadataPort)}
	manager := "[Manager]\nDefaultEnvironment=" + strings.Join(m.environment, " ") + "\n"
	files := map[string]string{
		"boot":                 string(bootScript),
		"units/machine.target": "[Unit]\nDescription=A machine\nRequires=basic.target\nAfter=basic.target\nWants=user-data.service\n",
		// What cloud-init does with it.
		"units/user-data.service":                     "[Unit]\nDescription=User data\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/var/lib/cloud/instance/user-data.txt\n",
		"files/var/lib/cloud/instance/user-data.txt":  string(m.userData),
		"files/etc/fstab":                             "",
		"files/etc/systemd/system.conf.d/fake.conf":   manager,
		"files/etc/systemd/journald.conf.d/fake.conf": "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n",
	}
	for name, text := range files {
		path := filepath.Join(m.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if name == "boot" || strings.HasSuffix(name, ".txt") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return err
		}
	}
	return nil
}

// bootTime is how long a boot may take.
const bootTime = 60 * time.Second

// await waits until systemd takes commands.
func (m *machine) await() error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; {
		if _, err := m.run("systemctl", "is-active", "basic.target"); err == nil {
			return nil
		} else if time.Since(start) > bootTime {
			return fmt.Errorf("the machine does not boot: %w: %s", err, m.output.String())
		}
		select {
		case <-m.ended:
			return fmt.Errorf("the machine does not boot: %s", m.output.String())
		case <-tick.C:
		}
	}
}

func (m *machine) runs() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// init is the process id of the machine's systemd.
func (m *machine) init() (int, error) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", m.boot.Process.Pid))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		return 0, fmt.Errorf("the machine has no systemd yet: %w", err)
	}
	// Before it is systemd, the child is something that the script runs.
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || strings.TrimSpace(string(name)) != "systemd" {
		return 0, errors.New("the machine has no systemd yet")
	}
	return pid, nil
}

// run runs a command on the machine and returns what it printed.
func (m *machine) run(command ...string) (string, error) {
	pid, err := m.init()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append([]string{"--target", strconv.Itoa(pid), "--all", "--root", "--wd", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, append(slices.Clone(m.environment), command...)...)
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stderr = &complaint
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(string(out)), err
}

// shutDown ends all services in good order, as systemd does before a machine is
// switched off, and then the machine.
func (m *machine) shutDown() {
	if m.runs() {
		_, _ = m.run("systemctl", "start", "--job-mode=replace-irreversibly", "shutdown.target", "umount.target")
	}
	m.kill()
}

// kill ends everything of the machine at once, and returns when it has.
func (m *machine) kill() {
	m.once.Do(func() {
		_ = m.boot.Process.Kill() // --kill-child takes systemd along
		<-m.ended
		_ = m.metadata.Close()
		m.removeGroup()
	})
}

// removeGroup removes the machine's control groups.
func (m *machine) removeGroup() {
	script := `mount --make-rprivate / && mount -t cgroup2 cgroup2 "$1" && cd "$1" && [ ! -d "$2" ] || {
		echo 1 >"$2/cgroup.kill" && while grep -q 'populated 1' "$2/cgroup.events"; do sleep 0.05; done
		find "$2" -depth -type d -exec rmdir {} +; }`
	if out, err := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", filepath.Join(m.dir, "groups"), "fakeaws-"+m.id).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "fakeaws: the control groups of %s are left: %v: %s\n", m.id, err, out)
	}
}

// remove takes the machine's own disk away.
func (m *machine) remove() { _ = os.RemoveAll(m.dir) }

// metadataOf is the metadata service of a machine, version 2 only.
func (c *Cloud) metadataOf(m *machine) http.Handler {
	const session = "metadata-session-of-"
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, session+m.id)
	})
	answer := func(pattern string, text func(*http.Request) string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-aws-ec2-metadata-token") != session+m.id {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, text(r))
		})
	}
	answer("GET /latest/meta-data/iam/security-credentials/{$}", func(*http.Request) string { return m.role })
	answer("GET /latest/meta-data/iam/security-credentials/{role}", func(r *http.Request) string {
		c.mu.Lock()
		defer c.mu.Unlock()
		key := "ASIA" + strings.ToUpper(strings.TrimPrefix(m.id, "i-"))
		cred := credential{secret: "secret/of+" + m.id, session: "session/of+" + m.id + "==", role: m.role}
		c.secrets[key] = cred
		text, _ := json.MarshalIndent(map[string]string{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": cred.secret, "Token": cred.session}, "", "  ")
		return string(text)
	})
	return mux
}

// Journal is what the units of a machine have said.
func (c *Cloud) Journal(address string, units ...string) string {
	command := []string{"journalctl", "--no-pager", "-n", "80", "-o", "cat"}
	for _, u := range units {
		command = append(command, "-u", u)
	}
	out, err := c.Run(address, command...)
	if err != nil {
		return err.Error()
	}
	return out
}

// A Machine is a machine as tests see it.
type Machine struct {
	ID, Name, Address, State, Zone, Group, UserData string
}

// Machines lists those that are not terminated, by their names.
func (c *Cloud) Machines() (out []Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.all("machine") {
		if i.text("state") == "terminated" {
			continue
		}
		place, _ := i["placement"].(record)
		text, _ := base64.StdEncoding.DecodeString(i.text("userData"))
		out = append(out, Machine{ID: i.text("instanceId"), Name: nameTag(i), State: i.text("state"), Zone: place.text("availabilityZone"), Group: place.text("groupName"),
			Address: c.machines[i.text("instanceId")].address, UserData: string(text)})
	}
	slices.SortFunc(out, func(a, b Machine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Run runs a command on the machine at an address, its own or its public one, as root,
// and returns what it printed. It blocks until the command has ended.
func (c *Cloud) Run(address string, command ...string) (string, error) {
	c.mu.Lock()
	for _, a := range c.of("address", "publicIp", address) {
		address = a.text("privateIpAddress")
	}
	var found *machine
	for _, m := range c.machines {
		if m.address == address && m.runs() {
			found = m
		}
	}
	c.mu.Unlock()
	if found == nil {
		return "", fmt.Errorf("no machine runs at %s", address)
	}
	return found.run(command...)
}

// Kill is the sudden end of a machine, as by a broken power supply.
func (c *Cloud) Kill(id string) {
	c.mu.Lock()
	m := c.machines[id]
	c.mu.Unlock()
	m.kill()
}
