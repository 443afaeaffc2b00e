//go:build linux

package aws

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/test/fakeaws"
)

// secret is how a join token, a password's hash, a private key, the password of the
// clients, and what the metadata service gives a node look.
var secret = regexp.MustCompile(`MQ1\.[A-Za-z0-9_-]{8}|argon2id|PRIVATE KEY|` + regexp.QuoteMeta(password) + `|secret/of|session/of|metadata-session|` + regexp.QuoteMeta(fakeaws.Secret))

// watchSecrets looks at the arguments and variables of the machines' processes until
// stop is called.
func (s *site) watchSecrets() (stop func()) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	found, looks, seen := map[string]bool{}, 0, map[string]int{}
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			dirs, _ := filepath.Glob("/proc/[0-9]*")
			for _, dir := range dirs {
				if group, err := os.ReadFile(dir + "/cgroup"); err != nil || !bytes.Contains(group, []byte("fakeaws-")) {
					continue // it has ended, or is none of a machine
				}
				line, _ := os.ReadFile(dir + "/cmdline")
				text := strings.ReplaceAll(string(line), "\x00", " ")
				environ, _ := os.ReadFile(dir + "/environ")
				// The test itself gives the password to the machine.
				if hit := secret.FindString(text + string(environ)); hit != "" && !strings.Contains(text, "user add load") {
					found[hit+" in "+text] = true
				}
				for _, what := range []string{"mqcluster join", "curl"} {
					if strings.Contains(text, what) {
						seen[what]++
					}
				}
			}
			looks++
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	return sync.OnceFunc(func() {
		close(over)
		wg.Wait()
		for line := range found {
			s.t.Errorf("a secret among the arguments or variables of a process: %s", line)
		}
		if seen["mqcluster join"] == 0 || seen["curl"] == 0 {
			s.t.Errorf("no join or no request was seen, the search shows nothing: %v", seen)
		}
		s.t.Logf("looked %d times at arguments and variables; saw %v", looks, seen)
	})
}

// noSecrets searches state, plan, outputs, user data, and what the machines log.
func (s *site) noSecrets() {
	s.t.Helper()
	plan := filepath.Join(s.dir, "plan")
	s.must(s.terraform("plan", "-destroy", "-out", plan))
	texts := map[string]string{
		"plan":   s.must(s.run("terraform", "show", "-json", plan)),
		"output": s.must(s.run("terraform", "output", "-json")),
	}
	files, err := filepath.Glob(filepath.Join(s.root, "terraform.tfstate*"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("there is no state: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		texts[file] = string(text)
	}
	for _, m := range s.cloud.Machines() {
		texts["user data of "+m.Name] = m.UserData
		texts["journal of "+m.Name] = s.must(s.cloud.Run(m.Address, "journalctl", "--no-pager"))
		texts["settings of "+m.Name] = s.must(s.cloud.Run(m.Address, "sh", "-c", "cat /etc/mqcluster/* /etc/systemd/system/mqcluster*"))
	}
	for name, text := range texts {
		if len(text) < 100 {
			s.t.Errorf("%s has %d bytes: the search shows nothing", name, len(text))
		}
		if hit := secret.FindString(text); hit != "" {
			s.t.Errorf("%s has the secret %q", name, hit)
		}
	}
}
