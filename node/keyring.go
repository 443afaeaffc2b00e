package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	mtls "github.com/mqcluster/mqcluster/tls"
)

// credentialName is the systemd credential that stands for ca.pass_file.
const credentialName = "ca.passphrase"

// sealing returns the passphrase that seals CA keys on this node's disk, nil where
// none is configured.
func (c *Config) sealing() ([]byte, error) {
	path := c.CA.PassFile
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); path == "" && dir != "" {
		credential := filepath.Join(dir, credentialName)
		if _, err := os.Stat(credential); err == nil {
			path = credential
		}
	}
	if path == "" {
		return nil, nil
	}
	pass, err := mtls.Passphrase(path)
	if err != nil {
		return nil, fmt.Errorf("ca.pass_file: %w", err)
	}
	return pass, nil
}

// keyring holds the keys of the cluster's CAs that this node has, of which a
// rotation has two. They are in no log, snapshot or unasked-for backup: voters have
// them, and hand them to each other over the mesh. On disk they are sealed where a
// passphrase is configured; one that was opened stays in memory.
type keyring struct {
	dir  dataDir
	pass func() ([]byte, error)

	mu      sync.Mutex
	opened  map[string]openedCA  // by directory
	pending map[string]time.Time // by pin: saved then, and not in the cluster's record yet
}

// pendingTime is how long a key is kept that the cluster's record does not know: a
// rotation has voters take it first.
const pendingTime = 10 * time.Minute

type openedCA struct {
	sum [sha256.Size]byte // of the key file
	ca  *mtls.CA
}

func newKeyring(cfg *Config) *keyring {
	return &keyring{dir: dataDir(cfg.DataDir), pass: cfg.sealing, opened: map[string]openedCA{}, pending: map[string]time.Time{}}
}

// errNoKey: no key of the CA is here.
var errNoKey = errors.New("the CA's key is not on this node")

// slots are the directories of a CA each.
func (k *keyring) slots() []string { return []string{k.dir.ca(), k.dir.caNext()} }

// pins are those of the CAs whose keys are here, opened or not.
func (k *keyring) pins() []string {
	var out []string
	for _, slot := range k.slots() {
		if pin, ok := pinIn(slot); ok {
			out = append(out, pin)
		}
	}
	return out
}

func pinIn(slot string) (string, bool) {
	if _, err := os.Stat(filepath.Join(slot, "ca.key")); err != nil {
		return "", false
	}
	certs, err := mtls.ReadCertificates(filepath.Join(slot, "ca.crt"))
	if err != nil {
		return "", false
	}
	return mtls.PinOf(certs[0]), true
}

// get opens the CA with the pin, or with "" the one that there is. It returns
// errNoKey where its key is not here, and takes a fraction of a second the first time where it
// is sealed.
func (k *keyring) get(pin string) (*mtls.CA, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, slot := range k.slots() {
		if have, ok := pinIn(slot); ok && (pin == "" || have == pin) {
			return k.open(slot)
		}
	}
	return nil, errNoKey
}

// open reads one slot. The caller holds mu.
func (k *keyring) open(slot string) (*mtls.CA, error) {
	text, err := os.ReadFile(filepath.Join(slot, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("read the CA's key: %w", err)
	}
	sum := sha256.Sum256(text)
	if o, ok := k.opened[slot]; ok && o.sum == sum {
		return o.ca, nil
	}
	pass, err := k.pass()
	if err != nil {
		return nil, err
	}
	ca, err := mtls.LoadSealedCA(slot, pass)
	if err != nil {
		return nil, err
	}
	k.opened[slot] = openedCA{sum, ca}
	return ca, nil
}

// save keeps a CA, durably and all or nothing, so that a directory stands for a
// whole one. A second one that is not the rotation's before takes its place.
func (k *keyring) save(ca *mtls.CA) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := k.dir.ca()
	if pin, ok := pinIn(slot); ok && pin != ca.Pin() {
		slot = k.dir.caNext()
	}
	pass, err := k.pass()
	if err != nil {
		return err
	}
	tmp := slot + ".new"
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700)); err != nil {
		return fmt.Errorf("save the CA's key: %w", err)
	}
	if err := ca.SaveSealed(tmp, pass); err != nil {
		return err
	}
	delete(k.opened, slot)
	k.pending[ca.Pin()] = time.Now()
	if err := errors.Join(os.RemoveAll(slot), os.Rename(tmp, slot), syncDir(string(k.dir))); err != nil {
		return fmt.Errorf("save the CA's key: %w", err)
	}
	return nil
}

// keep removes the keys of all CAs but those with the pins, which are in the record,
// and moves what is left to its place.
func (k *keyring) keep(pins []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pin := range pins {
		delete(k.pending, pin)
	}
	moved := false
	for _, slot := range k.slots() {
		pin, ok := pinIn(slot)
		if !ok || slices.Contains(pins, pin) || time.Since(k.pending[pin]) < pendingTime {
			continue
		}
		delete(k.opened, slot)
		if err := os.RemoveAll(slot); err != nil {
			return fmt.Errorf("remove the key of a CA that was retired: %w", err)
		}
		moved = true
	}
	if _, err := os.Stat(k.dir.ca()); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(k.dir.caNext(), k.dir.ca()); err == nil {
			moved = true
			clear(k.opened)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("move the key of the new CA to its place: %w", err)
		}
	}
	if !moved {
		return nil
	}
	return syncDir(string(k.dir))
}

// reseal brings what is on disk in line with the configuration: a key in clear text
// is sealed once there is a passphrase.
func (k *keyring) reseal() error {
	pass, err := k.pass()
	if err != nil || pass == nil {
		return err
	}
	for _, slot := range k.slots() {
		sealed, err := mtls.Sealed(slot)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if sealed {
			continue
		}
		ca, err := mtls.LoadCA(slot)
		if err != nil {
			return err
		}
		if err := ca.SaveSealed(slot, pass); err != nil {
			return err
		}
	}
	return nil
}

// sealed tells whether every key that is here is encrypted on disk; true where there
// is none.
func (k *keyring) sealed() bool {
	for _, slot := range k.slots() {
		if sealed, err := mtls.Sealed(slot); err == nil && !sealed {
			return false
		}
	}
	return true
}

// samePEM tells whether two bundles are the same text, white space around aside.
func samePEM(a, b []byte) bool { return bytes.Equal(bytes.TrimSpace(a), bytes.TrimSpace(b)) }
