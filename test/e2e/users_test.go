//go:build linux

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
)

// cheap makes password hashes of some milliseconds.
var cheap = []string{"--auth.argon2-memory", "1MiB", "--auth.argon2-time", "1"}

// TestUserImport imports more users than one batch has, by password and by hash. The
// same again changes nobody, and of clients only those whose password is another one
// are sent away.
func TestUserImport(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: cheap})
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		t.Fatal(err)
	}
	encode := base64.RawStdEncoding.EncodeToString
	lines := []string{"# devices", "", "hashed:$argon2id$v=19$m=1024,t=1,p=1$" + encode(salt) + "$" + encode(argon2.IDKey([]byte("secret"), salt, 1, 1024, 1, 32))}
	for i := range 249 {
		lines = append(lines, fmt.Sprintf("many%d:secret:%d", i, i))
	}
	file := filepath.Join(t.TempDir(), "users")
	load := func(want string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := c.Nodes[0].CLI("user", "import", file, "--role", "devices"); !strings.Contains(got, want) {
			t.Errorf("the import says %q, want %q", got, want)
		}
	}
	load("250 users added, 0 changed, 0 unchanged")
	at := func(n int, user, pass string) login {
		return login{address: c.Nodes[n].TLS, tls: c.ClientTLS, user: user, pass: pass}
	}
	hashed := at(1, "hashed", "secret").must(t, clean("hashed"))
	same, other := at(1, "many0", "secret:0").must(t, clean("many0")), at(2, "many248", "secret:248").must(t, clean("many248"))
	if _, ack, err := at(2, "many1", "secret:2").connect(t, clean("many1")); err == nil && ack.Reason < 0x80 {
		t.Error("a wrong password was let in")
	}
	load("0 users added, 0 changed, 250 unchanged")
	lines[len(lines)-1] = "many248:another"
	load("0 users added, 1 changed, 249 unchanged")
	if _, err := other.AwaitClose(patience); err != nil {
		t.Errorf("a client whose password is another one: %v", err)
	}
	at(0, "many248", "another").must(t, clean("many248"))
	for name, one := range map[string]*Client{"hashed": hashed, "many0": same} {
		if err := one.Ping(); err != nil {
			t.Errorf("%s, whose password is the same: %v", name, err)
		}
	}

	lines[2] = "hashed:$argon2id$v=19$m=1024,t=1,p=1$short$short"
	if err := os.WriteFile(file, []byte(strings.Join(lines[:3], "\n")+"\nmany0:new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes[0].TryCLI("", "user", "import", file); err == nil {
		t.Error("a hash that nobody can verify was imported")
	}
	at(1, "many0", "secret:0").must(t, clean("many0-again")) // nobody of that batch was changed
}

// TestRestartRemembersPasswords has clients log in at one node, and then at another
// that was killed and started since: it computes no hash for those that it has been
// told of.
func TestRestartRemembersPasswords(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: cheap})
	const users = 300
	var lines []string
	for i := range users {
		lines = append(lines, fmt.Sprintf("many%d:secret%d", i, i))
	}
	if _, err := c.Nodes[0].TryCLI(strings.Join(lines, "\n"), "user", "import", "-"); err != nil {
		t.Fatal(err)
	}
	logIn := func(n *Node, i int) {
		t.Helper()
		l := login{address: n.TLS, tls: c.ClientTLS, user: fmt.Sprintf("many%d", i), pass: fmt.Sprintf("secret%d", i)}
		l.must(t, clean(fmt.Sprintf("many%d", i)))
	}
	n := c.Nodes[0] // it was alone at the start of its log
	for i := range users {
		logIn(c.Nodes[1], i)
	}
	n.Kill()
	n.Start()
	n.WaitReady(patience)
	count := func(how string) float64 {
		return n.Metric(fmt.Sprintf("mqcluster_node_password_checks_total{how=%q}", how))
	}
	next := 0
	await(t, patience, func() bool {
		if next < users-20 {
			logIn(n, next)
			next++
		}
		return count("remembered") > 0
	}, func() string { return "the node remembers no password that another node verified" })
	hashed, remembered := count("hashed"), count("remembered")
	for i := next; i < users; i++ {
		logIn(n, i)
	}
	if more := count("hashed") - hashed; more != 0 || count("remembered")-remembered != float64(users-next) {
		t.Errorf("%d logins cost %v hashes", users-next, more)
	}
	t.Logf("%d logins were hashed before the node had been told", int(hashed))
}
