package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// maxWork bounds what a file may ask for to try a pass phrase: 2^20 rounds of
// scrypt in 1 GiB of memory.
const maxWork = 20

// Recipient reads who is to be able to restore: an age recipient (age1…), whose
// secret key no node has to know.
func Recipient(text string) (age.Recipient, error) {
	all, err := age.ParseRecipients(strings.NewReader(strings.TrimSpace(text) + "\n"))
	if err != nil || len(all) != 1 {
		return nil, errors.New("is no age recipient: write one that begins with age1, as mqcluster backup keygen or age-keygen prints it")
	}
	return all[0], nil
}

// Passphrase encrypts by a pass phrase instead. Deriving the key takes about a
// second and 256 MiB.
func Passphrase(text []byte) (age.Recipient, error) {
	return age.NewScryptRecipient(string(text))
}

// Key opens files: the secret key of a recipient, from a file as age-keygen writes
// it, or a pass phrase.
type Key struct{ identities []age.Identity }

// SecretKey reads the secret keys of recipients, one a line.
func SecretKey(text []byte) (Key, error) {
	all, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		// Its text may hold a part of the key.
		return Key{}, errors.New("the key file holds no secret key of age: give the file that mqcluster backup keygen wrote, or a pass phrase with --passphrase-file")
	}
	return Key{all}, nil
}

// PassphraseKey opens what Passphrase encrypted.
func PassphraseKey(text []byte) (Key, error) {
	id, err := age.NewScryptIdentity(string(text))
	if err != nil {
		return Key{}, err
	}
	id.SetMaxWorkFactor(maxWork)
	return Key{[]age.Identity{id}}, nil
}

// NewKey makes a key pair: the text of a key file, and the recipient.
func NewKey() (secret []byte, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	recipient = id.Recipient().String()
	return fmt.Appendf(nil, "# recipient: %s\n%s\n", recipient, id), recipient, nil
}

// Seal encrypts what is written to it, into dst; Close ends the file and leaves dst
// open.
func Seal(dst io.Writer, to age.Recipient) (io.WriteCloser, error) {
	w, err := age.Encrypt(dst, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	return w, nil
}

// Open returns the stream in a file. Its reads fail where the file was changed or
// cut.
func (k Key) Open(src io.Reader) (io.Reader, error) {
	r, err := age.Decrypt(src, k.identities...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, errors.New("the backup is for another key or pass phrase, or its first lines are damaged: give the one it was made with")
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	return r, nil
}
