package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	mtls "github.com/mqcluster/mqcluster/tls"
)

func testCA(t *testing.T) *mtls.CA {
	t.Helper()
	ca, err := mtls.NewCA("park", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// sealedIn tells whether every key below dir is encrypted.
func sealedIn(t *testing.T, dir string) bool {
	t.Helper()
	keys, err := filepath.Glob(filepath.Join(dir, "ca*", "ca.key"))
	if err != nil || len(keys) == 0 {
		t.Fatalf("no keys in %s: %v", dir, err)
	}
	for _, key := range keys {
		text, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte("ENCRYPTED PRIVATE KEY")) {
			return false
		}
	}
	return true
}

// A key in clear text is sealed once a passphrase is configured, and opens with that
// only. Of a rotation there are two, and afterwards the new one alone, where the old
// one was.
func TestKeyring(t *testing.T) {
	dir := t.TempDir()
	cfg := &Config{DataDir: dir}
	old, next := testCA(t), testCA(t)
	k := newKeyring(cfg)
	if _, err := k.get(""); !errors.Is(err, errNoKey) {
		t.Errorf("in an empty directory: %v", err)
	}
	if err := k.save(old); err != nil {
		t.Fatal(err)
	}
	if sealedIn(t, dir) || k.sealed() {
		t.Error("sealed without a passphrase")
	}
	cfg.CA.PassFile = filepath.Join(dir, "pass")
	if err := os.WriteFile(cfg.CA.PassFile, []byte("a passphrase of some length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k = newKeyring(cfg)
	if err := k.reseal(); err != nil {
		t.Fatal(err)
	}
	if err := k.save(next); err != nil {
		t.Fatal(err)
	}
	if !sealedIn(t, dir) || !k.sealed() {
		t.Error("not sealed with a passphrase")
	}
	check := func(k *keyring, pins ...string) {
		t.Helper()
		if diff := cmp.Diff(pins, k.pins()); diff != "" {
			t.Error(diff)
		}
		for _, pin := range pins {
			if ca, err := k.get(pin); err != nil || ca.Pin() != pin {
				t.Errorf("get %s: %v", pin, err)
			}
		}
	}
	check(k, old.Pin(), next.Pin())
	check(newKeyring(cfg), old.Pin(), next.Pin())
	// The second before the cluster's record has it, and when it has.
	for _, pins := range [][]string{{old.Pin()}, {old.Pin(), next.Pin()}} {
		if err := k.keep(pins); err != nil {
			t.Fatal(err)
		}
		check(k, old.Pin(), next.Pin())
	}
	if err := k.keep([]string{next.Pin()}); err != nil {
		t.Fatal(err)
	}
	check(k, next.Pin())
	check(newKeyring(cfg), next.Pin())
	if _, err := k.get(old.Pin()); !errors.Is(err, errNoKey) {
		t.Errorf("the key of the old CA is still there: %v", err)
	}
	if _, err := os.Stat(dataDir(dir).caNext()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new CA is not in the place of the old one: %v", err)
	}
	// A node that is started without its passphrase says so, and has not lost the key.
	if _, err := newKeyring(&Config{DataDir: dir}).get(next.Pin()); err == nil || errors.Is(err, errNoKey) {
		t.Errorf("without the passphrase: %v", err)
	}
}

// A systemd credential stands for the file.
func TestSealingCredential(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	cfg := &Config{DataDir: dir}
	if pass, err := cfg.sealing(); pass != nil || err != nil {
		t.Errorf("no credential: %q %v", pass, err)
	}
	if err := os.WriteFile(filepath.Join(dir, credentialName), []byte("a passphrase of some length"), 0o400); err != nil {
		t.Fatal(err)
	}
	if pass, err := cfg.sealing(); string(pass) != "a passphrase of some length" || err != nil {
		t.Errorf("%q %v", pass, err)
	}
}

func TestCARecord(t *testing.T) {
	old, next := testCA(t), testCA(t)
	r := newCARecord(old)
	if r.stage() != "settled" {
		t.Error(r.stage())
	}
	r.Trusted = append(r.Trusted, next.CertPEM()...)
	r.Clients = next.Pin()
	if r.stage() != "overlap" {
		t.Error(r.stage())
	}
	r.Nodes = next.Pin()
	if r.stage() != "switching" {
		t.Error(r.stage())
	}
	if diff := cmp.Diff([]string{old.Pin(), next.Pin()}, r.pins()); diff != "" {
		t.Error(diff)
	}
	last, err := r.only(next.Pin())
	if diff := cmp.Diff(newCARecord(next), last); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := r.only("another"); err == nil {
		t.Error("a CA that is not there was kept")
	}
}
